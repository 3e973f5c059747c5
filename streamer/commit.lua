-- One partition's step forward, all or nothing: events, the state of its streams, the next offsets.
--
-- KEYS  1 partition:{n}   2 events   3 events:times
--       then per event: event:{id}, events:stream:{stream}, events:prompt:{prompt}
-- ARGV  1 owner  2 epoch  3 serial of this commit  4 its digest  5 state  6 number of topics
--       7 most entries of the event stream  8 their age in ms
--       then per topic: topic, next offset
--       then per event: id, document, state, stream, prompt, severity, start in us
-- Answers {outcome, owner, epoch, serial}, as they stand in Redis:
--   'done'    written
--   'again'   the same commit was written before and its answer got lost; nothing was written now
--   'fenced'  another owner or epoch holds the partition
--   'astray'  Redis has another number of commits: it lost some, or this one came too late
--
-- Only what Redis 6.2 has. A script is not rolled back when a command fails half way, so types are checked first.

local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'serial', 'digest')
local owner, epoch, serial = held[1] or '', held[2] or '0', tonumber(held[3] or '0')
if owner ~= ARGV[1] or epoch ~= ARGV[2] then return {'fenced', owner, epoch, serial} end
if serial == tonumber(ARGV[3]) and held[4] == ARGV[4] then return {'again', owner, epoch, serial} end
if serial + 1 ~= tonumber(ARGV[3]) then return {'astray', owner, epoch, serial} end

local function fits(kind, key)
    local found = redis.call('TYPE', key).ok
    return found == 'none' or found == kind
end

local topics = tonumber(ARGV[6])
local first = 8 + 2 * topics
local events = (#ARGV - first) / 7
if events > 0 then
    for k = 2, #KEYS do
        local kind = k == 2 and 'stream' or k % 3 == 1 and 'hash' or 'zset'
        if not fits(kind, KEYS[k]) then return redis.error_reply('WRONGTYPE ' .. KEYS[k] .. ' is no ' .. kind) end
    end
end

local fields = {'serial', ARGV[3], 'digest', ARGV[4], 'state', ARGV[5]}
for i = 9, first, 2 do
    fields[#fields + 1] = 'offset:' .. ARGV[i]
    fields[#fields + 1] = ARGV[i + 1]
end
redis.call('HSET', KEYS[1], unpack(fields))

local age_ms = tonumber(ARGV[8])
for e = 0, events - 1 do
    local a, k = first + 7 * e, 4 + 3 * e
    local id, document, state, stream, prompt, severity, start_us =
        ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5], ARGV[a + 6], ARGV[a + 7]
    local entry = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[7], '*', 'event', document,
        'id', id, 'state', state, 'stream', stream, 'prompt', prompt, 'severity', severity)
    redis.call('HSET', KEYS[k], 'event', document, 'state', state, 'stream', stream, 'prompt', prompt,
        'severity', severity, 'entry', entry)
    redis.call('PEXPIRE', KEYS[k], age_ms)
    for _, index in ipairs({KEYS[3], KEYS[k + 1], KEYS[k + 2]}) do
        redis.call('ZADD', index, start_us, id)
        redis.call('PEXPIRE', index, age_ms)
    end
end
if events > 0 then
    local now = redis.call('TIME')
    redis.call('XTRIM', KEYS[2], 'MINID', '~', string.format('%.0f-0', math.max(0, now[1] * 1000 - age_ms)))
end
return {'done', owner, epoch, tonumber(ARGV[3])}
