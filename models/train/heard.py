"""Train the heads for kinds of sound: gunshot, explosion, siren, baby cry.

    watchword train --sense heard --manifest M --root R --cache DIR --corpus build/free-sound

Logistic heads over the sound encoder's tokens. Whole groups of recordings are held back in turn; the scores of what was
held back make the calibration. The prompts' side is made from `models/train/heard_texts.py` without training.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.audio import SOUND_SHA256, SoundText, load_sound_net
from models.audio import WEIGHTS as SOUND_WEIGHTS
from models.calibrate import fit_platt
from models.encoders import Encoders, SoundEncoder, TextEncoder
from models.heard import KindHeads, pool
from models.learned import Gate, LearnedSense, bend, save_senses
from models.train.curves import Curve, write_curves
from models.train.heard_bags import Bags, hear
from models.train.heard_scenes import made, scenes, voices_of
from models.train.heard_sounds import Recording, recordings, shouts
from models.train.heard_texts import KINDS, OTHERS
from models.train.sound_corpus import gather_all

# AudioSet classes that a kind is about, or that are too near to say what it is not.
OWN_CLASSES = (20, 316, 317, 318, 319, 390, 391, 420, 421, 422, 423, 424, 425)
# No camera hears drum kits, or footsteps of blocks; as negatives they are of use.
PERCUSSION = ("hydrogen-drumkits", "lmms-common", "minetest-data", "sonic-pi-samples")
NEAR, AHEAD = (0.28, 0.36), (0.0, 0.05)  # every phrasing and paraphrase of heard_texts.py lies above, others below


Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is made of.

    Attributes:
        views: Ways in which each clip with a kind is heard, the plain one among them.
        other_views: Likewise of clips and films without one.
        corpus_views: Likewise of each named sound of the corpus.
        ordinary_views: Likewise of each other sound of the corpus.
        made: Crowds, winds, engines and streets that are made up.
        ridge: On the heads' weights over standardised tokens.
        steps: Of the optimiser.
        folds: Groups of recordings are held back in so many parts.
        clip_share: Of the weight, that of clips against the corpus; of positives and of negatives.
        scene_share: Of the negatives' weight, that of what a camera hears all day.
        positive_share: Of the weight.
        prevalence: Share of each kind that the curves suppose: that among labelled sounds.
        alarms_per_hour: Of what is no percussion, as often at most may a kind that it is not reach even odds.
        seed: Of everything.
    """

    views: int = 9
    other_views: int = 5
    corpus_views: int = 7
    ordinary_views: int = 2
    made: int = 600
    ridge: float = 3e-4
    steps: int = 60
    folds: int = 5
    clip_share: float = 0.65
    scene_share: float = 0.4
    positive_share: float = 0.3
    prevalence: tuple[float, ...] = (0.15, 0.15, 0.15, 0.05)
    alarms_per_hour: float = 3.0
    seed: int = 2026


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Linear heads: weights ``(D, K)`` over plain tokens and biases ``(K,)``."""

    weights: torch.Tensor
    biases: torch.Tensor

    def __call__(self, bags: Bags) -> torch.Tensor:
        """Logits of bags, ``(B, K)``: each the best of its stretches."""
        return best(pool(bags.tokens @ self.weights + self.biases), bags.owner, len(bags))


def best(logits: torch.Tensor, owner: torch.Tensor, bags: int) -> torch.Tensor:
    """Maximum over each bag's stretches: ``(W, K)`` to ``(bags, K)``."""
    lowest = logits.new_full((bags, logits.shape[1]), float("-inf"))
    return lowest.scatter_reduce(0, owner[:, None].expand_as(logits), logits, "amax")


def _views(recording: Recording, recipe: Recipe) -> int:
    has_kind = bool(recording.labels & KINDS.keys())
    if recording.is_clip:
        return recipe.views if has_kind else recipe.other_views
    return recipe.corpus_views if has_kind else recipe.ordinary_views


