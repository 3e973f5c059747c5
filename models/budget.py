"""Alerts a day in place of a threshold: the threshold that the past says will give so many."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEAST = 0.05  # a budget that past peaks never fill does not make a prompt fire at anything


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
