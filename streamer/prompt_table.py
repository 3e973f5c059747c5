"""Prompts as parallel arrays, made once per change of the prompts, and cut to one stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.budget import LEAST, LEAST_DAYS
from streamer.prompts import Prompt

MAX_BUDGETED = 100  # what is kept of them is kept for each stream
MINUTE_US = 60_000_000  # schedules open and close on whole minutes


@dataclass(frozen=True, slots=True)
class InForce:
    """A threshold that follows from a budget, on one stream.

    Attributes:
        threshold: Now.
        days: How long the stream was watched for it.
        alerts_per_day: The budget.
        is_learnt: Enough was watched; otherwise it is the default.
    """

    threshold: float
    days: float
    alerts_per_day: float
    is_learnt: bool

    @property
    def why(self) -> str:
        """In words."""
        if self.is_learnt:
            return f"what would have given {self.alerts_per_day:g} alerts a day over {self.days:.1f} days"
        needed = max(LEAST_DAYS, 1 / self.alerts_per_day)
        return f"the default until {needed:.2g} days were watched, {self.days:.2g} so far"


class PromptTable:
    """All prompts of one generation. Column ``p`` of every array belongs to ``prompts[p]``.

    Attributes:
        prompts: In the order of the columns.
        columns: Prompt id to its column.
        thresholds: float32 ``(P,)``; of prompts with a budget, until enough was seen.
        lowest: float32 ``(P,)``, the lowest threshold that each may ever have.
        budgeted: Columns of prompts with ``alerts_per_day``, at most `MAX_BUDGETED`, ascending.
        min_duration_us: int64 ``(P,)``.
        cooldown_us: int64 ``(P,)``.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.prompts = tuple(prompts)
        self.columns = {prompt.id: column for column, prompt in enumerate(self.prompts)}
        self.thresholds = np.array([prompt.threshold for prompt in self.prompts], np.float32)
        budgeted = [column for column, prompt in enumerate(self.prompts) if prompt.alerts_per_day is not None]
        self.budgeted = tuple(budgeted[:MAX_BUDGETED])
        self.lowest = self.thresholds.copy()
        self.lowest[list(self.budgeted)] = np.minimum(self.lowest[list(self.budgeted)], np.float32(LEAST))
        self.min_duration_us = np.array([prompt.min_duration_us for prompt in self.prompts], np.int64)
        self.cooldown_us = np.array([prompt.cooldown_us for prompt in self.prompts], np.int64)
        self._is_enabled = np.array([prompt.enabled for prompt in self.prompts], np.bool_)
        self._selectors, self._selector_of = _group([prompt.streams for prompt in self.prompts])
        self._schedules, self._schedule_of = _group([prompt.schedule or "" for prompt in self.prompts])
        self._open_minute = -1
        self._is_open = np.ones(len(self.prompts), np.bool_)

    def __len__(self) -> int:
        return len(self.prompts)

    def is_open(self, at_us: int) -> NDArray[np.bool_]:
        """Whose schedule lets them match at an instant; bool ``(P,)``, not to be written to.

        The answer for the latest minute is kept, for one thread: most windows ask for the same one.
        """
        minute = at_us // MINUTE_US
        if minute != self._open_minute:
            by_schedule = [self.prompts[first].is_open(at_us) for first in self._schedules]
            self._is_open = np.array(by_schedule, np.bool_)[self._schedule_of]
            self._open_minute = minute
        return self._is_open

    def of_stream(self, stream: str, labels: Mapping[str, str]) -> "TrackedPrompts":
        """The table as one stream sees it. Costs one match per different selector, not per prompt."""
        by_selector = [self.prompts[first].applies_to(stream, labels) for first in self._selectors]
        selected = np.array(by_selector, np.bool_)[self._selector_of]
        return TrackedPrompts(self, selected, self._is_enabled, self.thresholds)


@dataclass(frozen=True, slots=True, eq=False)
class TrackedPrompts:
    """Prompts as one stream sees them.

    Attributes:
        table: All of them.
        is_selected: bool ``(P,)``: the prompt is meant for the stream.
        is_enabled: bool ``(P,)``.
        thresholds: float32 ``(P,)``, those that are in force on the stream now.
    """

    table: PromptTable
    is_selected: NDArray[np.bool_]
    is_enabled: NDArray[np.bool_]
    thresholds: NDArray[np.float32]


def _group(values: Sequence[str]) -> tuple[list[int], NDArray[np.intp]]:
    """The first place of each different value, and for each place the number of its group."""
    firsts: dict[str, int] = {}
    groups: list[int] = []
    places: list[int] = []
    for place, value in enumerate(values):
        if value not in firsts:
            firsts[value] = len(places)
            places.append(place)
        groups.append(firsts[value])
    return places, np.array(groups, np.intp)
