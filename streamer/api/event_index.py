"""Which events there are, by everything they are asked for: columns in memory, so that any filter is one pass.

A hundred thousand events are 3 MB. Redis keeps sorted sets by stream and by prompt only; a set for every combination
would make each commit of a worker dearer, for questions that only readers ask.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

STATES: Final = ("open", "update", "closed")
SEVERITIES: Final = ("info", "warning", "critical")
_FIRST_ROWS: Final = 1024
_COLUMNS: Final[Mapping[str, Any]] = {
    "alive": np.bool_,
    "start": np.int64,
    "id": np.uint64,
    "stream": np.int32,
    "prompt": np.int32,
    "severity": np.int8,
    "state": np.int8,
}


@dataclass(frozen=True, slots=True)
class Row:
    """What the index knows of an event.

    Attributes:
        id: 16 hexadecimal digits.
        start_us: When it began, microseconds since 1970 UTC.
        stream: Stream id.
        prompt: Prompt id.
        severity: Of `SEVERITIES`.
        state: Of `STATES`.
    """

    id: str
    start_us: int
    stream: str
    prompt: str
    severity: str
    state: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question; what is None or empty does not matter.

    Attributes:
        since_us: Began at or after this.
        until_us: Began before this.
        stream: Whether a stream counts.
        prompt: Whether a prompt counts.
        severities: Any of these.
        states: Any of these.
        before: Start and id of the last event of the page before.
    """

    since_us: int | None = None
    until_us: int | None = None
    stream: Callable[[str], bool] | None = None
    prompt: Callable[[str], bool] | None = None
    severities: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    before: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: starts and ids, newest first, and how many fit in all, those before this page too."""

    keys: tuple[tuple[int, str], ...]
    total: int


class _Names:
    """Strings as small numbers."""

    def __init__(self) -> None:
        self.known: list[str] = []
        self._codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        if name not in self._codes:
            self._codes[name] = len(self.known)
            self.known.append(name)
        return self._codes[name]

    def fitting(self, fits: Callable[[str], bool]) -> NDArray[np.bool_]:
        return np.fromiter((fits(name) for name in self.known), np.bool_, len(self.known))


class _Table:
    """Columns that grow, a row an event. Not for several threads at once."""

    def __init__(self) -> None:
        self.size = 0
        self.rows: dict[str, int] = {}
        self.streams, self.prompts = _Names(), _Names()
        self._columns: dict[str, NDArray[Any]] = {name: np.zeros(_FIRST_ROWS, kind) for name, kind in _COLUMNS.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The part of a column that is in use; writing to it changes the table."""
        return self._columns[name][: self.size]

    def put(self, event: Row) -> None:
        row = self.rows.get(event.id)
        if row is None:
            row = self._new_row(event)
        elif self["state"][row] == STATES.index("closed"):
            return  # an older entry that is read once more
        self["severity"][row] = SEVERITIES.index(event.severity)
        self["state"][row] = STATES.index(event.state)

    def drop(self, event_id: str) -> None:
        row = self.rows.pop(event_id, None)
        if row is not None:
            self["alive"][row] = False

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Forget all other rows, and make room."""
        self._columns = {name: column[rows] for name, column in self._columns.items()}
        self.size = len(rows)
        self.rows = {f"{key:016x}": row for row, key in enumerate(self["id"].tolist())}

    def _new_row(self, event: Row) -> int:
        row = self.size
        if row == len(self._columns["id"]):
            for name, column in self._columns.items():
                room = np.zeros(max(_FIRST_ROWS, row), column.dtype)
                self._columns[name] = np.concatenate((column, room))
        self.size += 1
        self.rows[event.id] = row
        self["alive"][row], self["start"][row], self["id"][row] = True, event.start_us, int(event.id, 16)
        self["stream"][row], self["prompt"][row] = self.streams.code(event.stream), self.prompts.code(event.prompt)
        return row


class EventIndex:
    """Safe to share between threads; its lock is held for computing only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = _Table()

    def __len__(self) -> int:
        return len(self._table.rows)

    def replace(self, rows: Sequence[Row]) -> None:
        """Forget everything and begin with these."""
        table = _Table()
        for row in rows:
            table.put(row)
        with self._lock:
            self._table = table

    def put(self, rows: Iterable[Row]) -> None:
        """Add events, or their new states."""
        with self._lock:
            for row in rows:
                self._table.put(row)

    def drop(self, ids: Iterable[str]) -> None:
        """Forget events that are no longer there."""
        with self._lock:
            for event_id in ids:
                self._table.drop(event_id)

    def drop_older(self, start_us: int) -> None:
        """Forget what began before a time, and make room."""
        with self._lock:
            table = self._table
            kept = np.flatnonzero(table["alive"] & (table["start"] >= start_us))
            if len(kept) < table.size:
                table.keep(kept)

    def find(self, wanted: Wanted, limit: int) -> Found:
        """The newest that fit."""
        with self._lock:
            table = self._table
            fits = _fitting(table, wanted)
            total = int(np.count_nonzero(fits))
            start, key = table["start"], table["id"]
            if wanted.before is not None:
                last_us, last = wanted.before[0], np.uint64(int(wanted.before[1], 16))
                fits &= (start < last_us) | ((start == last_us) & (key < last))
            rows = np.flatnonzero(fits)
            if len(rows) > limit:
                place = len(rows) - limit
                oldest_us = np.partition(start[rows], place)[place]
                rows = rows[start[rows] >= oldest_us]
            rows = rows[np.lexsort((key[rows], start[rows]))[::-1][:limit]]
            pairs = zip(start[rows].tolist(), key[rows].tolist(), strict=True)
            return Found(tuple((start_us, f"{number:016x}") for start_us, number in pairs), total)

    def states(self) -> dict[str, int]:
        """How many events are in each state."""
        with self._lock:
            counts = np.bincount(self._table["state"][self._table["alive"]], minlength=len(STATES))
        return dict(zip(STATES, counts.tolist(), strict=True))


def _fitting(table: _Table, wanted: Wanted) -> NDArray[np.bool_]:
    fits: NDArray[np.bool_] = table["alive"].copy()
    if not table.size:
        return fits
    if wanted.since_us is not None:
        fits &= table["start"] >= wanted.since_us
    if wanted.until_us is not None:
        fits &= table["start"] < wanted.until_us
    if wanted.stream is not None:
        fits &= table.streams.fitting(wanted.stream)[table["stream"]]
    if wanted.prompt is not None:
        fits &= table.prompts.fitting(wanted.prompt)[table["prompt"]]
    if wanted.severities:
        fits &= _among(SEVERITIES, wanted.severities)[table["severity"]]
    if wanted.states:
        fits &= _among(STATES, wanted.states)[table["state"]]
    return fits


def _among(order: Sequence[str], chosen: frozenset[str]) -> NDArray[np.bool_]:
    return np.fromiter((name in chosen for name in order), np.bool_, len(order))
