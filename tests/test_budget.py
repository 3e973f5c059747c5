import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.budget import BLOCK_DAYS, LEAST, Past, from_document, peaks_of, threshold_for, to_document
from models.errors import ModelError


@given(
    st.lists(st.floats(0, 1, width=32), max_size=50),
    st.floats(0.1, 30),
    st.floats(0, 5),
)
def test_the_past_would_have_kept_the_budget(peaks: list[float], days: float, budget: float) -> None:
    threshold = threshold_for(np.array(peaks, np.float32), days, budget)
    assert LEAST <= threshold <= 1
    if threshold < 1:
        assert sum(peak >= threshold for peak in peaks) <= days * budget + 1e-6


def test_no_threshold_is_higher_than_it_must_be() -> None:
    peaks = np.array([0.9, 0.8, 0.7, 0.2], np.float32)
    threshold = threshold_for(peaks, days=2, alerts_a_day=1)
    assert (peaks >= threshold).sum() == 2
    assert threshold == pytest.approx(0.7, abs=1e-6)


def test_a_budget_that_is_never_filled_does_not_fire_at_anything() -> None:
    assert threshold_for(np.array([0.3], np.float32), days=10, alerts_a_day=5) == LEAST


@pytest.mark.parametrize(("days", "budget"), [(0, 1), (-1, 1), (1, -1), (float("nan"), 1)])
def test_nonsense_is_refused(days: float, budget: float) -> None:
    with pytest.raises(ValueError, match="no threshold"):
        threshold_for(np.zeros(1, np.float32), days, budget)


def test_windows_of_one_event_are_one_peak() -> None:
    peaks = peaks_of([0.2, 0.9, 0.8, 0.1, 0.6], [0, 1, 2, 3, 40], apart_s=30)
    np.testing.assert_allclose(peaks, [0.9, 0.6])


SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US


def watched(past: Past, *confidences: float, hop_us: int = SECOND_US, apart_us: int = 32 * SECOND_US) -> Past:
    for confidence in confidences:
        start_us = max(past.until_us, 0)
        past.add(confidence, start_us, start_us + hop_us, apart_us, is_active=True)
    return past


def test_until_the_budget_allows_an_alert_nothing_is_told() -> None:
    past = watched(Past(), *[0.1] * 23, hop_us=HOUR_US)
    assert past.threshold(1.0) is None
    assert watched(past, 0.1, hop_us=HOUR_US).threshold(1.0) is not None
    assert past.threshold(2.0) is not None
    assert past.threshold(0.5) is None


def test_the_threshold_is_the_lowest_that_would_have_kept_the_budget() -> None:
    past = Past()
    for peak in (0.9, 0.6, 0.95, 0.3):
        watched(past, peak, 0.0, 0.0, 0.0, 0.0, 0.0, hop_us=HOUR_US)
    assert past.days == 1
    one, two, four = (past.threshold(budget) for budget in (1.0, 2.0, 4.0))
    assert one is not None
    assert two is not None
    assert 0.9 < one <= 0.95
    assert 0.6 < two <= 0.9
    assert four == LEAST


def test_dips_and_cooldowns_make_one_alert_and_an_endless_one_counts_again() -> None:
    dips = watched(Past(), *[0.9, 0.0] * 10)
    assert dips.counts[0].max() == 1
    apart = watched(Past(), *[0.9, *[0.0] * 33] * 3)
    assert apart.counts[0].max() == 3
    endless = watched(Past(), *[0.9] * 1801)
    assert endless.counts[0].max() == 4


def test_what_hovers_over_a_low_threshold_is_no_reason_for_it() -> None:
    """One long alert of a low threshold may hold several of a higher one."""
    past = watched(Past(), *[0.3, *[0.1] * 30, 0.9, *[0.1] * 40] * 5, hop_us=60 * SECOND_US, apart_us=60 * SECOND_US)
    budget = 2 / past.days
    threshold = past.threshold(budget)
    assert threshold is not None
    assert threshold > 0.9


def test_a_replay_and_times_outside_the_schedule_add_no_alert() -> None:
    past = watched(Past(), 0.9)
    past.add(0.9, 0, past.until_us, 0, is_active=True)
    past.add(0.9, past.until_us, past.until_us + HOUR_US, 0, is_active=False)
    assert past.counts[0].max() == 1
    assert past.days == pytest.approx(3601 / 86_400)


def test_the_past_is_forgotten_in_blocks() -> None:
    past = watched(Past(), 0.9, *[0.0] * round(BLOCK_DAYS * 24), hop_us=HOUR_US)
    assert past.counts.sum(1).tolist() == [0, past.counts[1].sum()]
    assert past.days == pytest.approx(BLOCK_DAYS, abs=0.1)
    watched(past, *[0.0] * round(BLOCK_DAYS * 24), hop_us=HOUR_US)
    assert past.threshold(0.1) == LEAST


@given(st.lists(st.floats(0, 1, width=32), max_size=40), st.lists(st.floats(0, 1, width=32), max_size=40))
def test_a_successor_goes_on_as_we_would_have(before: list[float], after: list[float]) -> None:
    mine = watched(Past(), *before, hop_us=7 * SECOND_US)
    theirs = from_document(json.loads(json.dumps(to_document(mine))))
    watched(mine, *after, hop_us=7 * SECOND_US)
    watched(theirs, *after, hop_us=7 * SECOND_US)
    np.testing.assert_array_equal(mine.counts, theirs.counts)
    assert to_document(mine) == to_document(theirs)


@given(st.lists(st.floats(0, 1), min_size=30, max_size=300), st.floats(5, 40))
def test_what_is_counted_is_what_would_have_opened(confidences: list[float], budget: float) -> None:
    past = watched(Past(), *confidences, hop_us=600 * SECOND_US, apart_us=0)
    threshold = past.threshold(budget)
    if threshold is not None and threshold < 1:
        assert (np.array(confidences, np.float32) >= np.float32(threshold)).sum() <= past.days * budget


def test_what_is_kept_is_bounded() -> None:
    past = watched(Past(), *np.random.default_rng(0).random(20_000).tolist())
    assert len(json.dumps(to_document(past), separators=(",", ":"))) < 2500


@pytest.mark.parametrize(
    "damage", [{"counts": [[1]]}, {"counts": "x"}, {"watched_us": [1]}, {"recent": [[99, 1, 1]]}, {"until_us": None}]
)
def test_a_damaged_past_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="starts afresh"):
        from_document({**to_document(Past()), **damage})
