"""One worker: the only place that knows every stage, and wires them, their threads and their end."""

import contextlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import structlog
from prometheus_client import CollectorRegistry
from redis import Redis

from models.calibrate import Calibrations
from models.encoders import Encoders
from models.learned import Learned
from streamer.align import model_digest
from streamer.backlog import Backlog
from streamer.batch import Batcher
from streamer.decode import DecodeOptions, decode_chunk
from streamer.emit import Emitter, EventLimits
from streamer.errors import ChunkError, UnavailableError
from streamer.events import EventModel
from streamer.health import Conditions, HealthServer
from streamer.kafka_client import DEAD_LETTER_ROOM_BYTES, make_consumer
from streamer.kafka_producer import BoundedProducer
from streamer.metrics import Metrics
from streamer.prompt_follower import PromptFollower
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis, reaching
from streamer.settings import Settings
from streamer.source import ChunkSource
from streamer.stages import open_stages
from streamer.stream_follower import StreamFollower
from streamer.stream_store import StreamStore
from streamer.types import SAMPLE_RATE_HZ, Decoded, MediaChunk
from streamer.worker.dead_letters import DeadLetters
from streamer.worker.outbox import Commit, Outbox
from streamer.worker.pipeline import Pipeline
from streamer.worker.prompt_sets import PromptSets
from streamer.worker.pulse import Pulse
from streamer.worker.tracking import Tracking
from streamer.worker.watching import Watching

__all__ = ["Worker"]

_log = structlog.get_logger(__name__)
_OUTBOX_DEPTH = 8
_DRAIN_S = 20.0  # orchestrators commonly kill after 30 s
_READY_POLL_S = 0.05
UNCALIBRATED = "nothing was trained for this prompt: its confidence follows one curve for all such prompts"


