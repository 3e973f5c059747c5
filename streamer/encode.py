"""Batches into tokens. Each frame and each stretch of sound is encoded once; a still frame reuses tokens."""

import math
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.encoders import Encoders
from models.motion import FEWEST_FRAMES, RATE_HZ, see_motion
from streamer.types import SAMPLE_RATE_HZ, THUMB_SIDE, Batch, Encoded, Fresh, Moved, Tokens, Window

_STATM = Path("/proc/self/statm")
EARLY_US = 1_000  # a frame this much before a point of the grid still counts as on it: time stamps are rounded
CELLS = 7  # stillness is judged on a grid like the encoder's own: a change within one cell changes its token
AUDIT_EVERY = 50  # one still frame in so many is encoded all the same, to measure what reuse costs
_EDGES = np.linspace(0, THUMB_SIDE, CELLS + 1).astype(np.intp)[:-1]
_AREAS = np.diff(np.append(_EDGES, THUMB_SIDE))
_CELL_AREAS = np.outer(_AREAS, _AREAS).astype(np.float32)


@dataclass(slots=True)
class _Memory:
    """The tokens of a stream that its next windows may need again, by capture time."""

    frames: deque[tuple[int, Encoded]] = field(default_factory=deque)
    sounds: deque[tuple[int, Encoded]] = field(default_factory=deque)
    motions: deque[tuple[int, Moved | None]] = field(default_factory=deque)
    still: NDArray[np.float32] | None = None  # (CELLS, CELLS) mean luma of the frame encoded last


