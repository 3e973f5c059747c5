import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.background import WARM_UP_S, Background, from_document, to_document, update, usual_lead
from models.errors import ModelError
from models.normalise import Ordinary, Scaling

DIM = 4
AXES = torch.eye(DIM)
ORDINARY = Ordinary(AXES[3:][:, None], AXES[3:], mean=0.3, spread=0.05, floor=0.0)
PLAIN = Scaling.none(DIM)


def watched(state: Background, axis: int, windows: int, *, is_alert: bool = False) -> Background:
    for _ in range(windows):
        start = state.until_us
        state = update(state, AXES[axis][None], start, start + 1_000_000, is_alert=is_alert)
    return state


def test_what_a_stream_always_shows_loses_its_lead_and_nothing_else_does() -> None:
    lead = usual_lead(watched(Background.empty(DIM), 0, 400), AXES, ORDINARY, PLAIN)
    torch.testing.assert_close(lead, torch.tensor([0.5, 0, 0, 0]))


def test_until_it_is_warm_nothing_is_usual() -> None:
    assert not usual_lead(watched(Background.empty(DIM), 0, int(WARM_UP_S) - 1), AXES, ORDINARY, PLAIN).any()


def test_an_alert_is_not_learnt_away() -> None:
    before = watched(Background.empty(DIM), 1, 400)
    after = watched(before, 0, 5000, is_alert=True)
    np.testing.assert_array_equal(after.mean, before.mean)
    assert after.until_us == before.until_us + 5_000_000_000


def test_windows_that_overlap_and_replays_count_once() -> None:
    once = watched(Background.empty(DIM), 0, 2)
    again = update(once, AXES[1][None], 0, once.until_us, is_alert=False)
    assert again is once
    half = update(once, AXES[1][None], 1_000_000, 2_500_000, is_alert=False)
    assert half.weight_s == pytest.approx(2.5, abs=1e-3)
    assert half.mean[1] == pytest.approx(0.2, abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_a_lead_never_raises_a_score(shown: list[tuple[int, bool]]) -> None:
    state = Background.empty(DIM)
    for axis, is_alert in shown:
        start = state.until_us
        state = update(state, AXES[axis][None], start, start + 10_000_000, is_alert=is_alert)
    assert (usual_lead(state, AXES, ORDINARY, PLAIN) >= 0).all()


def test_it_survives_being_written_down() -> None:
    state = watched(Background.empty(DIM), 2, 7)
    back = from_document(json.loads(json.dumps(to_document(state))), DIM)
    np.testing.assert_allclose(back.mean, state.mean, atol=1e-3)
    assert back.weight_s == pytest.approx(state.weight_s, abs=1e-3)
    assert back.until_us == state.until_us


@pytest.mark.parametrize(
    "damage",
    [{"mean": "%"}, {"mean": ""}, {"mean": "AAA="}, {"weight_s": "much"}, {"weight_s": -1}, {"until_us": None}],
)
def test_damaged_state_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="background"):
        from_document({**to_document(Background.empty(DIM)), **damage}, DIM)