class Worker:
    """Consumes media, watches for prompts, writes events. `run` blocks; `stop` may come from any thread.

    Args:
        settings: Name running servers.
        encoders: Already loaded ones, for those that have them; None: load what the settings say.

    Raises:
        UnavailableError: A server does not answer at start.
        ModelError: A model cannot be loaded.
    """

    def __init__(self, settings: Settings, encoders: Encoders | None = None) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._leaving = threading.Event()
        self._registry = CollectorRegistry()
        self._metrics = Metrics(
            self._registry, max_streams=settings.metrics.max_streams, max_prompts=settings.metrics.max_prompts
        )
        self._ready = Conditions(("models", "prompts"))
        self._away: set[str] = set()  # who finds Redis away: the outbox, the pulse
        self._away_lock = threading.Lock()
        self._is_kafka_away = False
        self._active: frozenset[str] = frozenset()
        self._removed: frozenset[str] = frozenset()
        self._cleanup = contextlib.ExitStack()
        try:
            self._wire(encoders)
        except BaseException:
            self._cleanup.close()
            raise

    @property
    def url(self) -> str:
        """Where ``/metrics``, ``/healthz`` and ``/readyz`` are."""
        return self._health.url

    @property
    def is_ready(self) -> bool:
        """Partitions are assigned, prompts are loaded, models are warm."""
        return not self._ready.reasons()

    @property
    def not_ready(self) -> dict[str, str]:
        """What is missing, with the reason."""
        return self._ready.reasons()

    def wait_ready(self) -> bool:
        """Block until it is ready; False if it was stopped before."""
        while not self.is_ready:
            if self._stopping.wait(_READY_POLL_S):
                return False
        return True

    def stop(self) -> None:
        """Stop polling, finish what is in flight, commit, leave the group. A second call leaves at once."""
        if self._stopping.is_set():
            self._leaving.set()
            self._outbox.abandon()
        else:  # the loop may be waiting for a Redis that is away
            overdue = threading.Timer(_DRAIN_S, self._outbox.abandon)
            overdue.daemon = True
            overdue.start()
        self._stopping.set()
        self._backlog.wake()

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            WatchwordError: Something failed that retrying does not mend.
        """
        try:
            self._prompts.start()
            self._outbox.start()
            self._watching.start()
            self._wait_for_prompts()
            self._source.start()
            self._pulse.start()
            while not self._stopping.is_set():
                self._raise_failures()
                self._pipeline.step()
            self._leave()
        finally:
            self._stopping.set()
            self._cleanup.close()

    def _wait_for_prompts(self) -> None:
        """Watching for nothing would pass over events, and close those that are open; without masks, see too much."""
        while not (self._prompts.is_loaded and self._streams.is_loaded) and not self._stopping.wait(_READY_POLL_S):
            self._raise_failures()

    def _wire(self, encoders: Encoders | None) -> None:
        """Put the parts together; none of them runs yet. What was opened is closed in the opposite order."""
        redis = self._open_servers()
        self._open_models(encoders)
        self._wire_source()
        self._wire_results(redis)
        self._wire_prompts(redis)
        self._wire_pipeline()
        self._pulse = Pulse(
            bootstrap=self._settings.kafka.bootstrap,
            redis=redis,
            source=self._source,
            encode=self._encode,
            emitter=self._emitter,
            metrics=self._metrics,
            on_kafka=self._kafka_answers,
            on_redis=lambda is_up: self._redis_away("pulse", is_away=not is_up),
        )
        self._cleanup.callback(self._pulse.close)

    def _open_servers(self) -> Redis:
        settings = self._settings
        host, port = settings.metrics.host, settings.metrics.port
        self._health = HealthServer(self._registry, self._ready, host=host, port=port)
        self._cleanup.enter_context(self._health)
        redis = connect_redis(settings.redis.url)
        self._cleanup.callback(redis.close)
        with reaching(redis):
            redis.ping()
        limits = EventLimits(settings.events.max_length, settings.events.max_age_s, settings.events.snapshot_ttl_s)
        self._emitter = Emitter(redis, settings.redis.prefix, limits)
        self._streams = StreamFollower(StreamStore(redis, settings.redis.prefix), settings)
        self._cleanup.callback(self._streams.close)
        self._streams.start()
        return redis

    def _open_models(self, encoders: Encoders | None) -> None:
        self._stages = open_stages(self._settings, encoders)
        for model in (self._stages.encoders.picture, self._stages.encoders.sound):
            self._metrics.model(model.name, model.sha256, self._stages.device)
        self._warm_up()
        self._ready.meet("models")

    def _warm_up(self) -> None:
        """One picture and one stretch of silence: runtimes compile what they lack on first use."""
        encoders = self._stages.encoders
        size = encoders.picture.size
        encoders.picture.encode(np.zeros((1, size, size, 3), np.uint8))
        stretch = round(self._settings.window.hop_s * SAMPLE_RATE_HZ)
        encoders.sound.encode(np.zeros((1, stretch), np.float32))

    def _wire_source(self) -> None:
        settings, kafka = self._settings, self._settings.kafka
        self._backlog = Backlog(
            policy=settings.overload.policy,
            max_bytes=2 * kafka.poll_max_bytes,
            max_age_s=settings.overload.max_age_s,
        )
        consumer = make_consumer(
            kafka.bootstrap,
            group=kafka.group,
            message_max_bytes=kafka.message_max_bytes,
            poll_max_bytes=kafka.poll_max_bytes,
            session_timeout_s=kafka.session_timeout_s,
        )
        self._source = ChunkSource(
            consumer,
            kafka.topics,
            self._backlog,
            self._emitter.claim,
            max_future_s=settings.decode.max_future_s,
        )
        self._cleanup.callback(self._source.close, is_hasty=True)
        self._ready.watch("partitions", self._source.why_not_ready)

    def _wire_results(self, redis: Redis) -> None:
        kafka = self._settings.kafka
        limit = kafka.message_max_bytes + DEAD_LETTER_ROOM_BYTES
        producer = BoundedProducer(kafka.bootstrap, message_max_bytes=limit)
        self._cleanup.callback(_close_producer, producer)
        self._outbox = Outbox(
            self._emitter,
            DeadLetters(producer, kafka.dead_topic),
            depth=_OUTBOX_DEPTH,
            on_written=self._written,
            on_lost=self._source.reclaim,
            on_away=lambda is_away: self._redis_away("outbox", is_away=is_away),
        )
        self._cleanup.callback(self._outbox.abandon)
        self._watching = Watching(redis, self._settings, self._metrics, self._streams.of)
        self._cleanup.callback(self._watching.close)

    def _wire_prompts(self, redis: Redis) -> None:
        follower = PromptFollower(PromptStore(redis, self._settings.redis.prefix))
        self._cleanup.callback(follower.close)
        self._prompts = PromptSets(follower, self._stages.embedder(), on_change=self._prompts_changed)
        self._cleanup.callback(self._prompts.close)
        follower.start()

    def _wire_pipeline(self) -> None:
        settings = self._settings
        self._pool = ThreadPoolExecutor(settings.decode.threads, thread_name_prefix="decode")
        self._cleanup.callback(self._pool.shutdown, wait=False, cancel_futures=True)
        self._encode = self._stages.encode(lambda: self._prompts.current)
        align = self._stages.align(lambda: self._prompts.current)
        stages, key = self._stages, self._emitter.snapshot_key
        model = model_of(stages.encoders, stages.calibrations, stages.learned)
        self._pipeline = Pipeline(
            backlog=self._backlog,
            decode=self._decode,
            depth=settings.decode.queue_chunks,
            windower=self._stages.windower(),
            batcher=Batcher(settings.batch.max_frames, settings.batch.max_wait_s),
            encode=self._encode,
            align=align,
            tracking=Tracking(
                settings, align, model, key, self._watching, self._metrics, stages.usual(), self._streams.of
            ),
            outbox=self._outbox,
            is_behind=self._source.is_behind,
            watching=self._watching,
            metrics=self._metrics,
        )
        self._cleanup.callback(self._pipeline.close)

    def _decode(self, chunk: MediaChunk) -> "Future[tuple[Decoded, float]]":
        return self._pool.submit(
            _timed_decode, chunk, self._stages.decode_options(chunk.stream, self._streams.of(chunk.stream).masks)
        )

    def _written(self, commit: Commit, duration_s: float) -> None:
        self._metrics.commit(duration_s)
        self._source.processed(commit.partition, commit.offsets)
        for latency_s in commit.latencies_s(time.monotonic()):
            self._metrics.event_latency(latency_s)

    def _redis_away(self, who: str, *, is_away: bool) -> None:
        with self._away_lock:
            was_away = bool(self._away)
            (self._away.add if is_away else self._away.discard)(who)
            is_away = bool(self._away)
            self._metrics.redis_up(is_up=not is_away)
            if is_away == was_away:
                return
            self._source.hold(is_held=is_away)
            if is_away:
                self._ready.fail("redis", "redis does not answer; the place is kept, nothing is lost")
            else:
                self._ready.meet("redis")
                self._pipeline.excuse()
        _log.warning("redis is away") if is_away else _log.info("redis is back")

    def _kafka_answers(self, is_up: bool) -> None:  # a callback
        self._metrics.kafka_up(is_up=is_up)
        if is_up != self._is_kafka_away:
            return
        self._is_kafka_away = not is_up
        self._source.away(is_away=not is_up)
        if is_up:
            self._ready.meet("kafka")
            self._pipeline.excuse()
            _log.info("kafka is back")
        else:
            self._ready.fail("kafka", "kafka does not answer; the place is kept, nothing is lost")
            _log.warning("kafka is away")

    def _prompts_changed(self, active: frozenset[str]) -> None:
        removed = self._active - active
        for prompt_id in (removed | self._removed) - active:  # once more, for the last of its events came after it
            self._metrics.forget_prompt(prompt_id)
        self._active, self._removed = active, removed
        self._metrics.prompts_active(len(active))
        self._ready.meet("prompts")

    def _raise_failures(self) -> None:
        for part in (self._source, self._outbox, self._prompts, self._watching, self._pulse):
            if part.failure is not None:
                raise part.failure

    def _leave(self) -> None:
        """In order, what is in flight committed; at the second `stop` at once, and the next owner reads it again."""
        self._ready.fail("shutdown", "the worker is leaving")
        self._source.stop()
        deadline_s = time.monotonic() + _DRAIN_S
        while not self._leaving.is_set() and time.monotonic() < deadline_s:
            if self._pipeline.drain_step():
                break
        else:
            self._outbox.abandon()
        self._outbox.close(max(0.1, deadline_s - time.monotonic()))
        self._source.close(is_hasty=self._leaving.is_set())


def model_of(encoders: Encoders, calibrations: Calibrations, learned: Learned | None = None) -> EventModel:
    """What events say about what judged."""
    trained = "" if learned is None else learned.sha256
    name = f"{encoders.picture.name}+{encoders.sound.name}"
    return EventModel(
        name=f"{name}+learned-{trained[:8]}" if trained else name,
        sha256=model_digest(encoders, learned),
        calibrated=calibrations.trained,
        note=None if calibrations.trained else UNCALIBRATED,
    )


def _timed_decode(chunk: MediaChunk, options: DecodeOptions) -> tuple[Decoded, float]:
    started_s = time.monotonic()
    try:
        decoded = decode_chunk(chunk, options)
    except ChunkError:
        raise
    except Exception as error:  # whatever hostile bytes did: they must not end every worker that reads them
        _log.exception("decoder failed", position=str(chunk.position))
        raise ChunkError(
            f"chunk refused: the decoder failed with {type(error).__name__} ({chunk.position}); please report it",
            reason="internal",
        ) from error
    return decoded, time.monotonic() - started_s


def _close_producer(producer: BoundedProducer) -> None:
    with contextlib.suppress(UnavailableError):  # its letters were not committed: they are sent again
        producer.close(timeout_s=1.0)
