"""Figures of merit for scores between 0 and 1 against labels. numpy alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]
Figure = Callable[[Labels, Scores], float | None]

BINS = 10
REPLICATES = 1000
COVERAGE = 0.95


def average_precision(labels: Labels, scores: Scores) -> float | None:
    """Sum of precision times gain of recall over falling thresholds; equal scores are one step. None: no positive."""
    positives = int(labels.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    step_ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(labels[order])[step_ends]
    gained = np.diff(hits, prepend=0)
    return float((gained * (hits / (step_ends + 1))).sum() / positives)


def roc_auc(labels: Labels, scores: Scores) -> float | None:
    """Share of pairs of a positive and a negative in which the positive scores higher, ties half. None: no pair."""
    own, others = scores[labels], np.sort(scores[~labels])
    if not own.size or not others.size:
        return None
    below = np.searchsorted(others, own, side="left")
    not_above = np.searchsorted(others, own, side="right")
    return float((below + not_above).mean() / (2 * others.size))


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a threshold makes of scores. A ratio is None where nothing is there to count.

    Attributes:
        tp: Positives at or over it.
        fp: Negatives at or over it.
        fn: Positives under it.
        tn: Negatives under it.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def accuracy(self) -> float | None:
        """Share of right decisions."""
        return _ratio(self.tp + self.tn, self.tp + self.tn + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        """Of what was reported, the share that held."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """Of what held, the share that was reported."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def false_rate(self) -> float | None:
        """Of what did not hold, the share that was reported."""
        return _ratio(self.fp, self.fp + self.tn)


def decide(labels: Labels, scores: Scores, threshold: float) -> Decisions:
    """Count decisions; a score that equals the threshold is reported."""
    is_over = scores >= threshold
    return Decisions(
        tp=int((is_over & labels).sum()),
        fp=int((is_over & ~labels).sum()),
        fn=int((~is_over & labels).sum()),
        tn=int((~is_over & ~labels).sum()),
    )


@dataclass(frozen=True, slots=True)
class Bin:
    """Items whose scores lie in ``[low, high)``; the last bin holds 1, too.

    Attributes:
        low: Its lower edge.
        high: Its upper edge.
        count: Items in it.
        mean: Their mean score; None without items.
        share: Share of them that is positive.
    """

    low: float
    high: float
    count: int
    mean: float | None
    share: float | None


def reliability(labels: Labels, scores: Scores, bins: int = BINS) -> tuple[Bin, ...]:
    """Mean score against share of positives in bins of equal width."""
    place = np.minimum((scores * bins).astype(np.intp), bins - 1)
    made = []
    for number in range(bins):
        inside = place == number
        count = int(inside.sum())
        mean, share = (float(scores[inside].mean()), float(labels[inside].mean())) if count else (None, None)
        made.append(Bin(number / bins, (number + 1) / bins, count, mean, share))
    return tuple(made)


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error: distance of mean score and share of positives, averaged over items.

    Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    full = [(part.count, part.mean, part.share) for part in bins if part.mean is not None and part.share is not None]
    total = sum(count for count, _, _ in full)
    return sum(count * abs(mean - share) for count, mean, share in full) / total if total else None


def recall_at(labels: Labels, scores: Scores, false_rate: float) -> float | None:
    """The highest recall of a threshold that reports at most this share of the negatives. None: no pair."""
    own, others = scores[labels], np.sort(scores[~labels])[::-1]
    if not own.size or not others.size:
        return None
    allowed = int(false_rate * others.size + 1e-9)
    # Everything over the first negative that must stay out.
    return 1.0 if allowed >= others.size else float((own > others[allowed]).mean())


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the range that holds `COVERAGE` of its bootstrap replicates; None where none could be made."""

    value: float | None
    low: float | None
    high: float | None


def bootstrap(
    figures: Sequence[Figure],
    labels: Labels,
    scores: Scores,
    groups: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 1,
) -> tuple[Interval, ...]:
    """Percentile intervals of figures, drawing whole groups with replacement: files of one camera are not independent.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.

    Args:
        figures: What to compute on each replicate.
        labels: ``(N,)``.
        scores: ``(N,)``.
        groups: ``N`` names of cameras, scenes or recordings.
        replicates: How many are drawn.
        seed: Of the draws.
    """
    values = [figure(labels, scores) for figure in figures]
    _, group = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    members = [np.flatnonzero(group == number) for number in range(int(group.max()) + 1 if len(group) else 0)]
    rng = np.random.default_rng(seed)
    drawn: list[list[float]] = [[] for _ in figures]
    for _ in range(replicates if len(members) > 1 else 0):
        picked = np.concatenate([members[number] for number in rng.integers(0, len(members), len(members))])
        for kept, figure in zip(drawn, figures, strict=True):
            value = figure(labels[picked], scores[picked])
            if value is not None:
                kept.append(value)
    return tuple(_interval(value, kept) for value, kept in zip(values, drawn, strict=True))


def most_events(count: int) -> float:
    """The highest mean of a Poisson process that would show so few events in one case of forty: 3.7 for none."""
    low, high = float(count), count + 10 * math.sqrt(count + 4)
    for _ in range(60):
        mean = (low + high) / 2
        total = term = math.exp(-mean)
        for number in range(1, count + 1):
            term *= mean / number
            total += term
        low, high = (mean, high) if total > (1 - COVERAGE) / 2 else (low, mean)
    return (low + high) / 2


def _interval(value: float | None, drawn: Sequence[float]) -> Interval:
    if value is None or not drawn:
        return Interval(value, None, None)
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(value, float(low), float(high))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
