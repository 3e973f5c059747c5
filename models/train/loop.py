"""The training loop of the learned senses: prompts and normal descriptions against tokens."""

import copy
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.learned import AttentionNet
from models.train.folds import area_under_roc

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """What a sense is trained on.

    Attributes:
        tokens: ``(N, S, D)``, half or single precision.
        whole: ``(N, D)``.
        labels: float32 ``(N,)``, 1 where the kind holds.
        weights: float32 ``(N,)``: how much each counts.
        item: int64 ``(N,)``, the file that each is from.
        inside: float32 ``(N, S)``, how much of the kind each token is known to cover; all 0: not known.
    """

    tokens: Tensor
    whole: Tensor
    labels: Tensor
    weights: Tensor
    item: Tensor
    inside: Tensor

    def of(self, rows: Tensor) -> "Examples":
        """Some of them."""
        parts = (self.tokens, self.whole, self.labels, self.weights, self.item, self.inside)
        return Examples(*(part[rows] for part in parts))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a sense is trained.

    Attributes:
        net: Arguments of `AttentionNet` but for the lengths.
        epochs: At most.
        batch: Examples a step.
        rate: Of learning, at its height.
        decay: Of weights.
        contrast: Weight of the contrastive term.
        place: Weight of the term for attention where the kind is known to be.
        blur: Deviation of the noise on prompts: phrasings that nobody wrote down.
        noise: Deviation of the noise on tokens, of each number's own deviation.
        patience: Epochs without a better score until it stops.
        seed: Of everything.
    """

    net: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 30
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    contrast: float = 0.3
    place: float = 0.2
    blur: float = 0.02
    noise: float = 0.0
    patience: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came out.

    Attributes:
        net: In evaluation mode, its best epoch.
        epoch: That epoch.
        curve: Epoch, training loss and score on what was held out, each epoch.
    """

    net: AttentionNet
    epoch: int
    curve: tuple[tuple[int, float, float], ...]


def train(
    examples: Examples,
    phrasings: Tensor,
    ordinary: Tensor,
    recipe: Recipe,
    judge: Callable[[AttentionNet], float] | None = None,
    report: Report = lambda *_: None,
) -> Trained:
    """Train one net.

    Args:
        examples: Of the kind and of anything else.
        phrasings: float32 ``(p, Q)``, prompts that ask for the kind.
        ordinary: float32 ``(o, Q)``, descriptions of what is not of it.
        recipe: How.
        judge: Scores a net on what was held out, higher is better; the best epoch is kept, and training stops where it
            no longer gets better. None: the last epoch.
        report: Told of each epoch.
    """
    torch.manual_seed(recipe.seed)
    net = AttentionNet(examples.tokens.shape[-1], phrasings.shape[-1], **recipe.net)  # type: ignore[arg-type]  # whole numbers
    _start_at_scale(net, examples)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    steps = recipe.epochs * -(-len(examples.labels) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps)
    spread = examples.tokens[: 20 * recipe.batch].float().std((0, 1)) * recipe.noise
    best, kept, kept_epoch, curve = float("-inf"), copy.deepcopy(net.state_dict()), 0, []
    for epoch in range(1, recipe.epochs + 1):
        net.train()
        losses = []
        for rows in torch.randperm(len(examples.labels)).split(recipe.batch):  # type: ignore[no-untyped-call]  # torch has no type for it
            loss = _loss(net, examples.of(rows), phrasings, ordinary, recipe, spread)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        net.eval()
        score = judge(net) if judge else -float(np.mean(losses))
        curve.append((epoch, float(np.mean(losses)), score))
        report(
            f"loss {curve[-1][1]:.3f}, held out {score:.3f}" if judge else f"loss {curve[-1][1]:.3f}",
            epoch,
            recipe.epochs,
        )
        if judge is None or score > best:
            best, kept, kept_epoch = score, copy.deepcopy(net.state_dict()), epoch
        elif epoch - kept_epoch >= recipe.patience:
            break
    net.load_state_dict(kept)
    return Trained(net.eval(), kept_epoch, tuple(curve))


