"""From the spools into Kafka: one thread for all sources, fair among them, patient while the broker is away."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import structlog

from streamer.errors import ChunkError, UnavailableError
from streamer.ingest.backoff import BackOff
from streamer.ingest.counters import SourceCounters
from streamer.ingest.spool import Spool
from streamer.kafka_producer import Headers
from streamer.media import headers_of
from streamer.types import MediaChunk, Position

_log = structlog.get_logger(__name__)
_SEND_TIMEOUT_S = 3.0  # for room among what is in flight: slow is not away


class Producer(Protocol):
    """The part of `BoundedProducer` that is needed."""

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Headers = (),
        on_delivery: Callable[[Position | None, UnavailableError | None], None] | None = None,
        *,
        timeout_s: float = 10.0,
    ) -> None:
        """Hand a message over; ``on_delivery`` is called once with the answer."""


class Sender:
    """Sends what the spools hold, oldest first.

    Args:
        producer: Where to.
        spools: By source.
        counters: By source.
        changed: The condition that the spools share.
        backoff: Between tries while Kafka is away.
    """

    def __init__(
        self,
        producer: Producer,
        spools: Mapping[str, Spool],
        counters: Mapping[str, SourceCounters],
        changed: threading.Condition,
        backoff: BackOff,
    ) -> None:
        self._producer = producer
        self._spools = spools
        self._counters = counters
        self._changed = changed
        self._backoff = backoff
        self._names = list(spools)
        self._not_before_s = 0.0
        self._is_away = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest-sender", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def drain(self, timeout_s: float | None) -> bool:
        """Wait until every spool is empty; False if time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: all(spool.is_empty for spool in self._spools.values()), timeout_s)

    def close(self) -> None:
        """End; what is not delivered stays in the spools."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(_SEND_TIMEOUT_S + 1.0)

    def _run(self) -> None:
        while not self._closing.is_set():
            wait_s = self._not_before_s - time.monotonic()
            if wait_s > 0:
                self._closing.wait(min(wait_s, 0.1))
                continue
            with self._changed:
                found = self._next()
                if found is None:
                    self._changed.wait(0.2)
                    continue
            self._send(*found)

    def _next(self) -> tuple[str, MediaChunk] | None:
        for _ in self._names:
            name = self._names.pop(0)
            self._names.append(name)
            chunk = self._spools[name].take()
            if chunk is not None:
                return name, chunk
        return None

    def _send(self, name: str, chunk: MediaChunk) -> None:
        try:
            self._producer.send(
                chunk.position.topic,
                chunk.stream.encode(),
                chunk.payload,
                headers_of(chunk),
                partial(self._answered, name, chunk),
                timeout_s=_SEND_TIMEOUT_S,
            )
        except ChunkError as error:  # over the broker's limit: it will never be taken
            self._counters[name].count_error(str(error))
            self._counters[name].count_dropped()
            self._spools[name].settle(chunk, keep=False)
        except UnavailableError as error:
            self._answered(name, chunk, None, error)

    def _answered(self, name: str, chunk: MediaChunk, place: Position | None, error: UnavailableError | None) -> None:
        del place
        counters = self._counters[name]
        if error is None:
            counters.count_delivered(len(chunk.payload), chunk.capture_us + (chunk.duration_us or 0))
            self._came_back()
        else:
            counters.count_error(str(error))
            self._went_away(error)
        self._spools[name].settle(chunk, keep=error is not None)
        counters.set_spooled(self._spools[name].size_bytes)

    def _went_away(self, error: UnavailableError) -> None:
        with self._changed:
            if time.monotonic() < self._not_before_s:
                return  # the other chunks in flight fail together: one outage, one step
            self._not_before_s = time.monotonic() + self._backoff.next_s()
            is_new, self._is_away = not self._is_away, True
        if is_new:
            _log.warning("kafka away; chunks are spooled", error=str(error))

    def _came_back(self) -> None:
        with self._changed:
            was_away, self._is_away = self._is_away, False
            self._backoff.reset()
        if was_away:
            _log.info("kafka is back")
