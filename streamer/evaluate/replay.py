"""Many short clips through decode, window, batch, encode and align, as the worker runs them, but as fast as they go."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.evaluate.exact import ExactAligner
from models.evaluate.manifest import EvaluationError
from streamer.align import AlignStage, PromptSet
from streamer.batch import Batcher
from streamer.decode import DecodeOptions, decode_chunk
from streamer.errors import ChunkError
from streamer.evaluate.clips import Clip
from streamer.prompts import Prompt
from streamer.stages import Stages
from streamer.track import TrackOptions, WindowScores, advance, finish
from streamer.track_state import StreamState
from streamer.types import Alignment, Decoded, EventState, Evidence, MediaChunk, Tokens, Transition

_PATIENCE_S = 600.0
_DEPTH = 16  # chunks that are decoded or wait to be windowed


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """What was made of a clip: ``W`` windows, ``P`` prompts.

    Attributes:
        clip: The clip.
        begins_us: Capture time at which it begins.
        ends_us: And ends.
        starts_us: int64 ``(W,)``, each window's start; its span is the settings'.
        seen: float32 ``(W, P)``, NaN where there was no picture.
        heard: float32 ``(W, P)``, NaN where there was no sound.
        confidence: float32 ``(W, P)``, both, as each prompt asks.
    """

    clip: Clip
    begins_us: int
    ends_us: int
    starts_us: NDArray[np.int64]
    seen: NDArray[np.float32]
    heard: NDArray[np.float32]
    confidence: NDArray[np.float32]

    @property
    def duration_s(self) -> float:
        """Length of the clip."""
        return (self.ends_us - self.begins_us) / 1e6

    def best(self, sense: str) -> NDArray[np.float32]:
        """Each prompt's best window by ``seen``, ``heard`` or ``confidence``: float32 ``(P,)``.

        Raises:
            EvaluationError: There is nothing to see, or to hear.
        """
        scores: NDArray[np.float32] = getattr(self, sense)
        if not len(scores) or np.isnan(scores).all():
            lacks = {"seen": "picture", "heard": "sound"}.get(sense, "picture or sound")
            raise EvaluationError(f"{self.clip.path} holds no {lacks}")
        return np.asarray(np.nanmax(scores, axis=0), np.float32)


@dataclass(frozen=True, slots=True)
class Shown:
    """The evidence for a prompt's best window of a clip.

    Attributes:
        start_us: The window's start.
        seen: The picture's own confidence there; None: no picture.
        heard: The sound's own.
        evidence: Where it matched.
        chunks: The window's chunks.
    """

    start_us: int
    seen: float | None
    heard: float | None
    evidence: Evidence
    chunks: tuple[MediaChunk, ...]


@dataclass(slots=True)
class _Rows:
    """What is known of a clip so far."""

    clip: Clip
    begins_us: int
    ends_us: int
    starts_us: list[int] = field(default_factory=list)
    seen: list[NDArray[np.float32]] = field(default_factory=list)
    heard: list[NDArray[np.float32]] = field(default_factory=list)
    confidence: list[NDArray[np.float32]] = field(default_factory=list)

    def watched(self, prompts: int) -> Watched:
        seen, heard, confidence = (
            np.stack(rows) if rows else np.zeros((0, prompts), np.float32)
            for rows in (self.seen, self.heard, self.confidence)
        )
        starts_us = np.array(self.starts_us, np.int64)
        return Watched(self.clip, self.begins_us, self.ends_us, starts_us, seen, heard, confidence)


def watch(stages: Stages, clips: Iterable[Clip], prompts: PromptSet) -> Iterator[Watched]:
    """Watch clips, each as a stream of its own; several share a batch.

    Yields:
        What was made of each clip, in their order.

    Raises:
        EvaluationError: A file cannot be read, or holds nothing.
    """
    known: dict[str, _Rows] = {}
    for tokens, alignment, ended in _aligned(stages, clips, prompts, known):
        for row, window in enumerate(tokens.windows):
            rows = known[window.stream]
            rows.starts_us.append(window.start_us)
            rows.seen.append(alignment.seen[row])
            rows.heard.append(alignment.heard[row])
            rows.confidence.append(alignment.confidence[row])
        for name in ended:
            yield known.pop(name).watched(len(prompts.table))


def show(
    stages: Stages, wanted: Mapping[Clip, tuple[str, Sequence[int]]], prompts: PromptSet
) -> dict[tuple[str, int], Shown]:
    """Watch clips again, for the evidence of some prompts' best windows.

    Args:
        stages: The worker's.
        wanted: Clip to the sense that decides (``seen``, ``heard`` or ``confidence``) and the prompts' columns.
        prompts: Of the columns.

    Returns:
        By clip name and column; without those of which a clip has nothing to see or hear.

    Raises:
        EvaluationError: A file cannot be read.
    """
    best: dict[tuple[str, int], float] = {}
    shown: dict[tuple[str, int], Shown] = {}
    asked = {clip.name: parts for clip, parts in wanted.items()}
    align = stages.align(lambda: prompts, ExactAligner())
    for tokens, alignment, _ in _aligned(stages, wanted, prompts, {}, align):
        for row, window in enumerate(tokens.windows):
            sense, columns = asked[window.stream]
            for column in columns:
                key, value = (window.stream, column), float(getattr(alignment, sense)[row, column])
                if value > best.get(key, -1.0):
                    best[key] = value
                    shown[key] = Shown(
                        window.start_us,
                        _known(alignment.seen[row, column]),
                        _known(alignment.heard[row, column]),
                        align.evidence(tokens, row, column, prompts),
                        window.chunks,
                    )
    return shown


def track(
    watched: Watched, confidence: NDArray[np.float32], prompts: PromptSet, stages: Stages
) -> list[tuple[Transition, int]]:
    """Events that a worker would open on a clip, each with the time at which it would know.

    Args:
        watched: The clip.
        confidence: float32 ``(W, P)``, what the events are to be made of.
        prompts: Its columns.
        stages: Their settings.
    """
    settings = stages.settings
    options = TrackOptions(
        exit_ratio=settings.track.exit_ratio,
        merge_gap_us=round(settings.track.merge_gap_s * 1e6),
        update_interval_us=round(settings.track.update_interval_s * 1e6),
    )
    name, view = watched.clip.name, prompts.of_stream(watched.clip.name, {})
    span_us = round(settings.window.span_s * 1e6)
    state, opened = StreamState(), []
    for row, start_us in enumerate(watched.starts_us.tolist()):
        scores = WindowScores(
            name, start_us, start_us + span_us, confidence[row], watched.seen[row], watched.heard[row]
        )
        state, changes, _ = advance(state, scores, view, options)
        opened += [(change, start_us + span_us) for change in changes if change.state is EventState.OPEN]
    finish(state, name, view)
    return opened


def prompt_set(stages: Stages, prompts: Sequence[Prompt]) -> PromptSet:
    """Prompts as one generation."""
    return stages.embedder().embed(1, prompts)


def _aligned(
    stages: Stages,
    clips: Iterable[Clip],
    prompts: PromptSet,
    known: dict[str, _Rows],
    align: AlignStage | None = None,
) -> Iterator[tuple[Tokens, Alignment, list[str]]]:
    """Batches, and the clips that end with each."""
    batch = stages.settings.batch
    encode = stages.encode(lambda: prompts)
    align = align or stages.align(lambda: prompts, ExactAligner())
    windower, batcher = stages.windower(lambda: 0.0), Batcher(batch.max_frames, batch.max_wait_s)
    ended: list[str] = []

    def flush() -> Iterator[tuple[Tokens, Alignment, list[str]]]:
        nonlocal ended
        made = batcher.take(0.0, is_idle=True)
        if made is not None:
            tokens = encode.encode(made)
            yield tokens, align.align(tokens)[0], ended
        elif ended:
            yield _nothing(), Alignment(*(np.zeros((0, len(prompts.table)), np.float32) for _ in range(5))), ended
        for name in ended:
            encode.forget(name)
            windower.forget(name)
            batcher.forget(name)
        ended = []

    for clip, decoded in _decoded(stages, clips):
        rows = known.setdefault(clip.name, _Rows(clip, decoded.start_us, decoded.end_us))
        rows.ends_us = max(rows.ends_us, decoded.end_us)
        windows = windower.push(decoded)
        if decoded.chunk.is_last:
            windows = [*windows, *windower.flush(clip.name)]
            ended.append(clip.name)
        batcher.add(windows, 0.0)
        if batcher.is_full:
            yield from flush()
    yield from flush()


def _nothing() -> Tokens:
    return Tokens((), (), (), None, None, ())


def _decoded(stages: Stages, clips: Iterable[Clip]) -> Iterator[tuple[Clip, Decoded]]:
    """Chunks of all clips, decoded some ahead, in order."""
    waiting: deque[tuple[Clip, Future[Decoded]]] = deque()
    with ThreadPoolExecutor(stages.settings.decode.threads, thread_name_prefix="decode") as pool:
        try:
            for clip in clips:
                options = patient(stages.decode_options(clip.name))
                for chunk in clip.chunks(stages.settings):
                    waiting.append((clip, pool.submit(decode_chunk, chunk, options)))
                    if len(waiting) >= _DEPTH:
                        yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()


def patient(options: DecodeOptions) -> DecodeOptions:
    """The same without a live stream's hurry: files of one's own are not hostile, and a busy machine is no error."""
    return replace(options, limits=replace(options.limits, timeout_s=_PATIENCE_S))


def _result(clip: Clip, future: "Future[Decoded]") -> tuple[Clip, Decoded]:
    try:
        return clip, future.result()
    except ChunkError as error:
        raise EvaluationError(f"{clip.path} cannot be decoded: {error}") from error


def _known(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)
