"""The training loop of the learned senses: prompts and normal descriptions against tokens."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.learned import AttentionNet

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
        epochs: At most; the learning rate falls to nothing over so many.
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
    *,
    stop_after: int | None = None,
    checkpoint: Path | None = None,
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
        stop_after: Train so many epochs of the recipe's alone, however many it has.
        checkpoint: A file that is written after each epoch and gone on from where it is there; gone once the net is
            trained. A run that was cut off comes to the same net, to the last bit.
    """
    torch.manual_seed(recipe.seed)
    net = AttentionNet(examples.tokens.shape[-1], phrasings.shape[-1], **recipe.net)  # type: ignore[arg-type]  # whole numbers
    _start_at_scale(net, examples)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    steps = recipe.epochs * -(-len(examples.labels) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps)
    spread = examples.tokens[: 20 * recipe.batch].float().std((0, 1)) * recipe.noise
    run = _Run(net, optimiser, schedule)
    if checkpoint is not None and checkpoint.exists():
        run.restore(checkpoint)
    last = min(recipe.epochs, stop_after or recipe.epochs)
    while run.epoch < last and not (judge and run.epoch - run.kept_epoch >= recipe.patience):
        loss = _pass(run, examples, phrasings, ordinary, recipe, spread)
        run.note(loss, judge(net) if judge else None)
        told = f"loss {loss:.3f}" + (f", held out {run.curve[-1][2]:.3f}" if judge else "")
        report(told, run.epoch, last)
        if checkpoint is not None:
            run.save(checkpoint)
    net.load_state_dict(run.kept)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Trained(net.eval(), run.kept_epoch, tuple(run.curve))


class _Run:
    """A training under way: everything that the next epoch depends on."""

    def __init__(
        self, net: AttentionNet, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> None:
        self.net, self.optimiser, self.schedule = net, optimiser, schedule
        self.epoch = self.kept_epoch = 0
        self.best = float("-inf")
        self.kept = copy.deepcopy(net.state_dict())
        self.curve: list[tuple[int, float, float]] = []

    def note(self, loss: float, score: float | None) -> None:
        """End an epoch; the best by its score is kept, without one the last."""
        self.epoch += 1
        self.curve.append((self.epoch, loss, math.nan if score is None else score))
        if score is None or score > self.best:
            self.best, self.kept_epoch = (self.best if score is None else score), self.epoch
            self.kept = copy.deepcopy(self.net.state_dict())

    def save(self, path: Path) -> None:
        """Write all of it, whole or not at all."""
        draft = path.with_suffix(".draft")
        torch.save(
            {
                "net": self.net.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": torch.get_rng_state(),
                "kept": self.kept,
                "at": [self.epoch, self.kept_epoch, self.best],
                "curve": [list(row) for row in self.curve],
            },
            draft,
        )
        draft.replace(path)

    def restore(self, path: Path) -> None:
        """Go on where `save` was."""
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        self.kept = state["kept"]
        self.epoch, self.kept_epoch, self.best = int(state["at"][0]), int(state["at"][1]), float(state["at"][2])
        self.curve = [(int(epoch), float(loss), float(score)) for epoch, loss, score in state["curve"]]


def _pass(run: _Run, examples: Examples, phrasings: Tensor, ordinary: Tensor, recipe: Recipe, spread: Tensor) -> float:
    """See every example once; gives the mean loss."""
    run.net.train()
    losses = []
    for rows in torch.randperm(len(examples.labels)).split(recipe.batch):  # type: ignore[no-untyped-call]  # torch has no type for it
        loss = loss_of(run.net, examples.of(rows), phrasings, ordinary, recipe, spread)
        run.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        run.optimiser.step()
        run.schedule.step()
        losses.append(float(loss.detach()))
    run.net.eval()
    return float(np.mean(losses))


def loss_of(
    net: AttentionNet, batch: Examples, phrasings: Tensor, ordinary: Tensor, recipe: Recipe, spread: Tensor
) -> Tensor:
    """What is minimised: entropy of each prompt, right prompts against the others, attention where the kind is."""
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
