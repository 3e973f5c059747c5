"""Figures of merit against cases counted by hand, and against definitions written out the slow way."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.evaluate.metrics import (
    average_precision,
    bootstrap,
    calibration_error,
    decide,
    most_events,
    recall_at,
    reliability,
    roc_auc,
)

Case = tuple[NDArray[np.bool_], NDArray[np.float64]]


def case(*pairs: tuple[float, int]) -> Case:
    """Scores and labels, in the order given."""
    return np.array([bool(label) for _, label in pairs]), np.array([score for score, _ in pairs])


def cases(least: int = 1) -> st.SearchStrategy[Case]:
    """Few different scores, so that ties are common."""
    pair = st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0]), st.integers(0, 1))
    return st.lists(pair, min_size=least, max_size=30).map(lambda pairs: case(*pairs))


def test_average_precision_of_a_ranking_counted_by_hand() -> None:
    # Hits at ranks 1, 3 and 4 of five: (1/1 + 2/3 + 3/4) / 3.
    assert average_precision(*case((0.9, 1), (0.8, 0), (0.7, 1), (0.6, 1), (0.5, 0))) == pytest.approx(29 / 36)


def test_ties_are_one_step_and_the_order_of_files_does_not_count() -> None:
    assert average_precision(*case((0.9, 0), (0.5, 1), (0.5, 0), (0.5, 1))) == pytest.approx(2 / 4)
    assert average_precision(*case((0.5, 1), (0.5, 1), (0.5, 0), (0.9, 0))) == pytest.approx(2 / 4)
    assert roc_auc(*case((0.5, 1), (0.5, 0))) == 0.5


def test_where_nothing_holds_there_is_no_figure() -> None:
    assert average_precision(*case((0.3, 0))) is None
    assert roc_auc(*case((0.3, 1))) is None
    assert recall_at(*case((0.3, 1)), 0.1) is None
    nothing = decide(*case((0.3, 0)), 0.5)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.accuracy) == (None, None, None, 1.0)


@given(cases())
def test_the_area_is_the_share_of_pairs_in_the_right_order(one: Case) -> None:
    labels, scores = one
    pairs = [(own > other) + (own == other) / 2 for own in scores[labels] for other in scores[~labels]]
    expected = pytest.approx(sum(pairs) / len(pairs)) if pairs else None
    assert roc_auc(labels, scores) == expected


@given(cases())
def test_average_precision_is_the_sum_over_thresholds(one: Case) -> None:
    labels, scores = one
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        made = decide(labels, scores, threshold)
        if made.recall is not None and made.precision is not None:
            total += (made.recall - recall_before) * made.precision
            recall_before = made.recall
    assert average_precision(labels, scores) == (pytest.approx(total) if labels.any() else None)


@given(cases(), st.floats(0, 1))
def test_recall_at_a_rate_is_the_best_threshold_within_it(one: Case, rate: float) -> None:
    labels, scores = one
    allowed = [decide(labels, scores, threshold) for threshold in [2.0, *scores.tolist()]]
    within = [made.recall for made in allowed if (made.false_rate or 0) <= rate + 1e-12 and made.recall is not None]
    if labels.any() and not labels.all():
        assert recall_at(labels, scores, rate) == pytest.approx(max(within))


@given(cases(), st.sampled_from([0.1, 0.5, 1.0]))
def test_decisions_split_the_files(one: Case, threshold: float) -> None:
    labels, scores = one
    made = decide(labels, scores, threshold)
    assert made.tp + made.fn == labels.sum()
    assert made.fp + made.tn == (~labels).sum()
    assert made.tp + made.fp == sum(score >= threshold for score in scores)


def test_decisions_at_a_threshold_counted_by_hand() -> None:
    made = decide(*case((0.9, 1), (0.5, 0), (0.49, 1), (0.2, 0), (0.1, 0)), 0.5)
    assert (made.tp, made.fp, made.fn, made.tn) == (1, 1, 1, 2)
    assert (made.accuracy, made.precision, made.recall, made.f1) == (3 / 5, 1 / 2, 1 / 2, 1 / 2)
    assert made.false_rate == pytest.approx(1 / 3)


def test_calibration_error_counted_by_hand() -> None:
    bins = reliability(*case((0.05, 0), (0.05, 1), (0.95, 1), (1.0, 1)))
    assert [part.count for part in bins] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    # Half of the files say 0.05 where half hold, the others 0.975 where all do.
    assert calibration_error(bins) == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)


def test_confidences_that_one_can_bet_on_have_no_error() -> None:
    rng = np.random.default_rng(5)
    scores = rng.uniform(0, 1, 200_000)
    error = calibration_error(reliability(rng.uniform(0, 1, 200_000) < scores, scores))
    assert error is not None
    assert error < 0.005


def test_an_edge_belongs_to_the_bin_above() -> None:
    assert [part.count for part in reliability(*case((0.5, 1), (0.3, 1)))][5] == 1


def test_the_bootstrap_holds_the_value_and_widens_with_fewer_groups() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(200) % 2 == 0
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    widths = []
    for per_group in (1, 20):
        # Files of a group resemble each other: the same noise again and again.
        groups = [f"camera-{number // per_group}" for number in range(200)]
        noise = np.repeat(rng.normal(0, 0.2, 200 // per_group), per_group)
        (found,) = bootstrap((roc_auc,), labels, np.clip(scores + noise, 0, 1), groups, replicates=300)
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[0] < widths[1]


def test_a_single_group_has_no_interval() -> None:
    (found,) = bootstrap((roc_auc,), *case((0.9, 1), (0.1, 0)), ["one", "one"])
    assert (found.value, found.low, found.high) == (1.0, None, None)


@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_the_most_events_are_those_that_poisson_gives(count: int) -> None:
    mean = most_events(count)
    chance = sum(math.exp(-mean) * mean**number / math.factorial(number) for number in range(count + 1))
    assert chance == pytest.approx(0.025, abs=1e-6)
