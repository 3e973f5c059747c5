"""`watchword train`: what is seen and what moves, from labelled files to a weight file.

watchword train --manifest M --root R --cache DIR --out models/weights/learned.safetensors
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.calibrate import fit_platt
from models.encoders import PictureEncoder, TextEncoder
from models.evaluate.media import read_picture
from models.heard import KindHeads
from models.learned import Gate, LearnedSense, fit_gate, save_senses
from models.train.collage import cells_inside, paste
from models.train.curves import Curve, write_curves
from models.train.features import FeatureCache, frames_on_grid
from models.train.folds import area_under_roc, average_precision, grouped_folds
from models.train.kinds import EVERYDAY, FIGHT, FIRE, ORDINARY, Kind
from models.train.linear import fit_linear
from models.train.loop import Examples, Recipe, Report, Trained, frame_logits, train
from models.train.stopping import enough_epochs
from models.train.token_cache import Case

FOLDS = 5
INNER, INNER_OF = 2, 4  # of what a fold trains on, so many quarters are held back in turn to see when it is enough
SEEN = Recipe(net={"width": 48, "heads": 4, "layers": 1, "dropout": 0.3}, epochs=16, patience=5, batch=128, decay=0.1)
LOOSENESS = 0.003  # of the ridge of what moves
EVERY = 4  # of a video's frames, one in so many trains: neighbours are alike
COLLAGES = 500
# One file in so many shows the kind, as the curves reckon it; on a street it is far fewer, in the training files more.
# Out of fold, 0.3 lets 7 % of hard negatives of fights past 0.5 and 44 % of fights; 0.1 lets 1 % and 11 %.
PREVALENCE = {"fire": 0.1, "fight": 0.3}


@dataclass(frozen=True, slots=True)
class Sources:
    """What is trained on.

    Attributes:
        cases: Licensed files of the split ``train``.
        root: Folder of the files.
        cache: Features of them.
        encoder: Of pictures.
        text: Of prompts.
        cameras: How many more copies of each file, each through a camera of its own.
        collages: How many photos are put into scenes.
        seen: How what is seen is trained.
    """

    cases: Sequence[Case]
    root: Path
    cache: FeatureCache
    encoder: PictureEncoder
    text: TextEncoder
    cameras: int
    collages: int = COLLAGES
    seen: Recipe = SEEN

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Prompts as float32 ``(n, Q)``."""
        return torch.from_numpy(self.text.encode(list(texts)))


def seen_examples(sources: Sources, kind: Kind, report: Report) -> tuple[Examples, list[Case]]:
    """Cells of photos, of video frames, and of photos in video frames."""
    cases = [case for case in sources.cases if case.kind in {"image", "video"}]
    parts: list[Examples] = []
    total = len(cases) * (sources.cameras + 1)
    for camera in range(sources.cameras + 1):
        for number, case in enumerate(cases):
            report(f"looking at {case.path}", camera * len(cases) + number, total)
            filmed = sources.cache.seen(case.path, case.kind, camera)
            rows = np.arange(camera % EVERY, len(filmed.cells), EVERY) if case.kind == "video" else np.arange(1)
            rows = rows if len(rows) else np.arange(1)
            parts.append(_examples(filmed.cells[rows], filmed.whole[rows], kind.label in case.labels, number))
    parts.append(_collages(sources, cases, kind, report))
    return _balanced(_joined(parts), cases), cases


def _examples(
    cells: NDArray[Any],
    whole: NDArray[Any],
    holds: bool,
    number: int,  # a label
) -> Examples:
    count = len(cells)
    return Examples(
        torch.from_numpy(cells),
        torch.from_numpy(whole),
        torch.full((count,), float(holds)),
        torch.full((count,), 1.0 / count),
        torch.full((count,), number, dtype=torch.int64),
        torch.zeros(cells.shape[:2]),
    )


