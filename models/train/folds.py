"""Grouped cross-validation, and the figures that models are chosen by."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def grouped_folds(labels: NDArray[np.bool_], groups: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """Number each item's fold: no group is in two, and each has about its share of either label.

    Args:
        labels: bool ``(N,)``.
        groups: ``N`` names.
        count: Folds.
        seed: Of the order of groups that are alike.

    Returns:
        int64 ``(N,)``, 0 to ``count - 1``.
    """
    names = np.array(groups)
    order = sorted(set(groups))
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda name: -int((names == name).sum()))
    share = np.array([max(1, (~labels).sum()), max(1, labels.sum())]) / count
    filled = np.zeros((count, 2))
    fold = np.zeros(len(labels), np.int64)
    for name in order:
        mine = names == name
        adds = np.array([(~labels[mine]).sum(), labels[mine].sum()]) / share
        place = int(np.argmin([np.square(filled + np.eye(count)[[number]].T * adds).sum() for number in range(count)]))
        filled[place] += adds
        fold[mine] = place
    return fold


def area_under_roc(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Probability that a positive scores over a negative; NaN where either is lacking."""
    positive, negative = scores[labels], scores[~labels]
    if not len(positive) or not len(negative):
        return float("nan")
    ahead = positive[:, None] - negative[None]
    return float(((ahead > 0) + 0.5 * (ahead == 0)).mean())


def average_precision(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Mean precision at each positive, ties counted as the worst order."""
    order = np.lexsort((labels, -scores))
    hits = labels[order]
    if not hits.any():
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())
