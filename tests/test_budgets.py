import json
from typing import Any

import numpy as np
import pytest

from models.budget import LEAST
from streamer.budgets import Budgets
from streamer.prompt_table import MAX_BUDGETED, PromptTable, TrackedPrompts
from streamer.prompts import Prompt
from tests.test_track import a_prompt

HOUR_US = 3_600_000_000
PROMPTS = (a_prompt(), a_prompt(id="alarm", alerts_per_day=2, cooldown="0s"), a_prompt(id="door", alerts_per_day=24))


def view_of(*prompts: Prompt) -> TrackedPrompts:
    return PromptTable(prompts or PROMPTS).of_stream("yard", {})


def watch(budgets: Budgets, hours: int, first: int = 0, *prompts: Prompt) -> None:
    view = view_of(*prompts)
    for hour in range(first, first + hours):
        row = np.array([0.8 if hour % 2 else 0.1] * len(view.table), np.float32)
        budgets.take_in("yard", view, row, hour * HOUR_US, (hour + 1) * HOUR_US)


def thresholds(budgets: Budgets, *prompts: Prompt, stream: str = "yard") -> dict[str, float]:
    view = budgets.of_stream(stream, view_of(*prompts))
    return {
        prompt.id: float(view.thresholds[column]) for prompt, column in zip(view.table.prompts, range(9), strict=False)
    }


def test_thresholds_follow_budgets_once_enough_was_watched() -> None:
    budgets = Budgets(0)
    assert thresholds(budgets) == {"fire": 0.5, "alarm": 0.5, "door": 0.5}
    watch(budgets, 11)
    assert thresholds(budgets)["alarm"] == 0.5
    assert thresholds(budgets)["door"] == pytest.approx(LEAST)
    watch(budgets, 13, 11)
    assert thresholds(budgets)["fire"] == 0.5
    assert 0.8 < thresholds(budgets)["alarm"] < 0.9
    assert set(thresholds(budgets, stream="other").values()) == {0.5}


def test_each_threshold_says_why() -> None:
    budgets = Budgets(0)
    watch(budgets, 11)
    told = budgets.in_force("yard", budgets.of_stream("yard", view_of()))
    assert set(told) == {"alarm", "door"}
    assert told["alarm"].why == "the default until 0.5 days were watched, 0.46 so far"
    assert told["door"].why == "what would have given 24 alerts a day over 0.5 days"


def test_another_budget_keeps_what_was_learnt_and_another_meaning_does_not() -> None:
    budgets = Budgets(0)
    watch(budgets, 24)
    more = a_prompt(id="alarm", alerts_per_day=48, version=2)
    assert thresholds(budgets, more)["alarm"] == pytest.approx(LEAST)
    other = a_prompt(id="alarm", text="smoke", alerts_per_day=48, version=3)
    assert thresholds(budgets, other)["alarm"] == 0.5


def test_a_successor_goes_on_and_a_replay_changes_nothing() -> None:
    whole, first, second = Budgets(0), Budgets(0), Budgets(0)
    watch(whole, 30)
    watch(first, 20)
    second.restore("yard", json.loads(json.dumps(first.state("yard"))))
    watch(second, 15, 15)
    assert second.state("yard") == whole.state("yard")
    assert thresholds(second) == thresholds(whole)


def test_prompts_that_are_gone_and_streams_that_are_gone_are_forgotten() -> None:
    budgets = Budgets(0)
    watch(budgets, 2)
    watch(budgets, 1, 2, PROMPTS[1])
    saved = budgets.state("yard")
    assert saved is not None
    assert set(saved["pasts"]) == {"alarm"}
    budgets.forget("yard")
    assert budgets.state("yard") is None


@pytest.mark.parametrize(
    "damage", [{"version": 2}, {"pasts": {"alarm": ["x", {}]}}, {"pasts": {"alarm": 1}}, {"pasts": []}]
)
def test_what_cannot_be_read_is_left(damage: dict[str, Any]) -> None:
    budgets = Budgets(0)
    watch(budgets, 2)
    saved = budgets.state("yard")
    assert saved is not None
    other = Budgets(0)
    other.restore("yard", saved | damage)
    assert other.state("yard") is None


def test_of_very_many_budgets_the_first_are_kept() -> None:
    table = PromptTable([a_prompt(id=f"p-{n:03}", alerts_per_day=1) for n in range(MAX_BUDGETED + 5)])
    assert len(table.budgeted) == MAX_BUDGETED
    assert (table.lowest[:MAX_BUDGETED] == np.float32(LEAST)).all()
    assert (table.lowest[MAX_BUDGETED:] == 0.5).all()
