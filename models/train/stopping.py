"""After how many epochs a net is trained enough, told from groups of recordings that are held back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.learned import AttentionNet
from models.train.loop import Examples, Recipe, Report, loss_of, train


@dataclass(frozen=True, slots=True)
class Stopped:
    """How many epochs are enough.

    Attributes:
        epochs: The best epoch by the mean over what was held out.
        curves: By part: epoch, loss and score, each epoch.
    """

    epochs: int
    curves: Mapping[str, Sequence[tuple[int, float, float]]]


def enough_epochs(
    examples: Examples,
    parts: Mapping[str, NDArray[np.bool_]],
    phrasings: Tensor,
    ordinary: Tensor,
    recipe: Recipe,
    report: Report = lambda *_: None,
    checkpoints: Path | None = None,
) -> Stopped:
    """Stop early: hold parts back in turn and look after how many epochs what was held back is told best.

    Args:
        examples: To train on; whoever is to be judged later is not among them.
        parts: By name, bool ``(N,)``: what is held back, whole groups of recordings each.
        phrasings: See `train`.
        ordinary: See `train`.
        recipe: Its ``patience`` is how many epochs no better than the best so far end the look.
        report: Told of each epoch.
        checkpoints: Folder for what is under way, so that a run that was cut off goes on.
    """
    if checkpoints is not None:
        checkpoints.mkdir(parents=True, exist_ok=True)
    curves = {}
    for name, held in parts.items():
        own, others = torch.from_numpy(held), torch.from_numpy(~held)
        checkpoint = None if checkpoints is None else checkpoints / f"{name}.pt"
        judge = judge_loss(examples.of(own), phrasings, ordinary)
        curves[name] = train(
            examples.of(others), phrasings, ordinary, recipe, judge, report, checkpoint=checkpoint
        ).curve
    shortest = min(len(curve) for curve in curves.values())
    scores = np.mean([[score for _, _, score in curve[:shortest]] for curve in curves.values()], axis=0)
    return Stopped(int(scores.argmax()) + 1, curves)


def judge_loss(held_out: Examples, phrasings: Tensor, ordinary: Tensor) -> Callable[[AttentionNet], float]:
    """Score nets by the weighted log loss of examples, negated: finer than a ranking that is nearly right already."""

    @torch.inference_mode()
    def judge(net: AttentionNet) -> float:
        total = 0.0
        plain = Recipe(contrast=0.0, place=0.0, blur=0.0)
        for rows in torch.arange(len(held_out.labels)).split(512):  # type: ignore[no-untyped-call]  # torch has no type for it
            part = held_out.of(rows)
            loss = loss_of(net, part, phrasings, ordinary, plain, torch.zeros(()))
            total += float(loss) * float(part.weights.sum())
        return -total / float(held_out.weights.sum())

    return judge