def _loss(
    net: AttentionNet, batch: Examples, phrasings: Tensor, ordinary: Tensor, recipe: Recipe, spread: Tensor
) -> Tensor:
    tokens = batch.tokens.float()
    if recipe.noise:
        tokens = tokens + torch.randn_like(tokens) * spread
    queries = torch.cat((phrasings, ordinary))
    queries = functional.normalize(queries + recipe.blur * torch.randn_like(queries), dim=-1)
    logits, attention = net(tokens, batch.whole.float(), queries)
    asks = torch.zeros(len(queries))
    asks[: len(phrasings)] = 1
    holds = batch.labels[:, None]
    truth = holds * asks + (1 - holds) * (1 - asks)
    weights = batch.weights / batch.weights.sum()
    # Either half of the prompts counts as much, however many there are.
    shares = asks / len(phrasings) + (1 - asks) / max(1, len(ordinary))
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    loss = (entropy * shares * weights[:, None]).sum()
    # The prompts that are right share the softmax over all prompts of the batch.
    among = logits.log_softmax(1)
    right = torch.logsumexp(among.masked_fill(truth < 0.5, float("-inf")), 1)
    loss = loss - recipe.contrast * (right * weights).sum()
    known = batch.inside.sum(1) > 0
    if recipe.place and known.any():
        mass = (attention[known][:, : len(phrasings)] * batch.inside[known][:, None]).sum(-1)
        placed: Tensor = mass.clamp_min(1e-4).log().mean() * known.float().mean()
        loss = loss - recipe.place * placed
    return loss


@torch.no_grad()
def _start_at_scale(net: AttentionNet, examples: Examples) -> None:
    """Fold each number's mean and deviation into the first layer, so that all numbers of a token weigh alike."""
    sample = examples.tokens[:: max(1, len(examples.tokens) // 2000)].float().flatten(0, 1)
    mean, deviation = sample.mean(0), sample.std(0).clamp_min(1e-4)
    net.token.weight.div_(deviation)
    net.token.bias.sub_(net.token.weight @ mean)


def frame_logits(net: AttentionNet, tokens: Tensor, whole: Tensor, queries: Tensor) -> NDArray[np.float64]:
    """Mean logit over queries of each example, ``(N,)``."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(tokens), 256):
            logits, _ = net(tokens[start : start + 256].float(), whole[start : start + 256].float(), queries)
            parts.append(logits.mean(1))
    return torch.cat(parts).double().numpy()


def by_item(scores: NDArray[np.float64], item: NDArray[np.int64], items: Sequence[int]) -> NDArray[np.float64]:
    """The highest score of each of some files."""
    return np.array([scores[item == number].max() for number in items])


def judge_on(held_out: Examples, queries: Tensor) -> Callable[[AttentionNet], float]:
    """Score nets by the area under the curve over the files of some examples."""
    item = held_out.item.numpy()
    items = sorted(set(item.tolist()))
    truth = np.array([bool(held_out.labels[held_out.item == number].max()) for number in items])

    def judge(net: AttentionNet) -> float:
        scores = frame_logits(net, held_out.tokens, held_out.whole, queries)
        return area_under_roc(truth, by_item(scores, item, items))

    return judge


def write_curves(path: Path, curves: Mapping[str, Sequence[tuple[int, float, float]]]) -> None:
    """Write curves as CSV, and as PNG beside it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("run", "epoch", "loss", "held_out"))
        writer.writerows((name, *row) for name, curve in curves.items() for row in curve)
    draw_curves(path.with_suffix(".png"), curves)


def draw_curves(path: Path, curves: Mapping[str, Sequence[tuple[int, float, float]]]) -> None:
    """Losses over epochs, one line a run."""
    import cv2

    width, height, margin = 640, 360, 40
    canvas = np.full((height, width, 3), 255, np.uint8)
    epochs = max((row[0] for curve in curves.values() for row in curve), default=1)
    top = max((row[1] for curve in curves.values() for row in curve), default=1.0)
    for number, (name, curve) in enumerate(curves.items()):
        hue = cv2.cvtColor(np.array([[[number * 41 % 180, 200, 170]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
        colour = tuple(int(value) for value in hue)
        points = [
            (
                margin + round(epoch / epochs * (width - 2 * margin)),
                height - margin - round(loss / top * (height - 2 * margin)),
            )
            for epoch, loss, _ in curve
        ]
        cv2.polylines(canvas, [np.array(points, np.int32)], False, colour, 1, cv2.LINE_AA)
        cv2.putText(
            canvas, name, (width - 170, margin + 14 * number), cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, 1, cv2.LINE_AA
        )
    cv2.putText(
        canvas,
        f"loss, 0 to {top:.2f}, over {epochs} epochs",
        (margin, 20),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.45,
        (0, 0, 0),
        1,
        cv2.LINE_AA,
    )
    cv2.imwrite(str(path), canvas)
