"""Pieces of sound at their place in time, and cuts out of them."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.types import SAMPLE_RATE_HZ

BRIDGED_SAMPLES: Final = 80  # 5 ms: a hole this small between two pieces is jitter of their time stamps
_SLIVER_SAMPLES: Final = 1_600  # 0.1 s: less sound than this counts as none


def sample_at(at_us: int) -> int:
    """The place of a time on a ruler of 16 kHz that begins in 1970: the last sample at or before it."""
    return at_us * SAMPLE_RATE_HZ // 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    place: int
    samples: NDArray[np.float32]

    @property
    def end(self) -> int:
        return self.place + len(self.samples)


@dataclass(slots=True, eq=False)
class SoundTrack:
    """Pieces in order, none over another. A sample's place depends on its own chunk alone, so nothing drifts."""

    _pieces: list[_Piece] = field(default_factory=list)

    def add(self, place: int, samples: NDArray[np.float32]) -> None:
        """Lay samples down. Where there is sound already, that stays: a decoder starts worse than it goes on."""
        end, cursor = place + len(samples), place
        fresh = []
        for piece in self._pieces:
            if piece.end <= cursor:
                continue
            if piece.place >= end:
                break
            if piece.place > cursor:
                fresh.append(_Piece(cursor, samples[cursor - place : piece.place - place]))
            cursor = piece.end
        if cursor < end:
            fresh.append(_Piece(cursor, samples[cursor - place :]))
        self._pieces = sorted([*self._pieces, *fresh], key=lambda piece: piece.place)

    def first_us(self, from_us: int) -> int | None:
        """Time of the first sound at or after a time that goes on for more than a sliver; None if there is none."""
        start = sample_at(from_us)
        spans = [(max(piece.place, start), piece.end) for piece in self._pieces if piece.end > start]
        for number, (place, _) in enumerate(spans):
            near = spans[number:]
            if sum(max(0, min(end, place + SAMPLE_RATE_HZ) - low) for low, end in near) >= _SLIVER_SAMPLES:
                return max(from_us, -(-place * 1_000_000 // SAMPLE_RATE_HZ))
        return None

    def cut(self, start: int, length: int) -> NDArray[np.float32]:
        """Copy a span out: float32 ``(length,)``, zero where nothing was heard; ``(0,)`` for less than a sliver."""
        end = start + length
        inside = [piece for piece in self._pieces if piece.end > start and piece.place < end]
        if sum(min(piece.end, end) - max(piece.place, start) for piece in inside) < min(_SLIVER_SAMPLES, length):
            return np.empty(0, np.float32)
        out = np.zeros(length, np.float32)
        for piece in inside:
            low, high = max(piece.place, start), min(piece.end, end)
            out[low - start : high - start] = piece.samples[low - piece.place : high - piece.place]
        for before, after in pairwise(self._pieces):
            if 0 < after.place - before.end <= BRIDGED_SAMPLES and before.end < end and after.place > start:
                _bridge(out, start, before, after)
        out.setflags(write=False)
        return out

    def forget(self, before: int) -> None:
        """Let go of what lies before a place, but for what the next piece is joined to."""
        self._pieces = [piece for piece in self._pieces if piece.end + BRIDGED_SAMPLES > before]


def _bridge(out: NDArray[np.float32], start: int, before: _Piece, after: _Piece) -> None:
    """Draw a straight line over the hole between two pieces."""
    hole = after.place - before.end
    line = np.linspace(before.samples[-1], after.samples[0], hole + 2, dtype=np.float32)[1:-1]
    low, high = max(before.end, start), min(after.place, start + len(out))
    if low < high:
        out[low - start : high - start] = line[low - before.end : high - before.end]
