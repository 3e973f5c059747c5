import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.budget import LEAST, peaks_of, threshold_for


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
