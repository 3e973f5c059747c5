"""Why a prompt did not open an event: the gate that stopped it, and the near misses of the last minutes.

Per stream and prompt the best confidence of each of the last `MINUTES` minutes is kept in arrays, four bytes each:
40 MB for 10,000 prompts on 100 streams.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

MINUTES: Final = 10
MINUTE_US: Final = 60_000_000
NEAR_MISSES: Final = 5
NEAR_RATIO: Final = 0.5  # from this share of its threshold on, a prompt counts as near
_EMPTY: Final = -1  # a minute that nothing was written to


class Gate(IntEnum):
    """What stopped a prompt. ``NONE``: nothing, an event is open."""

    NONE = 0
    SELECTOR = 1
    MASK = 2
    REGION = 3
    SCHEDULE = 4
    THRESHOLD = 5
    DURATION = 6
    COOLDOWN = 7

    @property
    def label(self) -> str | None:
        """Its name in documents."""
        return None if self is Gate.NONE else self.name.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """What stopped the prompts that came near in one window.

    Attributes:
        columns: int64 ``(K,)``, into the prompts of the table.
        confidence: float32 ``(K,)``.
        gate: uint8 ``(K,)``, `Gate`s.
    """

    columns: NDArray[np.intp]
    confidence: NDArray[np.float32]
    gate: NDArray[np.uint8]

    @staticmethod
    def none() -> "Gates":
        """No prompt came near."""
        return Gates(np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0, np.uint8))


@dataclass(frozen=True, slots=True)
class NearMiss:
    """The best window of one minute.

    Attributes:
        time_us: Its end, to the second.
        confidence: 0..1.
        gate: What stopped it.
    """

    time_us: int
    confidence: float
    gate: Gate


class Memory:
    """The best of each minute for one stream's prompts.

    Args:
        keys: ``(id, version)`` of each column.
    """

    def __init__(self, keys: Sequence[tuple[str, int]]) -> None:
        self._keys = tuple(keys)
        self._minutes = np.full(MINUTES, _EMPTY, np.int64)
        self._best = np.zeros((MINUTES, len(self._keys)), np.float16)
        self._second = np.zeros((MINUTES, len(self._keys)), np.uint8)
        self._gate = np.full((MINUTES, len(self._keys)), Gate.THRESHOLD, np.uint8)

    @property
    def size_bytes(self) -> int:
        """What its arrays hold."""
        return self._best.nbytes + self._second.nbytes + self._gate.nbytes + self._minutes.nbytes

    def rekey(self, keys: Sequence[tuple[str, int]]) -> None:
        """Follow a change of the prompts; a new or changed prompt starts empty."""
        if tuple(keys) == self._keys:
            return
        old = {key: column for column, key in enumerate(self._keys)}
        fresh = Memory(keys)
        pairs = [(column, old[key]) for column, key in enumerate(keys) if key in old]
        to, of = (np.array(part, np.intp) for part in (zip(*pairs, strict=True) if pairs else ((), ())))
        fresh._best[:, to], fresh._second[:, to] = self._best[:, of], self._second[:, of]
        fresh._gate[:, to] = self._gate[:, of]
        self._keys, self._best, self._second, self._gate = fresh._keys, fresh._best, fresh._second, fresh._gate

    def add(self, end_us: int, confidence: NDArray[np.float32], gates: Gates) -> None:
        """Remember one window.

        Args:
            end_us: Its end, capture time.
            confidence: float32 ``(P,)``; NaN counts as nothing.
            gates: What `streamer.track.advance` said about it.
        """
        minute = end_us // MINUTE_US
        row = minute % MINUTES
        if self._minutes[row] != minute:
            if self._minutes[row] > minute:
                return  # older than everything that is kept
            self._minutes[row] = minute
            self._best[row], self._second[row], self._gate[row] = 0, 0, Gate.THRESHOLD
        values = np.nan_to_num(confidence, nan=0.0).astype(np.float16)
        values[gates.columns] = gates.confidence
        gate = np.full(len(self._keys), Gate.THRESHOLD, np.uint8)
        gate[gates.columns] = gates.gate
        is_better = values > self._best[row]
        self._best[row, is_better] = values[is_better]
        self._second[row, is_better] = (end_us % MINUTE_US) // 1_000_000
        self._gate[row, is_better] = gate[is_better]

    def best(self, now_us: int) -> NDArray[np.float32]:
        """The best of the last `MINUTES` minutes, float32 ``(P,)``."""
        rows = self._recent(now_us)
        return np.asarray(self._best[rows].max(axis=0, initial=0), np.float32)

    def near_misses(self, column: int, now_us: int) -> tuple[NearMiss, ...]:
        """The best minutes of a prompt, the best first, at most `NEAR_MISSES`."""
        rows = self._recent(now_us)
        order = sorted(rows[self._best[rows, column] > 0], key=lambda row: -float(self._best[row, column]))
        return tuple(
            NearMiss(
                int(self._minutes[row]) * MINUTE_US + int(self._second[row, column]) * 1_000_000,
                round(float(self._best[row, column]), 4),
                Gate(int(self._gate[row, column])),
            )
            for row in order[:NEAR_MISSES]
        )

    def _recent(self, now_us: int) -> NDArray[np.intp]:
        return np.flatnonzero((self._minutes != _EMPTY) & (self._minutes > now_us // MINUTE_US - MINUTES))
