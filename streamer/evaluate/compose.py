"""Clips put together from labelled ones, so that it is known what carries an event, and where. Their notes say so."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluate.media import SAMPLE_RATE_HZ, read_sound

RATE_HZ = 12
_OPTIONS = {"crf": "23", "g": str(RATE_HZ), "bf": "0", "preset": "veryfast", "sc_threshold": "0", "threads": "1"}
_FEATHER = 0.12  # of a planted picture's half axes: no edge that is its own evidence

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Composed:
    """A clip that was put together.

    Attributes:
        path: The file.
        note: Of what.
        box: ``(x0, y0, x1, y1)``, 0..1 of the picture, where something was planted; None: nothing was.
    """

    path: Path
    note: str
    box: Box | None = None


def plant(film: Path, other: Path, box: Box, target: Path, *, longest_s: float = 4.0) -> Composed:
    """Put a photo or a film into a box of another film, as an ellipse with a soft rim.

    Raises:
        FFmpegError: One of them cannot be decoded.
    """
    planted = _frames(other, longest_s)
    with _Writer(target) as out:
        inner: NDArray[np.uint8] | None = None
        for frame in _frames(film, longest_s):
            inner = next(planted, inner)
            assert inner is not None
            out.add(_pasted(frame, inner, box))
    return Composed(target, f"composed: {other.name} planted into {film.name}", box)


def accompany(film: Path, sound: Path | None, target: Path, *, longest_s: float = 4.0) -> Composed:
    """A film's pictures with another sound; None: with silence.

    Raises:
        FFmpegError: The film cannot be decoded.
        EvaluationError: The sound cannot.
    """
    with _Writer(target, has_sound=True) as out:
        count = 0
        for frame in _frames(film, longest_s):
            out.add(frame)
            count += 1
        samples = np.zeros(0, np.float32) if sound is None else read_sound(sound)
        out.sound(_fitted(samples, count * SAMPLE_RATE_HZ // RATE_HZ))
    heard = "silence" if sound is None else sound.name
    return Composed(target, f"composed: {heard} under {film.name}")


def without(clip: Composed, sense: Literal["picture", "sound"], target: Path) -> Composed:
    """A clip that lost its picture or its sound; what is left stays as it was, bit by bit."""
    with av.open(str(clip.path)) as source, av.open(str(target), "w", format="mp4") as out:
        kept = source.streams.audio[0] if sense == "picture" else source.streams.video[0]
        copied: Any = out.add_stream_from_template(kept)
        for packet in source.demux(kept):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
    return Composed(target, f"{clip.note}, without {sense}")


class _Writer:
    """Frames, then sound, into an MP4 as cameras send them: a keyframe a second, no B-frames."""

    def __init__(self, target: Path, *, has_sound: bool = False) -> None:
        self._container = av.open(str(target), "w", format="mp4")
        self._picture: Any = self._container.add_stream("libx264", rate=RATE_HZ, options=_OPTIONS)
        self._sound: Any = self._container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono") if has_sound else None
        self._count = 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.mux(self._picture.encode(None))
        if self._sound is not None:
            self._container.mux(self._sound.encode(None))
        self._container.close()

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """The next frame, RGB."""
        if not self._count:
            self._picture.height, self._picture.width = (side - side % 2 for side in pixels.shape[:2])
            self._picture.pix_fmt = "yuv420p"
        even = np.ascontiguousarray(pixels[: self._picture.height, : self._picture.width])
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame.pts, frame.time_base = self._count, Fraction(1, RATE_HZ)
        self._count += 1
        self._container.mux(self._picture.encode(frame))

    def sound(self, samples: NDArray[np.float32]) -> None:
        """All of the sound."""
        for start in range(0, len(samples), 1024):
            part = np.ascontiguousarray(samples[None, start : start + 1024])
            block = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE_HZ, start, Fraction(1, SAMPLE_RATE_HZ)
            self._container.mux(self._sound.encode(block))


def _frames(path: Path, longest_s: float) -> Iterator[NDArray[np.uint8]]:
    """A film's frames at `RATE_HZ`, RGB; of a photo the one."""
    due_s, first_s = 0.0, None
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0]):
            at_s = float(frame.time or 0.0)
            first_s = at_s if first_s is None else first_s
            if at_s - first_s >= longest_s - 1e-3:
                return
            if at_s - first_s + 1e-3 >= due_s:
                due_s += 1 / RATE_HZ
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _pasted(frame: NDArray[np.uint8], inner: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    left, top, right, bottom = (
        round(edge * side) for edge, side in zip(box, (width, height, width, height), strict=True)
    )
    size = (right - left, bottom - top)
    scaled = cv2.resize(inner, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    across, up = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]))
    share = np.clip((1 - np.hypot(across, up)) / _FEATHER, 0, 1)[..., None].astype(np.float32)
    pasted = frame.copy()
    under = frame[top:bottom, left:right].astype(np.float32)
    pasted[top:bottom, left:right] = (under * (1 - share) + scaled * share).round().astype(np.uint8)
    return pasted


def _fitted(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    return np.pad(samples[:count], (0, max(0, count - len(samples))))