def balance(bags: Bags, recipe: Recipe) -> torch.Tensor:
    """Weights ``(B, K)``, each column summing to ``B``: by what is heard and by where it comes from."""
    weights = torch.zeros_like(bags.labels)
    is_clip, is_scene = torch.from_numpy(bags.is_clip), torch.from_numpy(bags.is_scene)
    rest = (1 - recipe.scene_share) * torch.tensor([recipe.clip_share, 1 - recipe.clip_share])
    for column in range(weights.shape[1]):
        positive = bags.labels[:, column] > 0
        of_clip, of_corpus = float(rest[0]), float(rest[1])
        sides = (
            (recipe.positive_share, [(positive & is_clip, of_clip), (positive & ~is_clip, of_corpus)]),
            (
                1 - recipe.positive_share,
                [
                    (~positive & is_clip, of_clip),
                    (~positive & ~is_clip & ~is_scene, of_corpus),
                    (~positive & is_scene, recipe.scene_share),
                ],
            ),
        )
        for share, parts in sides:
            present = sum(part for rows, part in parts if rows.any())
            for rows, part in parts:
                if rows.any():
                    weights[rows, column] = share * part / present / rows.sum()
    return weights * len(bags)


def fit_heads(bags: Bags, recipe: Recipe) -> tuple[Heads, Curve]:
    """Minimise the weighted log loss of bags, with a ridge, by L-BFGS; gives the loss at each look, too.

    The loss is convex but for the choice of the best stretch, and the ridge does what stopping early would.
    """
    mean, deviation = bags.tokens.mean((0, 1)), bags.tokens.std((0, 1)).clamp_min(1e-4)
    tokens, owner = (bags.tokens - mean) / deviation, bags.owner
    importance, kinds = balance(bags, recipe), bags.labels.shape[1]
    weights = torch.zeros(tokens.shape[2], kinds, requires_grad=True)
    biases = torch.full((kinds,), -3.0, requires_grad=True)
    gain = 4 / tokens.shape[2] ** 0.5  # steps of like size for weights and biases
    optimizer = torch.optim.LBFGS(
        [weights, biases], max_iter=recipe.steps, history_size=10, line_search_fn="strong_wolfe"
    )
    looks: list[tuple[int, float, float]] = []

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = best(pool(tokens @ (weights * gain) + biases), owner, len(bags))
        surprise = functional.binary_cross_entropy_with_logits(logits, bags.labels, weight=importance)
        total: torch.Tensor = surprise + recipe.ridge * weights.square().sum() / kinds
        total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        looks.append((len(looks) + 1, float(total.detach()), math.nan))
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # nor for this
    plain = (weights * gain).detach() / deviation[:, None]
    return Heads(plain, biases.detach() - mean @ plain), looks


def fold_of(groups: NDArray[np.str_], labels: torch.Tensor, folds: int, seed: int) -> NDArray[np.int64]:
    """Deal whole groups to folds, those of a label evenly: ``(B,)`` to ``(B,)``."""
    random = np.random.default_rng(seed)
    fold: dict[str, int] = {}
    kinds = np.where(labels.any(1).numpy(), labels.argmax(1).numpy(), -1)
    for kind in np.unique(kinds):
        for group in random.permutation(np.unique(groups[kinds == kind])):
            fold.setdefault(str(group), len(fold) % folds)
    return np.array([fold[str(group)] for group in groups], np.int64)


