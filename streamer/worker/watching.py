"""What dashboards poll between events: latest confidences, near misses, how each stream fares."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray
from redis import Redis

from streamer.align import PromptSet
from streamer.errors import UnavailableError
from streamer.gates import Gates, Memory
from streamer.live import Glimpse, LiveBoard, StreamStatus
from streamer.metrics import Metrics
from streamer.prompt_table import InForce
from streamer.settings import Settings, StreamSettings
from streamer.track import WindowScores
from streamer.types import Decoded, Tokens, Window

_log = structlog.get_logger(__name__)
_WRITE_INTERVAL_S = 0.5
_RATE_OVER_S = 5.0
_MAX_STREAMS = 4096  # names are made up by whoever sends; of those that send nothing usable, no more are kept


@dataclass(slots=True, eq=False)
class _Stream:
    """What is known of one stream."""

    partition: int
    last_frame_us: int = 0
    windows: int = 0
    gaps: int = 0
    refused: int = 0
    skipped: int = 0
    lag_s: float = 0.0
    frames: deque[tuple[float, int]] = field(default_factory=deque)  # monotonic seconds, frames
    memory: Memory | None = None
    scores: WindowScores | None = None
    prompts: PromptSet | None = None
    in_force: Mapping[str, InForce] = field(default_factory=dict)
    is_fresh: bool = False


class Watching:
    """Collects on the pipeline's thread, writes on its own. What it writes may be lost; nothing depends on it.

    Args:
        redis: Where to.
        settings: Prefix, time to live, labels.
        metrics: Counters.
        streams: Labels of a stream; None: as the settings say.
    """

    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        metrics: Metrics,
        streams: Callable[[str], StreamSettings] | None = None,
    ) -> None:
        self._board = LiveBoard(redis, settings.redis.prefix, settings.events.live_ttl_s)
        self._stream_settings = streams or settings.stream
        self._metrics = metrics
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what is new, and end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def arrived(self, decoded: Decoded) -> None:
        """A chunk was decoded."""
        name = decoded.chunk.stream
        frames = len(decoded.times_us)
        self._metrics.chunk(name, "decoded")
        self._metrics.decoded(name, frames)
        if decoded.source_frames > frames:
            self._metrics.skipped(
                name, "quiet" if decoded.effort == "keyframes" else "rate", decoded.source_frames - frames
            )
        self._metrics.last_frame(name, decoded.end_us / 1e6)
        now_s = time.monotonic()
        with self._lock:
            stream = self._streams.setdefault(name, _Stream(decoded.chunk.position.partition))
            stream.partition = decoded.chunk.position.partition
            stream.last_frame_us = max(stream.last_frame_us, decoded.end_us)
            stream.frames.append((now_s, frames))
            while stream.frames and stream.frames[0][0] < now_s - _RATE_OVER_S:
                stream.frames.popleft()
            stream.is_fresh = True

    def missed(self, name: str, partition: int, *, gaps: int = 0, refused: int = 0, skipped: int = 0) -> None:
        """Chunks of a stream did not make it."""
        with self._lock:
            if name not in self._streams and len(self._streams) >= _MAX_STREAMS:
                return
            stream = self._streams.setdefault(name, _Stream(partition))
            stream.gaps += gaps
            stream.refused += refused
            stream.skipped += skipped
            stream.is_fresh = True

    def encoded(self, tokens: Tokens) -> None:
        """A batch was encoded."""
        for window, reused in zip(tokens.windows, tokens.reused, strict=True):
            if reused:
                self._metrics.skipped(window.stream, "still", reused)

    def observed(
        self,
        window: Window,
        scores: WindowScores,
        prompts: PromptSet,
        gates: Gates,
        thresholds: NDArray[np.float32],
        in_force: Mapping[str, InForce],
    ) -> None:
        """A window was tracked, by thresholds ``(P,)``, of which some follow from budgets."""
        self._metrics.windows(window.stream)
        self._metrics.window_latency(max(0.0, time.time() - window.end_us / 1e6))
        for column in gates.columns:
            prompt = prompts.table.prompts[column]
            self._metrics.confidence(
                window.stream, prompt.id, float(scores.confidence[column]), float(thresholds[column])
            )
        with self._lock:
            stream = self._streams.setdefault(window.stream, _Stream(window.partition))
            keys = prompts.keys
            if stream.memory is None:
                stream.memory = Memory(keys)
            elif stream.prompts is not prompts:
                stream.memory.rekey(keys)
            stream.memory.add(window.end_us, scores.confidence, gates)
            stream.windows += 1
            stream.lag_s = max(0.0, time.time() - window.end_us / 1e6)
            stream.scores, stream.prompts, stream.in_force, stream.is_fresh = scores, prompts, in_force, True

    def forget(self, name: str) -> None:
        """Another worker has the stream now."""
        with self._lock:
            self._streams.pop(name, None)

    def _run(self) -> None:
        try:
            self._keep_writing()
        except BaseException as error:  # noqa: BLE001  # kept for the worker, which raises it
            self.failure = error

    def _keep_writing(self) -> None:
        is_away = False
        while True:
            is_last = self._stopping.wait(_WRITE_INTERVAL_S)
            try:
                self._write()
                is_away = False
            except UnavailableError as error:
                if not is_away:
                    _log.warning("live values not written", error=str(error))
                is_away = True
            if is_last:
                return

    def _write(self) -> None:
        with self._lock:
            fresh = [name for name, stream in self._streams.items() if stream.is_fresh]
        for name in fresh:
            with self._lock:  # a stream at a time: the pipeline must not wait for all of them
                stream = self._streams.get(name)
                glimpse = self._glimpse(name, stream) if stream is not None else None
            if glimpse is not None:
                self._board.write([glimpse], time.time())

    def _glimpse(self, name: str, stream: _Stream) -> Glimpse | None:
        if stream.scores is None or stream.prompts is None or stream.memory is None:
            return None
        stream.is_fresh = False
        table = stream.prompts.table
        fits = len(stream.scores.confidence) == len(table)
        return Glimpse(
            stream=name,
            status=StreamStatus(
                last_frame_us=stream.last_frame_us,
                rate_hz=round(sum(frames for _, frames in stream.frames) / _RATE_OVER_S, 2),
                windows=stream.windows,
                gaps=stream.gaps,
                refused=stream.refused,
                skipped=stream.skipped,
                lag_s=round(stream.lag_s, 3),
                partition=stream.partition,
                labels=self._stream_settings(name).labels,
            ),
            table=table,
            confidence=stream.scores.confidence if fits else np.zeros(len(table), np.float32),
            memory=stream.memory,
            end_us=stream.scores.end_us,
            in_force=stream.in_force,
        )
