-- Take a partition over: from here on, whoever held it is refused.
--
-- KEYS  1 partition:{n}
-- ARGV  1 owner
-- Answers {epoch, serial, field, value, ...} with the fields 'state' and 'offset:TOPIC' as they were committed last.

local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
local answer = {epoch, tonumber(redis.call('HGET', KEYS[1], 'serial') or '0')}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    if all[i] == 'state' or string.sub(all[i], 1, 7) == 'offset:' then
        answer[#answer + 1] = all[i]
        answer[#answer + 1] = all[i + 1]
    end
end
return answer
