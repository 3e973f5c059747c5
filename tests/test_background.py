import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.background import EVERY_S, WARM_UP_S, Background, from_document, to_document, update, usual_lead
from models.errors import ModelError
from models.normalise import Ordinary, Scaling

DIM = 4
AXES = torch.eye(DIM)
ORDINARY = Ordinary(AXES[3:][:, None], AXES[3:], mean=0.3, spread=0.05, floor=0.0)
EVERY_US = round(EVERY_S * 1e6)
PLAIN = Scaling.none(DIM)


def watched(state: Background, axis: int, windows: int, *, is_alert: bool = False) -> Background:
    for _ in range(windows):
        state = update(state, [AXES[axis]], state.until_us + EVERY_US, is_alert=is_alert)
    return state


def test_what_a_stream_always_shows_loses_its_lead_and_nothing_else_does() -> None:
    lead = usual_lead(watched(Background.empty(DIM), 0, 400), AXES, ORDINARY, PLAIN)
    torch.testing.assert_close(lead, torch.tensor([0.5, 0, 0, 0]))


def test_until_it_is_warm_nothing_is_usual() -> None:
    assert not usual_lead(watched(Background.empty(DIM), 0, int(WARM_UP_S / EVERY_S) - 1), AXES, ORDINARY, PLAIN).any()


def test_an_alert_is_not_learnt_away() -> None:
    before = watched(Background.empty(DIM), 1, 400)
    after = watched(before, 0, 5000, is_alert=True)
    np.testing.assert_array_equal(after.mean, before.mean)
    assert after.until_us == before.until_us + 5000 * EVERY_US


def test_windows_between_those_that_are_due_and_replays_change_nothing() -> None:
    once = watched(Background.empty(DIM), 0, 2)
    for end_us in (0, once.until_us, once.until_us + EVERY_US - 1):
        assert update(once, [AXES[1]], end_us, is_alert=False) is once
    assert update(once, [], once.until_us + EVERY_US, is_alert=False) is once


def test_a_window_after_a_long_silence_counts_no_more_than_another() -> None:
    once = watched(Background.empty(DIM), 0, 2)
    late = update(once, [AXES[1]], once.until_us + 1000 * EVERY_US, is_alert=False)
    assert late.weight_s == pytest.approx(3 * EVERY_S, rel=1e-3)
    assert late.mean[1] == pytest.approx(1 / 3, abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_a_lead_never_raises_a_score(shown: list[tuple[int, bool]]) -> None:
    state = Background.empty(DIM)
    for axis, is_alert in shown:
        state = update(state, [AXES[axis]], state.until_us + EVERY_US, is_alert=is_alert)
    assert (usual_lead(state, AXES, ORDINARY, PLAIN) >= 0).all()


def test_it_is_written_down_to_the_last_bit() -> None:
    state = watched(watched(Background.empty(DIM), 2, 7), 1, 3)
    back = from_document(json.loads(json.dumps(to_document(state))), DIM)
    np.testing.assert_array_equal(back.mean, state.mean)
    assert (back.weight_s, back.until_us) == (state.weight_s, state.until_us)


@pytest.mark.parametrize(
    "damage",
    [{"mean": "%"}, {"mean": ""}, {"mean": "AAA="}, {"weight_s": "much"}, {"weight_s": -1}, {"until_us": None}],
)
def test_damaged_state_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="background"):
        from_document({**to_document(Background.empty(DIM)), **damage}, DIM)
