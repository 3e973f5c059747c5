"""A run that ends with its sources: servers, ingest and a worker in one process tree."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kafka import TopicPartition

from streamer.embedded import CHECK_INTERVAL_S, BrokerKind, EmbeddedServer, check
from streamer.errors import SourceError, UnavailableError
from streamer.event_log import Entry, EventLog
from streamer.events import Event
from streamer.ingest.counters import SourceFacts
from streamer.ingest.ingestor import Ingestor
from streamer.ingest.spec import SourceSpec
from streamer.kafka_client import make_consumer, translated
from streamer.kafka_producer import BoundedProducer
from streamer.live import LiveBoard
from streamer.local import local_servers
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.settings import Settings
from streamer.worker import Worker

_POLL_S = 0.1
_START_S = 60.0
_CLOSE_S = 2.0
_DYING_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a live view shows.

    Attributes:
        sources: Counters of ingest, one a source.
        streams: Status fields of every stream that a worker has seen.
        confidences: Stream to prompt to latest confidence.
    """

    sources: Sequence[SourceFacts]
    streams: Mapping[str, Mapping[str, str]]
    confidences: Mapping[str, Mapping[str, float]]


class Session:
    """Watches sources for prompts until they end. Made by `open_session`."""

    def __init__(
        self, settings: Settings, sources: Mapping[str, SourceSpec], servers: Sequence[EmbeddedServer] = ()
    ) -> None:
        self.settings = settings
        self._servers = servers
        self._next_check_s = 0.0
        self._redis = connect_redis(settings.redis.url)
        self._log = EventLog(self._redis, settings.redis.prefix)
        self._board = LiveBoard(self._redis, settings.redis.prefix, settings.events.live_ttl_s)
        self._last_id = self._log.last_id()
        self._worker = Worker(settings)
        self._producer = BoundedProducer(settings.kafka.bootstrap, message_max_bytes=settings.kafka.message_max_bytes)
        self._ingestor = Ingestor(sources, settings, self._producer)
        self._failure: BaseException | None = None
        self._working = threading.Thread(target=self._work, name="worker", daemon=True)

    def __enter__(self) -> "Session":
        self._working.start()
        try:
            self._until(lambda: self._worker.is_ready, _START_S, "the worker did not get ready")
        except BaseException:
            self.__exit__()
            raise
        self._ingestor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ingestor.stop(timeout_s=_CLOSE_S)
        self._worker.stop()
        if not all(server.is_running for server in self._servers):
            self._worker.stop()  # nothing that is in flight can arrive
        self._working.join(_START_S)
        with contextlib.suppress(UnavailableError):  # what Kafka did not take counts as dropped already
            self._producer.close(timeout_s=_CLOSE_S)
        self._redis.close()

    def events(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[Event]:
        """Every event as it comes, until the sources have ended and all of it was looked at.

        Args:
            on_wait: Called while nothing comes, some times a second.

        Raises:
            WatchwordError: The worker or a server of ours failed, or a source did.
        """
        ends: Mapping[TopicPartition, int] | None = None
        while True:
            entries = self._read(block_s=_POLL_S)
            for entry in entries:
                yield entry.event
            on_wait()
            self._raise_failure()
            if entries:
                continue
            if ends is None and self._ingestor.wait(0):
                ends = self._ends()
            if ends is not None and self._has_reached(ends):
                break
        yield from self._rest()
        self._raise_sources()

    def progress(self) -> Progress:
        """What a live view shows now."""
        streams = self._board.streams()
        confidences = {stream: self._board.confidences(stream) for stream in streams}
        return Progress(self._ingestor.facts(), streams, confidences)

    def _rest(self) -> Iterator[Event]:
        """What was committed between the last look and now."""
        while True:
            entries = self._read()
            if not entries:
                return
            for entry in entries:
                yield entry.event

    def _read(self, block_s: float = 0.0) -> list[Entry]:
        try:
            self._last_id, entries = self._log.read(self._last_id, block_s=block_s)
        except UnavailableError:
            # Where it is one of ours that has ended, that says more; its connections break a moment before it is gone.
            deadline_s = time.monotonic() + _DYING_S
            while time.monotonic() < deadline_s:
                check(self._servers)
                time.sleep(_POLL_S / 10)
            raise
        return entries

    def _work(self) -> None:
        try:
            self._worker.run()
        except BaseException as error:  # noqa: BLE001  # `events` raises it on the caller's thread
            self._failure = error

    def _raise_failure(self) -> None:
        has_failed = self._failure is not None or not self._working.is_alive()
        if has_failed or time.monotonic() >= self._next_check_s:
            check(self._servers)  # first: a worker's error may be only that a server has ended
            self._next_check_s = time.monotonic() + CHECK_INTERVAL_S
        if self._failure is not None:
            raise self._failure
        if not self._working.is_alive():
            raise UnavailableError("the worker ended before its sources did; run again with --debug")

    def _raise_sources(self) -> None:
        failed = [fact for fact in self._ingestor.facts() if fact.state == "failed"]
        if failed:
            raise SourceError("; ".join(f"{fact.name}: {fact.last_error}" for fact in failed))

    def _until(self, condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if self._failure is not None:
                raise self._failure
            if time.monotonic() > deadline_s:
                raise UnavailableError(f"{otherwise} within {timeout_s:.0f} s: {self._worker.not_ready}")
            time.sleep(_POLL_S / 2)

    def _ends(self) -> Mapping[TopicPartition, int]:
        """Where the media topics end, once nothing more is sent."""
        kafka = self.settings.kafka
        consumer = make_consumer(
            kafka.bootstrap, group=None, message_max_bytes=kafka.message_max_bytes, poll_max_bytes=kafka.poll_max_bytes
        )
        try:
            with translated(kafka.bootstrap, "telling where its topics end"):
                places = [
                    TopicPartition(topic, number)
                    for topic in kafka.topics
                    for number in sorted(consumer.partitions_for_topic(topic) or ())
                ]
                ends: Mapping[TopicPartition, int] = consumer.end_offsets(places)
        finally:
            consumer.close()
        return {place: end for place, end in ends.items() if end > 0}

    def _has_reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        prefix = self.settings.redis.prefix
        for place, end in ends.items():
            raw = self._redis.hget(f"{prefix}partition:{place.partition}", f"offset:{place.topic}")
            if raw is None or int(raw) < end:
                return False
        return True


@contextlib.contextmanager
def open_session(
    settings: Settings,
    sources: Mapping[str, SourceSpec],
    prompts: Sequence[Mapping[str, object] | str],
    *,
    broker: BrokerKind = "auto",
) -> Iterator[Session]:
    """Servers, prompts, worker and ingest, in this order; ended in the other.

    Raises:
        PromptError: A prompt is refused.
        UnavailableError: A server does not start or answer.
    """
    with local_servers(settings, broker=broker, is_long_run=False) as (running, servers):
        if prompts:
            redis = connect_redis(running.redis.url)
            PromptStore(redis, running.redis.prefix).import_many(prompts)
            redis.close()
        with Session(running, sources, servers) as session:
            yield session
