"""Alerts a day in place of a threshold: the threshold that the past says will give so many.

For each of `LEVELS` it is counted how many alerts that threshold would have given: one as a confidence first reaches
it, and another only after it stayed under it for as long as a dip and a cooldown last, or has lasted for `LASTS_S`. So
the past is kept in two rows of counts, the running block of days and the one before it, whatever its length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

LEAST = 0.05  # a budget that past peaks never fill does not make a prompt fire at anything
_STEPS, _DIGITS = 39, 4
# Evenly spaced in log-odds, where confidences are told apart alike everywhere.
LEVELS: Final[NDArray[np.float32]] = np.append(
    np.round(1 / (1 + np.exp(-np.linspace(np.log(LEAST / (1 - LEAST)), 8.0, _STEPS))), _DIGITS), 1.0
).astype(np.float32)
LASTS_S = 600.0  # an alert that lasts counts again so often: an endless one is not one a day
BLOCK_DAYS = 14.0
LEAST_DAYS = 1 / 24
DAY_S = 86_400.0
_NEVER_US = -(2**62)


def threshold_for(peaks: NDArray[np.float32], days: float, alerts_a_day: float) -> float:
    """The lowest threshold that the past would have kept within the budget.

    Args:
        peaks: Peak confidence of each stretch that could have been one event: maxima between cooldowns, of all streams
            that the prompt watches, 0..1.
        days: How long they were gathered, over all of them together.
        alerts_a_day: Wanted at most.

    Returns:
        0.05..1. Just above the first peak that would be one too many; 1 where the budget allows none.

    Raises:
        ValueError: ``days`` is not positive, or the budget is negative.
    """
    if not days > 0 or not alerts_a_day >= 0:
        raise ValueError(f"{days} days and {alerts_a_day} alerts a day make no threshold")
    allowed = int(days * alerts_a_day + 1e-9)
    ordered = np.sort(np.asarray(peaks, np.float64))[::-1]
    if allowed >= len(ordered):
        return LEAST
    return float(np.clip(np.nextafter(np.float32(ordered[allowed]), np.float32(2)), LEAST, 1.0))


def peaks_of(confidences: Sequence[float], times_s: Sequence[float], apart_s: float) -> NDArray[np.float32]:
    """The highest confidences that lie at least so far apart, highest first: what events there could have been.

    Args:
        confidences: Of windows.
        times_s: When each was.
        apart_s: An event and its cooldown last this long.
    """
    order = np.argsort(-np.asarray(confidences, np.float64), kind="stable")
    taken: list[int] = []
    for place in order:
        if all(abs(times_s[place] - times_s[other]) >= apart_s for other in taken):
            taken.append(int(place))
    return np.array([confidences[place] for place in taken], np.float32)


@dataclass(slots=True, eq=False)
class Past:
    """How many alerts each threshold would have given for one prompt on one stream.

    Attributes:
        counts: int64 ``(2, LEVELS)``: in the running block, and in the one before it.
        watched_us: How long was watched in each.
        until_us: End of the last window, capture time.
        last_us: int64 ``(LEVELS,)``, end of the last window that reached each level.
        counted_us: int64 ``(LEVELS,)``, end of the window that counted last.
        apart_us: After so long under a level, reaching it is another alert.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, len(LEVELS)), np.int64))
    watched_us: tuple[int, int] = (0, 0)
    until_us: int = _NEVER_US
    last_us: NDArray[np.int64] = field(default_factory=lambda: np.full(len(LEVELS), _NEVER_US, np.int64))
    counted_us: NDArray[np.int64] = field(default_factory=lambda: np.full(len(LEVELS), _NEVER_US, np.int64))
    apart_us: int = 0

    @property
    def days(self) -> float:
        """How long was watched."""
        return sum(self.watched_us) / 1e6 / DAY_S

    def is_enough(self, alerts_a_day: float) -> bool:
        """Whether so much was watched that the budget allows an alert in that time."""
        return self.days >= max(LEAST_DAYS, 1 / alerts_a_day)

    def threshold(self, alerts_a_day: float) -> float | None:
        """The lowest level that would have kept within the budget; None: not enough was watched to tell."""
        if not self.is_enough(alerts_a_day):
            return None
        allowed = int(self.days * alerts_a_day + 1e-9)
        # A lower threshold never gives fewer: one long alert of it may hold several of a higher one.
        alerts = np.maximum.accumulate(self.counts.sum(0)[::-1])[::-1]
        return round(float(LEVELS[min(int((alerts > allowed).sum()), len(LEVELS) - 1)]), _DIGITS)

    def add(self, confidence: float, start_us: int, end_us: int, apart_us: int, *, is_active: bool) -> None:
        """A window was judged; one that does not end after the last changes nothing.

        Args:
            confidence: 0..1; NaN reaches no level.
            start_us: The window's start. Windows overlap: what lies after the last one's end counts as watched.
            end_us: And its end.
            apart_us: After so long under a level, reaching it is another alert.
            is_active: The prompt was watching. Days count all the same: a budget is for a day, not for a shift.
        """
        if end_us <= self.until_us:
            return
        watched_us = self.watched_us[0] + end_us - max(start_us, self.until_us)
        if watched_us > BLOCK_DAYS * DAY_S * 1e6:
            self.counts = np.stack((np.zeros_like(self.counts[0]), self.counts[0]))
            self.watched_us = (0, self.watched_us[0])
            watched_us = end_us - max(start_us, self.until_us)
        self.watched_us, self.until_us = (watched_us, self.watched_us[1]), end_us
        self.apart_us = apart_us
        if not is_active:
            return
        reached = confidence >= LEVELS
        is_new = reached & ((end_us - self.last_us > apart_us) | (end_us - self.counted_us >= LASTS_S * 1e6))
        self.counts[0, is_new] += 1
        self.counted_us[is_new] = end_us
        self.last_us[reached] = end_us


def to_document(past: Past) -> dict[str, Any]:
    """As JSON can hold it, 300 to 2000 bytes: of levels that were not reached lately the counts are all."""
    recent = np.flatnonzero(past.last_us >= past.until_us - past.apart_us).tolist()
    return {
        "counts": past.counts.tolist(),
        "watched_us": list(past.watched_us),
        "until_us": past.until_us,
        "apart_us": past.apart_us,
        "recent": [[level, int(past.last_us[level]), int(past.counted_us[level])] for level in recent],
    }


def from_document(document: Mapping[str, Any]) -> Past:
    """What `to_document` wrote.

    Raises:
        ModelError: It is something else.
    """
    try:
        first, second = (int(value) for value in document["watched_us"])
        past = Past(np.array(document["counts"], np.int64), (first, second), int(document["until_us"]))
        past.apart_us = int(document["apart_us"])
        for level, last_us, counted_us in document["recent"]:
            past.last_us[level], past.counted_us[level] = last_us, counted_us
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ModelError(f"the past of a prompt cannot be read: {error}; it starts afresh without it") from error
    if past.counts.shape != (2, len(LEVELS)) or (past.counts < 0).any() or min(past.watched_us) < 0:
        raise ModelError("the past of a prompt has other counts than levels; it starts afresh without it")
    return past