class EncodeStage:
    """Runs the encoders over batches. Owned by one thread.

    Args:
        encoders: Pictures and sound.
        device: Where they run, ``cpu`` or ``cuda``.
        hop_s: Step of the windows: a stretch of sound begins at each.
        stretch_s: Sound that is heard at once; None: the hop. What is heard of a sound that is cut in two is less than
            half of it, and what was trained was trained on two seconds.
        reuse_max_age_s: Oldest tokens that a still frame may take; 0 encodes every frame.
        reuse_noise: Luma levels by which a cell's mean may differ while the frame still counts as still.
        rate_hz: Frames a second that are encoded at most; one in between takes the tokens of the one before it.
        wants_motion: Whether a prompt stands that asks how things move; nothing is computed for it otherwise.
    """

    def __init__(
        self,
        encoders: Encoders,
        *,
        hop_s: float,
        reuse_max_age_s: float,
        reuse_noise: float,
        rate_hz: float = math.inf,
        stretch_s: float | None = None,
        device: str = "cpu",
        wants_motion: Callable[[], bool] = lambda: False,
    ) -> None:
        self._wants_motion = wants_motion
        self._encoders = encoders
        self._device = device
        self._hop_us = round(hop_s * 1e6)
        self._stretch_samples = round((stretch_s or hop_s) * SAMPLE_RATE_HZ)
        self._step_samples = min(self._stretch_samples, round(hop_s * SAMPLE_RATE_HZ))
        self._reuse_max_age_us = round(reuse_max_age_s * 1e6)
        self._reuse_noise = reuse_noise
        self._rate_hz = rate_hz
        self._memory: dict[str, _Memory] = {}
        self._still_frames = 0
        self._busy_s = 0.0
        self._began_s: float | None = None

    @property
    def busy_s(self) -> float:
        """Seconds in which an encoder ran so far, the call that runs now included. May be read from any thread."""
        began_s = self._began_s
        return self._busy_s + (0.0 if began_s is None else time.monotonic() - began_s)

    @property
    def device_bytes(self) -> int:
        """Memory that this process holds on the inference device: on a CPU its resident memory."""
        if self._device == "cuda":
            return int(torch.cuda.memory_reserved())
        try:
            return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:  # no Linux
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def encode(self, batch: Batch) -> Tokens:
        """Encode what is new in a batch.

        Raises:
            ModelError: The device cannot hold even the smallest batch.
        """
        try:
            return self._encode(batch.windows)
        except BaseException:
            for window in batch.windows:  # what was planned but not encoded must not be taken for tokens later
                self._memory.pop(window.stream, None)
            raise

    def forget(self, stream: str) -> None:
        """Drop what is remembered of a stream that has ended or moved to another worker."""
        self._memory.pop(stream, None)

    def _encode(self, windows: tuple[Window, ...]) -> Tokens:
        frames: list[tuple[Encoded, ...]] = []
        sounds: list[tuple[Encoded, ...]] = []
        new_pixels: list[NDArray[np.uint8]] = []
        new_frames: list[Encoded] = []
        new_samples: list[NDArray[np.float32]] = []
        new_sounds: list[Encoded] = []
        reused: list[int] = []
        audits: list[tuple[Encoded, Encoded]] = []
        for window in windows:
            memory = self._memory.setdefault(window.stream, _Memory())
            _trim(memory, window.start_us)
            reused.append(self._plan_frames(window, memory, new_pixels, new_frames, audits))
            self._plan_sounds(window, memory, new_samples, new_sounds)
            frames.append(_within(memory.frames, window))
            sounds.append(_within(memory.sounds, window))
        with self._timed():
            fresh_frames = self._see(new_pixels, new_frames)
            fresh_sounds = self._hear(new_samples, new_sounds)
            motions = self._watch(windows) if self._wants_motion() else ()
        return Tokens(
            windows, tuple(frames), tuple(sounds), fresh_frames, fresh_sounds, tuple(reused), tuple(audits), motions
        )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        self._began_s = began_s = time.monotonic()
        try:
            yield
        finally:
            self._began_s = None
            self._busy_s += time.monotonic() - began_s

    def _plan_frames(
        self,
        window: Window,
        memory: _Memory,
        pixels: list[NDArray[np.uint8]],
        fresh: list[Encoded],
        audits: list[tuple[Encoded, Encoded]],
    ) -> int:
        known_us = memory.frames[-1][0] if memory.frames else -1
        reused = 0
        new = int(np.searchsorted(window.times_us, known_us, side="right"))
        means = _cell_means(window.thumbs[new:])
        for at_us, frame, cells in zip(window.times_us[new:].tolist(), window.pixels[new:], means, strict=True):
            if memory.frames and self._is_between(memory.frames[-1][0], at_us, window.start_us):
                memory.frames.append((at_us, memory.frames[-1][1]))
                reused += 1
                continue
            if self._is_still(memory, cells, at_us):
                memory.frames.append((at_us, memory.frames[-1][1]))
                reused += 1
                self._still_frames += 1
                if self._still_frames % AUDIT_EVERY == 0:
                    audited = Encoded(at_us)
                    audits.append((memory.frames[-1][1], audited))
                    pixels.append(frame)
                    fresh.append(audited)
                continue
            item = Encoded(at_us)
            memory.frames.append((at_us, item))
            memory.still = cells
            pixels.append(frame)
            fresh.append(item)
        return reused

    def _is_between(self, before_us: int, at_us: int, start_us: int) -> bool:
        """Whether no point of the grid lies between a frame and the one before it.

        The grid begins anew with each hop, as windows do: a worker that begins at a window encodes the same frames.
        """
        if math.isinf(self._rate_hz):
            return False
        (hop, rest), (hop_before, rest_before) = (
            divmod(moment - start_us, self._hop_us) for moment in (at_us, before_us)
        )
        return hop == hop_before and self._point(rest) == self._point(rest_before)

    def _point(self, rest_us: int) -> int:
        return int((rest_us + EARLY_US) * self._rate_hz / 1e6)

    def _is_still(self, memory: _Memory, cells: NDArray[np.float32], at_us: int) -> bool:
        if memory.still is None or not memory.frames:
            return False
        age_us = at_us - memory.frames[-1][1].encoded_us
        return age_us <= self._reuse_max_age_us and float(np.abs(cells - memory.still).max()) <= self._reuse_noise

    def _plan_sounds(
        self, window: Window, memory: _Memory, samples: list[NDArray[np.float32]], fresh: list[Encoded]
    ) -> None:
        if not window.samples.size:
            return
        known_us = memory.sounds[-1][0] if memory.sounds else -1
        length = self._stretch_samples
        for first in range(0, max(1, window.samples.size - length + 1), self._step_samples):
            at_us = window.start_us + first * 1_000_000 // SAMPLE_RATE_HZ
            if at_us <= known_us:
                continue
            item = Encoded(at_us)
            memory.sounds.append((at_us, item))
            stretch = window.samples[first : first + length]
            samples.append(np.pad(stretch, (0, length - stretch.size)))
            fresh.append(item)

    def _watch(self, windows: tuple[Window, ...]) -> tuple[tuple[Moved, ...], ...]:
        """How the stretches of each window move, each looked at once."""
        motions = []
        for window in windows:
            memory = self._memory[window.stream].motions
            known_us = memory[-1][0] if memory else -1
            for start_us in range(window.start_us, window.end_us, self._hop_us):
                if start_us > known_us:
                    memory.append((start_us, self._watch_stretch(window, start_us)))
            kept = (moved for at_us, moved in memory if window.start_us <= at_us < window.end_us)
            motions.append(tuple(moved for moved in kept if moved is not None))
        return tuple(motions)

    def _watch_stretch(self, window: Window, start_us: int) -> Moved | None:
        first, stop = np.searchsorted(window.times_us, (start_us, start_us + self._hop_us)).tolist()
        if stop - first < FEWEST_FRAMES:
            return None
        step_s = float(window.times_us[stop - 1] - window.times_us[first]) / (stop - first - 1) / 1e6
        every = max(1, round(1 / (step_s * RATE_HZ)))
        chosen = window.pixels[first:stop:every]
        if len(chosen) < FEWEST_FRAMES:
            return None
        moved = Moved(start_us, start_us + self._hop_us)
        moved.token, moved.speeds = see_motion(np.stack(chosen), every * step_s, self._encoders.picture)
        return moved

    def _see(self, pixels: list[NDArray[np.uint8]], items: list[Encoded]) -> Fresh | None:
        if not items:
            return None
        made = self._encoders.picture.encode(np.stack(pixels))
        if made.classes is not None and made.shares is not None:
            for item, classes, shares in zip(items, made.classes, made.shares, strict=True):
                item.mixture = (classes, shares)
        if made.features is not None:
            for item, features in zip(items, made.features, strict=True):
                item.features = features
        return _fill(items, made.cells, made.whole)

    def _hear(self, samples: list[NDArray[np.float32]], items: list[Encoded]) -> Fresh | None:
        if not items:
            return None
        made = self._encoders.sound.encode(np.stack(samples))
        return _fill(items, made.tokens, made.whole)


