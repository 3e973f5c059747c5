"""Reading events back from Redis: one after the other as they were told, or looked up by stream, prompt and time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydantic import ValidationError
from redis import Redis

from streamer.errors import UnavailableError
from streamer.events import Event
from streamer.redis_client import Backoff, reaching

_log = structlog.get_logger(__name__)
PAGE: Final = 200
START: Final = "0-0"  # before every entry


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of state, as it was told.

    Attributes:
        id: Of the stream's entry, ``MILLISECONDS-NUMBER``; reading goes on after it.
        event: The document.
    """

    id: str
    event: Event

    @property
    def told_us(self) -> int:
        """When Redis got it, microseconds since 1970 UTC."""
        return int(self.id.partition("-")[0]) * 1000


class EventLog:
    """Events under a prefix. Safe to share between threads; methods may raise `UnavailableError`.

    Args:
        redis: Client that answers in bytes.
        prefix: Before every key.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._key = f"{prefix}events"
        timeout_s = redis.connection_pool.connection_kwargs.get("socket_timeout")
        self._longest_block_s = timeout_s / 2 if timeout_s else 60.0

    def last_id(self) -> str:
        """Id of the newest entry, to read on from; `START` where there is none."""
        with reaching(self._redis):
            newest: Any = self._redis.xrevrange(self._key, count=1)
        return newest[0][0].decode() if newest else START

    def first_id(self) -> str:
        """Id of the oldest entry that is still there; `START` where there is none."""
        with reaching(self._redis):
            oldest: Any = self._redis.xrange(self._key, count=1)
        return oldest[0][0].decode() if oldest else START

    def read(self, last_id: str, block_s: float = 0.0, count: int = PAGE) -> tuple[str, list[Entry]]:
        """What follows an entry; waits for the first up to ``block_s``, at most half the client's time-out.

        Entries that are no event are left out, with a log line.

        Returns:
            The id to read on from, and the entries.
        """
        block_ms = max(1, round(min(block_s, self._longest_block_s) * 1000)) if block_s > 0 else None
        with reaching(self._redis):
            reply: Any = self._redis.xread({self._key: last_id}, count=count, block=block_ms)
        raw = [entry for _, entries in reply or () for entry in entries]
        return (raw[-1][0].decode() if raw else last_id), _entries(raw)

    def recent(self, count: int, until: str = "+") -> list[Entry]:
        """The newest entries up to one with the id ``until``, oldest first."""
        with reaching(self._redis):
            raw: Any = self._redis.xrevrange(self._key, max=until, count=count) if count else []
        return _entries(raw[::-1])

    def since(self, told_us: int) -> Iterator[Entry]:
        """Entries that were told at or after a time, oldest first."""
        last_id = f"{max(0, told_us // 1000 - 1)}-{2**64 - 1}"
        while True:
            before = last_id
            last_id, entries = self.read(last_id)
            yield from entries
            if last_id == before:
                return

    def follow(self, last_id: str, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[Entry]:
        """Entries after one as they come, for ever; waits through times when Redis is away."""
        backoff = Backoff()
        while not is_stopped():
            try:
                last_id, entries = self.read(last_id, block_s=1.0)
            except UnavailableError as error:
                _log.warning("events cannot be read, trying again", reason=str(error))
                time.sleep(backoff.next_s())
                continue
            backoff.reset()
            yield from entries

    def get(self, event_id: str) -> Event | None:
        """The latest state of an event; None: there is none with this id, or it was forgotten."""
        with reaching(self._redis):
            raw: Any = self._redis.hget(f"{self._prefix}event:{event_id}", "event")
        return None if raw is None else _parsed(raw, event_id)

    def find(
        self,
        limit: int,
        *,
        stream: str | None = None,
        prompt: str | None = None,
        state: str | None = None,
        since_us: int | None = None,
    ) -> list[Event]:
        """The latest state of each event, newest start first.

        Args:
            limit: At most this many.
            stream: Only of this stream.
            prompt: Only of this prompt.
            state: Only those that are in this state now.
            since_us: Only those that started at or after this time.
        """
        if stream is not None:
            index = f"{self._prefix}events:stream:{stream}"
        elif prompt is not None:
            index = f"{self._prefix}events:prompt:{prompt}"
        else:
            index = f"{self._prefix}events:times"
        found: list[Event] = []
        place = 0
        oldest = "-inf" if since_us is None else since_us
        while len(found) < limit:
            with reaching(self._redis):
                ids: Any = self._redis.zrevrangebyscore(index, "+inf", oldest, start=place, num=PAGE)
            if not ids:
                break
            place += len(ids)
            found += [
                event
                for event in self.latest([event_id.decode() for event_id in ids])
                if (prompt is None or event.prompt.id == prompt) and (state is None or event.state == state)
            ]
        return found[:limit]

    def snapshot(self, event_id: str) -> bytes | None:
        """An event's picture, JPEG; None: it has none, or it was forgotten."""
        with reaching(self._redis):
            jpeg: Any = self._redis.get(f"{self._prefix}snapshot:{event_id}")
        return jpeg if isinstance(jpeg, bytes) else None

    def latest(self, event_ids: Sequence[str]) -> list[Event]:
        """The latest states of some events, in their order, without those that are gone."""
        pipeline = self._redis.pipeline(transaction=False)
        for event_id in event_ids:
            pipeline.hget(f"{self._prefix}event:{event_id}", "event")
        with reaching(self._redis):
            raws: Sequence[bytes | None] = pipeline.execute()
        parsed = [_parsed(raw, event_id) for event_id, raw in zip(event_ids, raws, strict=True) if raw is not None]
        return [event for event in parsed if event is not None]


def _entries(raw: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
    parsed = [(entry_id.decode(), _parsed(fields.get(b"event", b""), entry_id.decode())) for entry_id, fields in raw]
    return [Entry(entry_id, event) for entry_id, event in parsed if event is not None]


def _parsed(raw: bytes, where: str) -> Event | None:
    try:
        return Event.model_validate_json(raw)
    except ValidationError as error:
        _log.warning("not an event, left out", entry=where, problems=error.error_count())
        return None
