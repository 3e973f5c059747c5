"""The one reader of events: fills the index, then follows the stream for index and feed, through outages of Redis."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import structlog
from redis import Redis

from streamer.api.event_index import SEVERITIES, STATES, EventIndex, Row
from streamer.api.feed import Hub
from streamer.errors import UnavailableError
from streamer.event_log import Entry, EventLog
from streamer.redis_client import Backoff, reaching

_PAGE: Final = 2000
_BLOCK_S: Final = 1.0
_TIDY_S: Final = 30.0
_log = structlog.get_logger(__name__)


class EventReader:
    """Runs on a thread of its own from `start` to `close`.

    Args:
        redis: Client that answers in bytes.
        prefix: Before every key.
        log: Reads the stream.
        index: To fill.
        hub: Told on its loop.
    """

    def __init__(self, redis: Redis, prefix: str, log: EventLog, index: EventIndex, hub: Hub) -> None:
        self._redis = redis
        self._prefix = prefix
        self._log = log
        self._index = index
        self._hub = hub
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._reason: str | None = "events are still being read; try again in a moment"
        self._thread = threading.Thread(target=self._run, name="api-events", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; the hub is told on ``loop``."""
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def why_not_ready(self) -> str | None:
        """None: the index holds everything; otherwise why not."""
        return self._reason

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                last_id = self._load()
                self._reason = None
                backoff.reset()
                self._follow(last_id)
            except UnavailableError as error:
                if self._reason is None:
                    _log.warning("events cannot be read, trying again", reason=str(error))
                self._reason = str(error)
                self._stopping.wait(backoff.next_s())

    def _load(self) -> str:
        """Everything that is there; the place in the stream from before, to follow from."""
        last_id = self._log.last_id()
        self._index.replace(list(self._stored()))
        self._tell(last_id, ())
        return last_id

    def _follow(self, last_id: str) -> None:
        tidied_s = time.monotonic()
        while not self._stopping.is_set():
            newest, entries = self._log.read(last_id, block_s=_BLOCK_S)
            if newest != last_id:
                last_id = newest
                self._index.put(_row(entry) for entry in entries)
                self._tell(last_id, entries)
            if time.monotonic() - tidied_s > _TIDY_S:
                tidied_s = time.monotonic()
                self._forget()

    def _forget(self) -> None:
        """What workers have removed, which is always the oldest."""
        with reaching(self._redis):
            oldest: Any = self._redis.zrange(f"{self._prefix}events:times", 0, 0, withscores=True)
        self._index.drop_older(int(oldest[0][1]) if oldest else time.time_ns() // 1000)

    def _tell(self, last_id: str, entries: Sequence[Entry]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hub.publish, last_id, entries)

    def _stored(self) -> Iterator[Row]:
        with reaching(self._redis):
            times: Any = self._redis.zrange(f"{self._prefix}events:times", 0, -1, withscores=True)
        for place in range(0, len(times), _PAGE):
            if self._stopping.is_set():
                return
            page = times[place : place + _PAGE]
            pipeline = self._redis.pipeline(transaction=False)
            for event_id, _ in page:
                pipeline.hmget(f"{self._prefix}event:{event_id.decode()}", "stream", "prompt", "severity", "state")
            with reaching(self._redis):
                found = pipeline.execute()
            for (event_id, start_us), fields in zip(page, found, strict=True):
                if None not in fields:
                    stream, prompt, severity, state = (value.decode() for value in fields)
                    if severity in SEVERITIES and state in STATES:
                        yield Row(event_id.decode(), int(start_us), stream, prompt, severity, state)


def _row(entry: Entry) -> Row:
    event = entry.event
    return Row(event.id, event.start_us, event.stream, event.prompt.id, event.severity, event.state)