def _fill(items: Sequence[Encoded], tokens: Tensor, whole: Tensor) -> Fresh:
    for row, item in enumerate(items):
        item.tokens = tokens[row]
        item.whole = whole[row]
    return Fresh(tuple(items), tokens, whole)


def _within(memory: Iterable[tuple[int, Encoded]], window: Window) -> tuple[Encoded, ...]:
    return tuple(item for at_us, item in memory if window.start_us <= at_us < window.end_us)


def _cell_means(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean luma ``(T, CELLS, CELLS)`` of thumbnails ``(T, THUMB_SIDE, THUMB_SIDE)``: a mean is deaf to sensor noise."""
    rows = np.add.reduceat(thumbs.astype(np.float32), _EDGES, axis=1)
    sums: NDArray[np.float32] = np.add.reduceat(rows, _EDGES, axis=2)
    return sums / _CELL_AREAS


def _trim(memory: _Memory, start_us: int) -> None:
    """Forget what lies before a window, but keep the last frame: the next may be still."""
    while len(memory.frames) > 1 and memory.frames[1][0] <= start_us:
        memory.frames.popleft()
    while memory.sounds and memory.sounds[0][0] < start_us:
        memory.sounds.popleft()
    while memory.motions and memory.motions[0][0] < start_us:
        memory.motions.popleft()
