"""The training loop: that it can be cut off, stops in time, and shows what it did."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.train.curves import write_curves
from models.train.loop import Examples, Recipe, train
from models.train.stopping import enough_epochs, judge_loss

RECIPE = Recipe(net={"width": 8, "heads": 2, "layers": 1, "dropout": 0.2}, epochs=6, batch=16, rate=0.01, patience=6)
PROMPTS = torch.eye(5)[:2], torch.eye(5)[2:]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As `watchword train` does: sums of several threads come in another order each time, and wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def examples(count: int, *, noise: float = 0.0) -> Examples:
    """One token in four tells, but for so many labels that are wrong."""
    torch.manual_seed(3)
    tokens = torch.randn(count, 4, 6)
    labels = (torch.arange(count) % 2).float()
    tokens[labels > 0, 1, 0] += 4
    labels = torch.where(torch.rand(count) < noise, 1 - labels, labels)
    ones = torch.ones(count)
    return Examples(tokens, tokens.mean(1), labels, ones, torch.arange(count), torch.zeros(count, 4))


def state_of(net: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in net.state_dict().values()]


@pytest.mark.parametrize("is_judged", [False, True])
def test_a_training_that_was_cut_off_comes_to_the_same_net(tmp_path: Path, is_judged: bool) -> None:
    data, checkpoint = examples(64), tmp_path / "run.pt"
    judge = judge_loss(examples(32), *PROMPTS) if is_judged else None
    whole = train(data, *PROMPTS, RECIPE, judge)

    def stop(_told: str, epoch: int, _total: int) -> None:
        if epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, *PROMPTS, RECIPE, judge, stop, checkpoint=checkpoint)
    assert checkpoint.is_file()
    torch.manual_seed(99)  # whatever else the process drew in between
    told: list[int] = []
    again = train(data, *PROMPTS, RECIPE, judge, lambda _, epoch, __: told.append(epoch), checkpoint=checkpoint)
    assert told[0] == 4  # the third was the last that was kept
    assert all(torch.equal(one, other) for one, other in zip(state_of(whole.net), state_of(again.net), strict=True))
    assert whole.epoch == again.epoch
    assert [row[:2] for row in whole.curve] == [row[:2] for row in again.curve]
    assert not checkpoint.exists()


def test_the_best_epoch_is_kept_and_patience_ends_the_run() -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    states = []

    def judge(net: torch.nn.Module) -> float:
        states.append(state_of(net))
        return next(scores)

    recipe = Recipe(net=RECIPE.net, epochs=6, batch=16, rate=0.01, patience=2)
    trained = train(examples(64), *PROMPTS, recipe, judge)
    assert trained.epoch == 2
    assert len(trained.curve) == 4
    assert all(torch.equal(one, other) for one, other in zip(state_of(trained.net), states[1], strict=True))


def test_labels_that_are_noise_are_given_up_early_and_clear_ones_are_not() -> None:
    recipe = Recipe(
        net={"width": 16, "heads": 2, "layers": 1, "dropout": 0.0}, epochs=14, batch=8, rate=0.02, patience=14
    )
    epochs = []
    for noise in (0.0, 0.5):
        data = examples(96, noise=noise)
        held: NDArray[np.bool_] = np.arange(96) % 3 == 0
        told = enough_epochs(data, {"a": held, "b": np.roll(held, 1)}, *PROMPTS, recipe)
        assert set(told.curves) == {"a", "b"}
        epochs.append(told.epochs)
    assert epochs[1] < epochs[0]


def test_curves_are_a_table_and_a_picture(tmp_path: Path) -> None:
    curves = {"first": [(1, 0.7, -0.9), (2, 0.5, -0.6)], "second": [(1, 0.4, math.nan)]}
    write_curves(tmp_path / "curves.csv", curves)
    with (tmp_path / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["first", "first", "second"]
    assert rows[0]["held_out"] == "-0.9"
    assert not rows[2]["held_out"]
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture is not None
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2
