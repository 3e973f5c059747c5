import json
from typing import Any

import numpy as np
import pytest
import torch

from models.background import EVERY_S, WARM_UP_S
from models.calibrate import PRIOR
from models.normalise import Normaliser, Ordinary
from streamer.align import PromptEmbedder, PromptSet
from streamer.prompts import parse_prompt
from streamer.types import Encoded
from streamer.usual import Usual
from tests.colours import DIM, colour_encoders

AXES = torch.eye(DIM)
RED = torch.nn.functional.normalize(torch.tensor([2.0, -1, -1, 0, 0, 0, 0, 0]), dim=0)
BANK = Ordinary(AXES[3:5][:, None], AXES[3:5], mean=0.3, spread=0.05, floor=0.06)
NORMALISER = Normaliser(seen=BANK)
EVERY_US = round(EVERY_S * 1e6)
DUE = int(WARM_UP_S / EVERY_S) + 1


def encoded(whole: torch.Tensor) -> Encoded:
    made = Encoded(0)
    made.tokens, made.whole = whole[None], whole
    return made


def a_set(*texts: str) -> PromptSet:
    prompts = [parse_prompt({"id": text, "text": text}) for text in texts]
    return PromptEmbedder(colour_encoders(), PRIOR, normaliser=NORMALISER).embed(1, prompts)


def usual(mark: str = "a") -> Usual:
    return Usual(NORMALISER, PRIOR, {"seen": DIM, "heard": DIM}, mark)


def watch_red(watched: Usual, windows: int, first: int = 1, *, is_alert: bool = False) -> None:
    for number in range(first, first + windows):
        watched.take_in("cam", [encoded(RED)], [], number * EVERY_US, is_alert=is_alert)


def test_once_warm_a_prompt_loses_what_its_stream_always_shows() -> None:
    prompts, watched = a_set("red", "blue"), usual()
    watch_red(watched, DUE - 2)
    assert watched.lead("cam", prompts) is None
    watch_red(watched, 5, DUE)
    lead = watched.lead("cam", prompts)
    assert lead is not None
    assert lead.seen[0] > 1
    assert lead.seen[1] == 0
    assert not lead.heard.any()
    before = prompts.judge(np.full((1, 2), 1.0, np.float32), np.full((1, 2), np.nan, np.float32))[1]
    after = prompts.judge(1.0 - lead.seen[None], np.full((1, 2), np.nan, np.float32))[1]
    assert after[0, 0] < before[0, 0]
    assert after[0, 1] == before[0, 1]


def test_other_streams_and_alerts_are_not_learnt() -> None:
    prompts, watched = a_set("red"), usual()
    watch_red(watched, 2 * DUE, is_alert=True)
    assert watched.lead("cam", prompts) is None
    watch_red(watched, 2 * DUE, 3 * DUE)
    assert watched.lead("cam", prompts) is not None
    assert watched.lead("door", prompts) is None


def test_a_change_of_the_prompts_is_followed() -> None:
    watched = usual()
    watch_red(watched, DUE)
    one, two = watched.lead("cam", a_set("red")), watched.lead("cam", a_set("blue", "red"))
    assert one is not None
    assert two is not None
    assert two.seen.tolist() == pytest.approx([0.0, float(one.seen[0])])


def test_a_successor_goes_on_to_the_last_bit() -> None:
    prompts, whole = a_set("red"), usual()
    watch_red(whole, 2 * DUE)
    first = usual()
    watch_red(first, DUE)
    second = usual()
    second.restore("cam", json.loads(json.dumps(first.state("cam"))))
    watch_red(second, 2 * DUE)  # a replay, and what follows
    assert second.state("cam") == whole.state("cam")
    mine, theirs = second.lead("cam", prompts), whole.lead("cam", prompts)
    assert mine is not None
    assert theirs is not None
    np.testing.assert_array_equal(mine.seen, theirs.seen)


def test_what_is_kept_of_a_stream_is_bounded() -> None:
    watched = usual()
    watch_red(watched, 500)
    assert len(json.dumps(watched.state("cam"))) < 200 + 6 * DIM


@pytest.mark.parametrize("damage", [{"of": "b"}, {"version": 2}, {"seen": {"mean": "%"}}])
def test_what_others_learnt_or_wrote_is_left(damage: dict[str, Any]) -> None:
    first = usual()
    watch_red(first, DUE)
    saved = first.state("cam")
    assert saved is not None
    second = usual()
    second.restore("cam", saved | damage)
    assert second.state("cam") is None


def test_of_a_stream_that_is_gone_nothing_is_kept() -> None:
    watched = usual()
    watch_red(watched, DUE)
    watched.forget("cam")
    assert watched.state("cam") is None
    assert watched.lead("cam", a_set("red")) is None


def test_what_a_trained_sense_answers_is_not_taken_away() -> None:
    prompts, watched = a_set("red"), usual()
    prompts.bridge_shares["seen"][0] = 0.25
    watch_red(watched, DUE)
    part = watched.lead("cam", prompts)
    whole = watched.lead("cam", a_set("red"))
    assert part is not None
    assert whole is not None
    assert part.seen[0] == pytest.approx(whole.seen[0] / 4)