def held_back_logits(
    bags: Bags, recipe: Recipe, done: Path | None = None, report: Report = lambda *_: None
) -> tuple[torch.Tensor, dict[str, Curve]]:
    """Logits of every bag by heads that heard nothing of its group, ``(B, K)``, and the losses of each fold.

    Args:
        bags: Of everything.
        recipe: How.
        done: Folder for folds that are done: they are not done again.
        report: Told of each fold.
    """
    folds = fold_of(bags.groups, bags.labels, recipe.folds, recipe.seed)
    logits = torch.zeros_like(bags.labels)
    curves: dict[str, Curve] = {}
    sample = bags.tokens[:: max(1, len(bags.tokens) // 500)].numpy().tobytes()
    key = hashlib.sha256(f"1 {asdict(recipe)} {len(bags)} {folds.tolist()}".encode() + sample).hexdigest()[:16]
    for fold in range(recipe.folds):
        report(f"heads without part {fold + 1}", fold, recipe.folds)
        held = folds == fold
        kept = None if done is None else done / f"heads-{key}-{fold}.npz"
        if kept is None or not kept.exists():
            heads, looks = fit_heads(bags.of(~held), recipe)
            found = heads(bags.of(held)).numpy()
            if kept is not None:
                draft = kept.with_suffix(".draft.npz")
                np.savez(draft, logits=found, looks=np.array(looks))
                draft.replace(kept)
        if kept is not None:
            with np.load(kept) as file:
                found, looks = file["logits"], [tuple(row) for row in file["looks"].tolist()]
        logits[torch.from_numpy(held)] = torch.from_numpy(found)
        curves[f"heard fold {fold}"] = looks
    return logits, curves


def fit_curves(logits: torch.Tensor, bags: Bags, recipe: Recipe) -> torch.Tensor:
    """Platt's slope and bias of each kind on what was held back, and from where on it is even odds: ``(K, 3)``.

    The curve is fitted to labelled sounds and their prevalence. Where ordinary sound would pass its half too often, the
    half is moved to where it does not, see `models.learned.bend`.
    """
    plain = torch.from_numpy(bags.is_plain)
    some = bags.of(bags.is_plain)
    chosen, importance, labels = logits[plain], balance(some, replace(recipe, scene_share=0.0)), some.labels
    ordinary = (labels.sum(1) == 0).numpy() & ~np.isin(some.groups, PERCUSSION)
    allowed = int(recipe.alarms_per_hour * some.seconds[ordinary].sum() / 3600)
    curves = torch.zeros(logits.shape[1], 3)
    for column in range(logits.shape[1]):
        weight, truth = importance[:, column].double().numpy().copy(), labels[:, column].double().numpy()
        prevalence = recipe.prevalence[column]
        weight[truth > 0] *= prevalence / recipe.positive_share
        weight[truth == 0] *= (1 - prevalence) / (1 - recipe.positive_share)
        slope, bias = fit_platt(chosen[:, column].double().numpy(), truth, weight)
        passing = (slope * chosen[torch.from_numpy(ordinary), column] + bias).sort(descending=True).values
        even = float(passing[min(allowed, len(passing) - 1)]) + 1e-3 if len(passing) else 0.0
        curves[column] = torch.tensor([slope, bias, max(0.0, even)])
    return curves


def make_gate(text: TextEncoder) -> Gate:
    """Who asks for which kind: phrasings, other texts, and AudioSet's other classes."""
    texts = [*(phrase for phrases in KINDS.values() for phrase in phrases), *OTHERS]
    vectors = torch.from_numpy(text.encode(texts))
    kind = [number for number, phrases in enumerate(KINDS.values()) for _ in phrases] + [-1] * len(OTHERS)
    if isinstance(text, SoundText):
        classes = load_sound_net(SOUND_WEIGHTS, SOUND_SHA256)[0].class_vectors
        rest = torch.ones(len(classes), dtype=torch.bool)
        rest[list(OWN_CLASSES)] = False
        vectors = torch.cat((vectors, functional.pad(classes[rest], (0, 1))))
    kind += [-1] * (len(vectors) - len(kind))
    return Gate(tuple(KINDS), vectors, torch.tensor(kind), NEAR, AHEAD)


def gather(manifest: Path, corpus: Path | None, recipe: Recipe) -> list[Recording]:
    """Everything that there is to learn from, in an order that the seed decides.

    Args:
        manifest: Its licensed rows of ``train`` are learnt from.
        corpus: Folder with `sounds` and `scenes`, as `models.train.sound_corpus` gathers them; None: neither.
        recipe: How much of it.
    """
    found = recordings(manifest, None if corpus is None else corpus / "sounds", np.random.default_rng(recipe.seed))
    if corpus is None:
        return found
    found += shouts(corpus / "sounds", np.random.default_rng(recipe.seed))
    found += scenes(corpus / "scenes", np.random.default_rng(recipe.seed))
    voices = voices_of(corpus / "sounds", np.random.default_rng(recipe.seed))
    return found + made(voices, recipe.made, np.random.default_rng(recipe.seed))


def train_heard(
    manifest: Path,
    sound: SoundEncoder,
    text: TextEncoder,
    *,
    corpus: Path | None,
    cache: Path,
    recipe: Recipe | None = None,
    report: Report = lambda *_: None,
) -> tuple[LearnedSense, dict[str, dict[str, float]], dict[str, Curve]]:
    """Train the ``heard`` sense.

    Args:
        manifest: CSV of labelled files; its licensed rows of ``train`` are learnt from.
        sound: Encoder.
        text: Of the same space.
        corpus: See `gather`; without it the heads know one source a kind.
        cache: Folder for encoded sounds and folds that are done: a run that was cut off goes on.
        recipe: None: the default.
        report: Told of progress.

    Returns:
        The sense, figures of what was held back, by kind, and the losses of each fit.
    """
    recipe = recipe or Recipe()
    torch.manual_seed(recipe.seed)
    found = gather(manifest, corpus, recipe)
    bags = hear(found, [_views(recording, recipe) for recording in found], sound, recipe.seed, cache, report)
    held_back, looks = held_back_logits(bags, recipe, cache, report)
    report("heads", recipe.folds, recipe.folds)
    heads, looks["heard all"] = fit_heads(bags, recipe)
    curves = fit_curves(held_back, bags, recipe)
    gate = make_gate(text)
    net = KindHeads(sound.dim, text.dim, len(KINDS)).eval()
    keys = torch.stack([gate.texts[gate.kind == number].mean(0) for number in range(len(KINDS))])
    with torch.no_grad():
        net.head.weight.copy_(heads.weights.T)
        net.head.bias.copy_(heads.biases)
        net.keys.copy_(functional.normalize(keys, dim=-1))
    note = {"recipe": json.dumps(asdict(recipe)), "recordings": str(len(found)), "encoder": sound.sha256}
    shape = {"token_dim": sound.dim, "query_dim": text.dim, "kinds": len(KINDS)}
    measured = figures(held_back, bags, curves)
    return LearnedSense("heard", gate, net, curves, shape, note), measured, looks


def figures(logits: torch.Tensor, bags: Bags, curves: torch.Tensor) -> dict[str, dict[str, float]]:
    """By kind, of what was held back as it was recorded.

    ``clips`` with it among the manifest's; ``roc_auc``, how often one of them beats another; ``recall`` of them at even
    odds; ``per_hour``, how often ordinary sound that is no percussion reaches even odds, and ``hours`` of it.
    """
    plain = torch.from_numpy(bags.is_plain)
    some, logits = bags.of(bags.is_plain), logits[plain]
    is_clip = torch.from_numpy(some.is_clip)
    ordinary = (some.labels.sum(1) == 0) & torch.from_numpy(~np.isin(some.groups, PERCUSSION))
    hours = float(some.seconds[ordinary.numpy()].sum()) / 3600
    odds = bend(logits * curves[:, 0] + curves[:, 1], curves[:, 2])
    result = {}
    for column, kind in enumerate(KINDS):
        yes, no = (logits[is_clip & (some.labels[:, column] == value), column] for value in (1.0, 0.0))
        wins = (yes[:, None] > no).double() + 0.5 * (yes[:, None] == no).double()
        holds = is_clip & (some.labels[:, column] > 0)
        result[kind] = {
            "clips": float(len(yes)),
            "roc_auc": round(float(wins.mean()), 4),
            "recall": round(float((odds[holds, column] >= 0).float().mean()), 3),
            "per_hour": round(float((odds[ordinary, column] >= 0).sum()) / hours, 2) if hours else math.nan,
            "hours": round(hours, 2),
        }
    return result


def train_sounds(
    manifest: Path, encoders: Encoders, out: Path, corpus: Path | None, cache: Path, report: Report = lambda *_: None
) -> dict[str, dict[str, float]]:
    """Gather free sounds where they are missing, train, and write the sense into a weight file and its curves beside.

    Args:
        manifest: Labelled files.
        encoders: Of sound and its text, and the picture's name, which weight files go by.
        out: The weight file; senses of other names in it stay.
        corpus: See `models.train.sound_corpus.gather_all`; None: none.
        cache: Folder for encoded sounds, folds that are done, and curves.
        report: Told of progress.

    Returns:
        See `figures`.
    """
    torch.set_num_threads(1)  # sums of several threads come in another order each time
    if corpus is not None:
        gather_all(corpus, manifest)
    sense, measured, looks = train_heard(
        manifest, encoders.sound, encoders.sound_text, corpus=corpus, cache=cache, report=report
    )
    write_curves(cache / "curves.csv", looks)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_senses(out, {"heard": sense}, encoders.picture.name)
    return measured