def _joined(parts: Sequence[Examples]) -> Examples:
    names = ("tokens", "whole", "labels", "weights", "item", "inside")
    return Examples(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _balanced(examples: Examples, cases: Sequence[Case]) -> Examples:
    """Weigh so that positives, ordinary photos and ordinary video each have a third: the last matter most in use."""
    is_video = torch.tensor([cases[number].kind == "video" for number in examples.item.tolist()])
    holds = examples.labels > 0
    weights = examples.weights.clone()
    for chosen in (holds, ~holds & is_video, ~holds & ~is_video):
        if chosen.any():
            weights[chosen] /= weights[chosen].sum()
    return replace(examples, weights=weights * len(weights))


def _collages(sources: Sources, cases: Sequence[Case], kind: Kind, report: Report) -> Examples:
    """Photos of the kind and of other things in frames that do not show it, half of each."""
    kept = sources.cache.folder / f"collages-{kind.label}-{sources.collages}.npz"
    digest = json.dumps([case.path for case in cases])
    if kept.exists():
        with np.load(kept) as arrays:
            if str(arrays["of"]) == digest:
                return _collage_examples(*(arrays[name] for name in ("cells", "whole", "labels", "item", "inside")))
    random = np.random.default_rng(0)
    scenes = [number for number, case in enumerate(cases) if case.kind == "video" and kind.label not in case.labels]
    photos = [number for number, case in enumerate(cases) if case.kind == "image"]
    groups = (
        [n for n in photos if kind.label in cases[n].labels],
        [n for n in photos if kind.label not in cases[n].labels],
    )
    if not scenes or not all(groups):
        return _examples(
            np.zeros((0, *_grid_shape(sources)), np.float16), np.zeros((0, sources.encoder.dim), np.float16), False, 0
        )
    side_px = sources.encoder.size
    pixels, labels, item, inside = [], [], [], []
    for made in range(sources.collages):
        report("putting photos into scenes", made, sources.collages)
        holds = made % 2 == 0
        scene = cases[scenes[int(random.integers(len(scenes)))]]
        number = groups[0 if holds else 1][int(random.integers(len(groups[0 if holds else 1])))]
        frames = frames_on_grid(sources.root / scene.path, side_px)
        photo = read_picture(sources.root / cases[number].path, side_px)[0]
        collage = paste(frames[int(random.integers(len(frames)))], photo, random)
        pixels.append(collage.pixels)
        labels.append(holds)
        item.append(number)
        inside.append(cells_inside(collage.box, sources.encoder.grid))
    tokens = [sources.encoder.encode(np.stack(pixels[start : start + 32])) for start in range(0, sources.collages, 32)]
    cells = torch.cat([part.cells for part in tokens]).cpu().numpy().astype(np.float16)
    whole = torch.cat([part.whole for part in tokens]).cpu().numpy().astype(np.float16)
    arrays = {
        "cells": cells,
        "whole": whole,
        "labels": np.array(labels),
        "item": np.array(item),
        "inside": np.stack(inside),
    }
    np.savez(kept, of=np.array(digest), **arrays)
    return _collage_examples(cells, whole, arrays["labels"], arrays["item"], arrays["inside"])


def _collage_examples(
    cells: NDArray[Any],
    whole: NDArray[Any],
    labels: NDArray[np.bool_],
    item: NDArray[np.int64],
    inside: NDArray[np.float32],
) -> Examples:
    holds = torch.from_numpy(labels.astype(np.float32))
    return Examples(
        torch.from_numpy(cells),
        torch.from_numpy(whole),
        holds,
        torch.full((len(cells),), 0.5),
        torch.from_numpy(item),
        torch.from_numpy(inside) * holds[:, None],
    )


def _grid_shape(sources: Sources) -> tuple[int, int]:
    rows, columns = sources.encoder.grid
    return rows * columns, sources.encoder.dim


def moved_examples(sources: Sources, kind: Kind, report: Report) -> tuple[Examples, list[Case]]:
    """Motion tokens of every stretch of every video that is long enough."""
    cases = [case for case in sources.cases if case.kind == "video"]
    parts: list[Examples] = []
    total = len(cases) * (sources.cameras + 1)
    for camera in range(sources.cameras + 1):
        for number, case in enumerate(cases):
            report(f"watching {case.path}", camera * len(cases) + number, total)
            tokens = sources.cache.moved(case.path, camera)
            if len(tokens):
                own = _examples(tokens[:, None], tokens, kind.label in case.labels, number)
                parts.append(replace(own, inside=torch.full((len(tokens), 1), float(camera))))  # copies are told by it
    examples = _joined(parts)
    holds = examples.labels > 0
    weights = examples.weights.clone()
    for chosen in (holds, ~holds):
        weights[chosen] /= weights[chosen].sum().clamp_min(1e-9)
    return replace(examples, weights=weights * len(weights)), cases


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Cross-validation of a recipe.

    Attributes:
        scores: float64 ``(C,)``, each file's out-of-fold logit; NaN for those without one.
        truth: bool ``(C,)``.
        epochs: How many were enough in each fold.
        curves: Of each fold.
    """

    scores: NDArray[np.float64]
    truth: NDArray[np.bool_]
    epochs: tuple[int, ...]
    curves: Mapping[str, Curve]


def cross_validate(
    examples: Examples,
    cases: Sequence[Case],
    kind: Kind,
    prompts: tuple[Tensor, Tensor],
    recipe: Recipe,
    pool: Callable[[NDArray[np.float64]], float],
    report: Report,
    done: Path,
) -> Checked:
    """Score every file with a net that saw nothing of its group. Folds that are done are not done again.

    Args:
        examples: Of the files.
        cases: The files.
        kind: Trained for.
        prompts: Phrasings and ordinary descriptions.
        recipe: How.
        pool: A file's score from those of its examples as they are: the worker's way.
        report: Told of progress.
        done: Folder for folds that are done.
    """
    truth = np.array([kind.label in case.labels for case in cases])
    fold = grouped_folds(truth, [case.group for case in cases], FOLDS, recipe.seed)
    item = examples.item.numpy()
    scores = np.full(len(cases), np.nan)
    epochs: list[int] = []
    curves: dict[str, Curve] = {}
    key = _key(recipe, cases, examples, kind)
    for number in range(FOLDS):
        kept = done / f"fold-{kind.label}-{key}-{number}.npz"
        mine = np.flatnonzero(fold == number)
        if not kept.exists():
            own, others = np.isin(item, mine), ~np.isin(item, mine)
            told = _within(report, f"{kind.label} fold {number}")
            rest = examples.of(torch.from_numpy(others))
            enough = enough_epochs(
                rest, _inner(rest, truth, cases, recipe), *prompts, recipe, told, kept.with_suffix("")
            )
            trained = train(
                rest, *prompts, recipe, None, told, stop_after=enough.epochs, checkpoint=kept.with_suffix(".pt")
            )
            found = _file_scores(trained, examples.of(torch.from_numpy(own)), mine, prompts[0], pool)
            looks = {f"look {name}": np.array(curve) for name, curve in enough.curves.items()}
            parts = {"scores": found, "epoch": np.array(trained.epoch), "curve": np.array(trained.curve), **looks}
            np.savez(kept, allow_pickle=False, **parts)
        with np.load(kept) as arrays:
            scores[mine] = arrays["scores"]
            epochs.append(int(arrays["epoch"]))
            for part in arrays.files:
                if part == "curve" or part.startswith("look "):
                    name = f"{kind.label} fold {number} {part.removeprefix('curve')}".rstrip()
                    curves[name] = [tuple(row) for row in arrays[part].tolist()]
    return Checked(scores, truth, tuple(epochs), curves)


def _key(recipe: Recipe, cases: Sequence[Case], examples: Examples, kind: Kind) -> str:
    """What a training depends on: what is kept of another one is not gone on from."""
    told = f"2 {asdict(recipe)} {[case.path for case in cases]} {len(examples.labels)} {kind}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _inner(
    examples: Examples, truth: NDArray[np.bool_], cases: Sequence[Case], recipe: Recipe
) -> dict[str, NDArray[np.bool_]]:
    """Parts of what a fold trains on, whole groups each, by name."""
    item = examples.item.numpy()
    files = np.unique(item)
    fold = grouped_folds(truth[files], [cases[number].group for number in files], INNER_OF, recipe.seed)
    return {str(number): np.isin(item, files[fold == number]) for number in range(INNER)}


def check_linear(examples: Examples, cases: Sequence[Case], kind: Kind) -> Checked:
    """The same for a linear model of one token an example; quick, so nothing is kept. Copies only train."""
    truth = np.array([kind.label in case.labels for case in cases])
    item, is_first = examples.item.numpy(), examples.inside[:, 0].numpy() == 0
    scores = np.zeros((2, len(cases)))
    for seed in (0, 1):
        fold = grouped_folds(truth, [case.group for case in cases], FOLDS, seed)
        for number in range(FOLDS):
            own = fold[item] == number
            slope, bias = _linear(examples.of(torch.from_numpy(~own)))
            logits = (examples.tokens[:, 0].float() @ slope + bias).double().numpy()
            for place in np.flatnonzero(fold == number):
                mine = (item == place) & is_first
                scores[seed, place] = _best_window(logits[mine]) if mine.any() else np.nan
    return Checked(scores.mean(0), truth, (), {})


def _linear(examples: Examples) -> tuple[Tensor, Tensor]:
    return fit_linear(examples.tokens[:, 0], examples.labels, examples.weights, LOOSENESS)


def _linear_net(examples: Examples, phrasings: Tensor) -> KindHeads:
    net = KindHeads(examples.tokens.shape[-1], phrasings.shape[-1], 1)
    slope, bias = _linear(examples)
    with torch.no_grad():
        net.head.weight[0], net.head.bias[0] = slope, bias
        net.keys[0] = functional.normalize(phrasings.mean(0), dim=0)
    return net.eval()


def _within(report: Report, name: str) -> Report:
    return lambda last, done, total: report(f"{name}: {last}", done, total)


def _file_scores(
    trained: Trained,
    examples: Examples,
    files: NDArray[np.intp],
    phrasings: Tensor,
    pool: Callable[[NDArray[np.float64]], float],
) -> NDArray[np.float64]:
    logits = frame_logits(trained.net, examples.tokens, examples.whole, phrasings)
    item = examples.item.numpy()
    return np.array([pool(logits[item == number]) if (item == number).any() else np.nan for number in files])


def fit_curve(checked: Checked, is_video: NDArray[np.bool_], prevalence: float) -> Tensor:
    """Platt's curve over out-of-fold scores of files, as if so many of what a camera shows were of the kind."""
    known = ~np.isnan(checked.scores)
    truth = checked.truth[known]
    share = truth.mean()
    weights = np.where(truth, prevalence / share, (1 - prevalence) / (1 - share))
    # Ordinary video is what a camera sees; photos of other things are there to learn from.
    ordinary_photo = ~truth & ~is_video[known]
    if (~truth & is_video[known]).any():
        weights[ordinary_photo] *= 0.25
    weights *= len(weights) / weights.sum()
    slope, bias = fit_platt(checked.scores[known], truth.astype(np.float64), weights)
    return torch.tensor([[slope, bias]], dtype=torch.float32)


def gate_for(kind: Kind, others: Sequence[Kind], sources: Sources) -> Gate:
    """Who is routed to a kind: its phrasings, against everything else that is written down here."""
    alien = [*kind.others, *EVERYDAY, *ORDINARY]
    for other in others:
        alien += [text for text in (*other.phrasings, *other.others) if text not in kind.phrasings]
    aliens = sources.vectors([text for text in dict.fromkeys(alien) if text not in kind.phrasings])
    return fit_gate([kind.label], [sources.vectors(kind.phrasings)], aliens)


def _best_frame(logits: NDArray[np.float64]) -> float:
    return float(logits.max())


def _best_window(logits: NDArray[np.float64]) -> float:
    """The best two stretches in a row, as a window has them."""
    pairs = (logits[1:] + logits[:-1]) / 2
    return float(pairs.max()) if len(pairs) else float(logits.max())


def train_seen(
    sources: Sources, done: Path, report: Report
) -> tuple[LearnedSense, dict[str, object], dict[str, Curve]]:
    """Cross-validate, calibrate on what that scores, and train on everything.

    Args:
        sources: What is trained on.
        done: Folder for what is done, so that a run that was cut off goes on.
        report: Told of progress.

    Returns:
        The sense, its figures, and its curves.
    """
    examples, cases = seen_examples(sources, FIRE, report)
    prompts = sources.vectors(FIRE.phrasings), sources.vectors(ORDINARY)
    checked = cross_validate(examples, cases, FIRE, prompts, sources.seen, _best_frame, report, done)
    enough = round(float(np.median(checked.epochs)))
    kept = done / f"all-{FIRE.label}-{_key(sources.seen, cases, examples, FIRE)}-{enough}.pt"
    trained = train(
        examples, *prompts, sources.seen, None, _within(report, FIRE.label), stop_after=enough, checkpoint=kept
    )
    shape = {"token_dim": examples.tokens.shape[-1], "query_dim": prompts[0].shape[-1], **sources.seen.net}
    sense, figures = _finished("seen", FIRE, FIGHT, sources, cases, checked, trained.net, shape)
    return sense, figures, {**checked.curves, f"{FIRE.label} all": trained.curve}


def train_moved(sources: Sources, report: Report) -> tuple[LearnedSense, dict[str, object]]:
    """The same for what moves: a linear model, fitted exactly."""
    examples, cases = moved_examples(sources, FIGHT, report)
    checked = check_linear(examples, cases, FIGHT)
    phrasings = sources.vectors(FIGHT.phrasings)
    net = _linear_net(examples, phrasings)
    shape = {"token_dim": examples.tokens.shape[-1], "query_dim": phrasings.shape[-1], "kinds": 1}
    return _finished("moved", FIGHT, FIRE, sources, cases, checked, net, shape)


def _finished(
    name: str,
    kind: Kind,
    other: Kind,
    sources: Sources,
    cases: Sequence[Case],
    checked: Checked,
    net: nn.Module,
    shape: Mapping[str, float],
) -> tuple[LearnedSense, dict[str, object]]:
    is_video = np.array([case.kind == "video" for case in cases])
    curves = fit_curve(checked, is_video, PREVALENCE[kind.label])
    known = ~np.isnan(checked.scores)
    figures: dict[str, object] = {
        "files": len(cases),
        "positives": int(checked.truth.sum()),
        "cv_auc": round(area_under_roc(checked.truth[known], checked.scores[known]), 4),
        "cv_ap": round(average_precision(checked.truth[known], checked.scores[known]), 4),
    }
    note = {"files": str(len(cases)), "cross-validated AUC": str(figures["cv_auc"])}
    return LearnedSense(name, gate_for(kind, [other], sources), net, curves, shape, note), figures


def train_pictures(
    sources: Sources, out: Path, names: Sequence[str] = ("seen", "moved"), report: Report = lambda *_: None
) -> dict[str, object]:
    """Train senses, write them into a weight file, and their curves beside it.

    Args:
        sources: What is trained on.
        out: The weight file; senses of other names in it stay.
        names: Of `seen` and `moved`.
        report: Told of progress.

    Returns:
        Figures of grouped cross-validation, by sense.
    """
    torch.set_num_threads(1)  # sums of several threads come in another order each time
    out.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, object] = {}
    senses = {}
    if "seen" in names:
        senses["seen"], figures["seen"], curves = train_seen(sources, sources.cache.folder, report)
        write_curves(sources.cache.folder / "curves.csv", curves)
    if "moved" in names:
        senses["moved"], figures["moved"] = train_moved(sources, report)
    save_senses(out, senses, sources.encoder.name)
    return figures
