"""Prompts as parallel arrays, made once per change of the prompts, and cut to one stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.prompts import Prompt

MINUTE_US = 60_000_000  # schedules open and close on whole minutes


class PromptTable:
    """All prompts of one generation. Column ``p`` of every array belongs to ``prompts[p]``.

    Attributes:
        prompts: In the order of the columns.
        columns: Prompt id to its column.
        thresholds: float32 ``(P,)``.
        min_duration_us: int64 ``(P,)``.
        cooldown_us: int64 ``(P,)``.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.prompts = tuple(prompts)
        self.columns = {prompt.id: column for column, prompt in enumerate(self.prompts)}
        self.thresholds = np.array([prompt.threshold for prompt in self.prompts], np.float32)
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
        return TrackedPrompts(table=self, is_selected=selected, is_enabled=self._is_enabled)


@dataclass(frozen=True, slots=True, eq=False)
class TrackedPrompts:
    """Prompts as one stream sees them.

    Attributes:
        table: All of them.
        is_selected: bool ``(P,)``: the prompt is meant for the stream.
        is_enabled: bool ``(P,)``.
    """

    table: PromptTable
    is_selected: NDArray[np.bool_]
    is_enabled: NDArray[np.bool_]


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
