"""The values that stages hand to each other. Arrays are read-only after they are handed on."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_RATE_HZ = 16_000  # what YAMNet's front end, and so ours, was designed for
THUMB_SIDE = 32  # side of the luma thumbnails that darkness, stillness and novelty are judged on


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chunk lies in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True, eq=False)
class MediaChunk:
    """A piece of media that decodes alone.

    Attributes:
        stream: Stream id; the Kafka key.
        content_type: One of the types of the contract.
        payload: The bytes as they came. Hostile until decoded.
        capture_us: Capture time of the first sample, microseconds since 1970 UTC.
        duration_us: What the producer says, or None: measured while decoding.
        session: Changes each time the source (re)connects; empty where the producer gives none.
        seq: Counter within ``session``, or None.
        is_last: No further chunk follows in this session: windows need not wait for more.
        position: Where it lay in Kafka.
    """

    stream: str
    content_type: str
    payload: bytes
    capture_us: int
    position: Position
    duration_us: int | None = None
    session: str = ""
    seq: int | None = None
    is_last: bool = False


class Effort(StrEnum):
    """How much of a chunk's picture was decoded."""

    NONE = "none"
    KEYFRAMES = "keyframes"
    MOTION = "motion"


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What one chunk held.

    Attributes:
        chunk: Where it came from; its payload is kept for snapshots.
        start_us: Capture time of the first sample of either modality.
        end_us: Capture time of the end (exclusive).
        picture_end_us: Up to where the pictures reach: sound may reach further in a chunk of both. ``start_us`` without
            any.
        pixels: uint8 ``(N, H, W, 3)``, RGB, at the encoder's size, the stream's mask already blacked out.
        times_us: int64 ``(N,)``, capture times, ascending.
        thumbs: uint8 ``(N, THUMB_SIDE, THUMB_SIDE)``, luma of ``pixels``.
        samples: float32 ``(M,)``, mono, 16 kHz, -1..1; empty where there is no sound.
        samples_start_us: Capture time of ``samples[0]``.
        effort: How much of the picture was decoded.
        source_frames: Pictures the chunk held, decoded or not.
        has_picture: The chunk carries a picture stream.
        has_sound: The chunk carries a sound stream.
    """

    chunk: MediaChunk
    start_us: int
    end_us: int
    picture_end_us: int
    pixels: NDArray[np.uint8]
    times_us: NDArray[np.int64]
    thumbs: NDArray[np.uint8]
    samples: NDArray[np.float32]
    samples_start_us: int
    effort: Effort
    source_frames: int
    has_picture: bool
    has_sound: bool


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A span of one stream, picture and sound joined in capture time.

    Attributes:
        stream: Stream id.
        partition: Kafka partition number the stream lives in.
        start_us: Capture time of the window's start, microseconds since 1970 UTC.
        end_us: Its end (exclusive); ``start_us`` plus the span.
        pixels: Per frame uint8 ``(H, W, 3)`` views, RGB; empty tuple for a microphone. Views, not copies.
        times_us: int64 ``(T,)``.
        thumbs: uint8 ``(T, THUMB_SIDE, THUMB_SIDE)``.
        samples: float32 ``(M,)``, exactly the window's span, zero where nothing was heard; empty without sound.
        chunks: The chunks it covers, oldest first: evidence is drawn from them.
        has_picture: The stream carries pictures (``T`` may still be 0 in a gap).
        has_sound: The stream carries sound.
    """

    stream: str
    partition: int
    start_us: int
    end_us: int
    pixels: tuple[NDArray[np.uint8], ...]
    times_us: NDArray[np.int64]
    thumbs: NDArray[np.uint8]
    samples: NDArray[np.float32]
    chunks: tuple[MediaChunk, ...]
    has_picture: bool
    has_sound: bool


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Windows that are encoded together, oldest first, in order within each stream.

    Attributes:
        windows: At least one.
        waited_s: How long the oldest window waited for company.
        ready_s: When each was complete, monotonic seconds.
    """

    windows: tuple[Window, ...]
    waited_s: float
    ready_s: tuple[float, ...]


class Encoded:
    """Tokens of one frame or of one stretch of sound; its identity is what later stages remember it by.

    Attributes:
        encoded_us: Capture time of what was encoded; a still frame that reuses it is younger.
        tokens: float32 ``(S, D)`` cells, or ``(U, D)`` over time; unit length along ``D``.
        whole: float32 ``(D,)``.
        features: float32 ``(F,)``, of frames what the whole was made from; None where the encoder gives none.
        mixture: Of frames whose tokens are mixtures of few known vectors, which ones and how much of each: float32
            ``(S + 1, K)`` both, the last row of the whole. What the archive keeps.
    """

    __slots__ = ("__weakref__", "encoded_us", "features", "mixture", "tokens", "whole")

    tokens: "Tensor"
    whole: "Tensor"
    features: "Tensor | None"
    mixture: "tuple[Tensor, Tensor] | None"

    def __init__(self, encoded_us: int) -> None:
        self.encoded_us = encoded_us
        self.features = None
        self.mixture = None


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """What was encoded in this batch, as one block.

    Attributes:
        items: ``N`` of them, in the order of the rows.
        tokens: float32 ``(N, S, D)`` or ``(N, U, D)``.
        whole: float32 ``(N, D)``.
    """

    items: tuple[Encoded, ...]
    tokens: "Tensor"
    whole: "Tensor"


class Moved:
    """How one hop's worth of frames moves.

    Attributes:
        start_us: Capture time at which it begins.
        end_us: And ends (exclusive).
        token: float32 ``(M,)``, on the encoder's device.
        speeds: float32, mean speeds on a grid of the picture.
    """

    __slots__ = ("__weakref__", "end_us", "speeds", "start_us", "token")

    token: "Tensor"
    speeds: NDArray[np.float32]

    def __init__(self, start_us: int, end_us: int) -> None:
        self.start_us = start_us
        self.end_us = end_us


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What the encoders made of a batch.

    Attributes:
        windows: The batch's windows, ``B`` of them.
        frames: Per window its frames' tokens in order of time; still frames share one object.
        sounds: Per window its stretches of sound in order of time; empty where there is no sound.
        fresh_frames: Those encoded in this batch; None if there was nothing new to see.
        fresh_sounds: Likewise, for sound.
        reused: Per window, new frames that were still and took the tokens of an earlier one.
        audits: Of some still frames, the tokens that they took and those that they would have had: what reuse costs.
        motions: Per window how its stretches move, in order of time: none where too few frames tell. Empty: no
            prompt asked.
    """

    windows: tuple[Window, ...]
    frames: tuple[tuple[Encoded, ...], ...]
    sounds: tuple[tuple[Encoded, ...], ...]
    fresh_frames: Fresh | None
    fresh_sounds: Fresh | None
    reused: tuple[int, ...]
    audits: tuple[tuple[Encoded, Encoded], ...] = ()
    motions: tuple[tuple[Moved, ...], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """How well each prompt matches each window of a batch. ``B`` windows, ``P`` prompts.

    Attributes:
        confidence: float32 ``(B, P)``, 0..1, both senses fused as each prompt asks.
        seen: float32 ``(B, P)``, the picture's own, NaN where there was none.
        heard: float32 ``(B, P)``, the sound's own, NaN where there was none.
        seen_raw: float32 ``(B, P)``, log-odds behind ``seen``, before what a stream usually shows and before a
            prompt's own curve.
        heard_raw: Likewise for sound.
    """

    confidence: NDArray[np.float32]
    seen: NDArray[np.float32]
    heard: NDArray[np.float32]
    seen_raw: NDArray[np.float32]
    heard_raw: NDArray[np.float32]


Polygon = tuple[tuple[float, float], ...]  # corners (x, y), each 0..1 of the picture's width and height


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where and when a prompt matched best.

    Attributes:
        region: ``(x0, y0, x1, y1)``, 0..1 of the picture, or None where only sound matched.
        frame_time_us: Capture time of the best frame, or None.
        attention: Rows of a small grid, each row summing with the others to 1; empty where only sound matched.
        window_us: Start and end of the window, capture time.
        since_us: Capture time of the oldest frame whose tokens the window used: from there on it can be scored again.
        confidence: Of that window, 0..1.
        seen: The picture's own confidence in it; None: no picture.
        heard: The sound's own.
        seen_raw: Log-odds of the picture before what the stream usually shows and before the prompt's own curve.
        heard_raw: Likewise for sound.
        seen_usual: What of it the stream usually shows, and was taken away; 0: nothing, or nothing is known yet.
        heard_usual: Likewise for sound.
    """

    region: tuple[float, float, float, float] | None
    frame_time_us: int | None
    attention: tuple[tuple[float, ...], ...]
    window_us: tuple[int, int] | None = None
    since_us: int | None = None
    confidence: float | None = None
    seen: float | None = None
    heard: float | None = None
    seen_raw: float | None = None
    heard_raw: float | None = None
    seen_usual: float = 0.0
    heard_usual: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """One prompt's confidence in one window, 0..1; None for a modality that was absent."""

    confidence: float
    seen: float | None
    heard: float | None


class EventState(StrEnum):
    """Where an event is in its life."""

    OPEN = "open"
    UPDATE = "update"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class PromptNote:
    """What an event says about its prompt; kept with it, so that it can still be closed once the prompt is gone."""

    id: str
    version: int
    text: str
    severity: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Transition:
    """An event's change of state: what one published document is made from.

    Attributes:
        id: Event id, the same in each of its states and in a replay.
        state: The state it goes into.
        stream: Stream id.
        prompt: What matched.
        start_us: Start of the first matching window, microseconds since 1970 UTC.
        end_us: End of the last window that held; final once it is closed.
        confidence: Of the latest window, 0..1.
        peak: The highest so far.
        seen: The picture's own confidence in the latest window; None: there was none.
        heard: The sound's own.
        is_peak: The latest window is the best so far: its evidence is worth having.
        evidence: What was kept of the best window so far.
        media: The chunk that it was seen or heard in.
    """

    id: str
    state: EventState
    stream: str
    prompt: PromptNote
    start_us: int
    end_us: int
    confidence: float
    peak: float
    seen: float | None
    heard: float | None
    is_peak: bool
    evidence: Evidence | None
    media: Position | None


Offsets = Mapping[str, int]  # topic -> next offset to read


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What a worker holds once it owns a partition.

    Attributes:
        partition: Kafka partition number; it counts for every topic.
        epoch: Fencing token: a commit with an older one is refused.
        offsets: Topic to next offset; empty where nothing was ever committed.
        state: What the stages kept with that commit; None where nothing was.
    """

    partition: int
    epoch: int
    offsets: Offsets
    state: Mapping[str, object] | None
