"""What people say of events: seen by somebody, right or wrong, comments.

Under the prefix, ``review:{id}``: hash with the JSON documents ``acknowledged``, ``mark`` and ``comment:N``, kept as
long as events are.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis import Redis

from streamer.errors import WatchwordError
from streamer.events import to_rfc3339
from streamer.redis_client import reaching

MAX_COMMENTS: Final = 100
MAX_COMMENT: Final = 2000
Verdict = Literal["right", "wrong"]

# Appends a comment and answers its number; 0: there are enough.
_COMMENT = """
local number = redis.call('HINCRBY', KEYS[1], 'comments', 1)
if number > tonumber(ARGV[2]) then
    redis.call('HINCRBY', KEYS[1], 'comments', -1)
    return 0
end
redis.call('HSET', KEYS[1], 'comment:' .. number, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return number
"""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Somebody has seen to it."""

    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Somebody says whether it was what the prompt means."""

    verdict: Verdict
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Comment:
    """Somebody says something."""

    number: int
    text: str
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Review:
    """All that was said of one event."""

    acknowledged: Acknowledged | None = None
    mark: Mark | None = None
    comments: tuple[Comment, ...] = ()


class ReviewStore:
    """Reviews under a prefix. Safe to share between threads; every method may raise `UnavailableError`."""

    def __init__(self, redis: Redis, prefix: str, ttl_s: int) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._comment = redis.register_script(_COMMENT)

    def get(self, event_ids: Sequence[str]) -> list[Review]:
        """What was said of some events, in their order."""
        pipeline = self._redis.pipeline(transaction=False)
        for event_id in event_ids:
            pipeline.hgetall(self._key(event_id))
        with reaching(self._redis):
            return [_review(raw) for raw in pipeline.execute()]

    def acknowledge(self, event_id: str, by: str, now_us: int) -> None:
        """Somebody has seen to it; the first who says so stands."""
        self._set(event_id, "acknowledged", {"by": by, "at": to_rfc3339(now_us)}, is_first=True)

    def take_back(self, event_id: str, field: Literal["acknowledged", "mark"]) -> None:
        """As if it had never been said."""
        with reaching(self._redis):
            self._redis.hdel(self._key(event_id), field)

    def mark(self, event_id: str, verdict: Verdict, by: str, now_us: int) -> None:
        """Right or wrong; the last who says so stands."""
        self._set(event_id, "mark", {"verdict": verdict, "by": by, "at": to_rfc3339(now_us)})

    def comment(self, event_id: str, text: str, by: str, now_us: int) -> Comment:
        """Say something.

        Raises:
            WatchwordError: There are `MAX_COMMENTS` already.
        """
        document = json.dumps({"text": text, "by": by, "at": to_rfc3339(now_us)})
        with reaching(self._redis):
            number = int(self._comment(keys=[self._key(event_id)], args=[document, MAX_COMMENTS, self._ttl_s]))
        if not number:
            raise WatchwordError(f"event {event_id} has {MAX_COMMENTS} comments already; no more are taken")
        return Comment(number, text, by, to_rfc3339(now_us))

    def _set(self, event_id: str, field: str, document: dict[str, str], *, is_first: bool = False) -> None:
        key = self._key(event_id)
        pipeline = self._redis.pipeline(transaction=False)
        (pipeline.hsetnx if is_first else pipeline.hset)(key, field, json.dumps(document))
        pipeline.expire(key, self._ttl_s)
        with reaching(self._redis):
            pipeline.execute()

    def _key(self, event_id: str) -> str:
        return f"{self._prefix}review:{event_id}"


def _review(raw: dict[bytes, bytes]) -> Review:
    documents: dict[str, Any] = {key.decode(): json.loads(value) for key, value in raw.items() if key != b"comments"}
    numbered = sorted(
        (int(key.removeprefix("comment:")), value) for key, value in documents.items() if key.startswith("comment:")
    )
    acknowledged, mark = documents.get("acknowledged"), documents.get("mark")
    return Review(
        acknowledged=None if acknowledged is None else Acknowledged(**acknowledged),
        mark=None if mark is None else Mark(**mark),
        comments=tuple(Comment(number, **value) for number, value in numbered),
    )
