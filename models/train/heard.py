"""Train the heads for kinds of sound: gunshot, explosion, siren, baby cry.

    python -m models.train.sound_corpus --clips shared/data/manifest.csv --out build/sound-corpus
    python -m models.train.heard --manifest shared/data/manifest.csv --corpus build/sound-corpus

Logistic heads over the sound encoder's tokens. Whole groups of recordings are held back in turn; the scores of what was
held back make the calibration. The prompts' side is made from `models/train/heard_texts.py` without training.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from tqdm import tqdm  # type: ignore[import-untyped]  # types-tqdm is not worth a dependency

from models.audio import SOUND_SHA256, SoundText, load_sound_net
from models.audio import WEIGHTS as SOUND_WEIGHTS
from models.calibrate import fit_platt
from models.encoders import SoundEncoder, TextEncoder
from models.heard import KindHeads, pool
from models.learned import Gate, LearnedSense, save_senses
from models.load import load_encoders
from models.train.heard_sounds import Recording, background_of, recordings, shouts, stretches, view
from models.train.heard_texts import KINDS, OTHERS

WEIGHTS = Path(__file__).parents[1] / "weights" / "learned.safetensors"
# AudioSet classes that a kind is about, or that are too near to say what it is not.
OWN_CLASSES = (20, 316, 317, 318, 319, 390, 391, 420, 421, 422, 423, 424, 425)
NEAR, AHEAD = (0.28, 0.36), (0.0, 0.05)  # every phrasing and paraphrase of heard_texts.py lies above, others below


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run is made of.

    Attributes:
        views: Ways in which each clip with a kind is heard, the plain one among them.
        other_views: Likewise of clips and films without one.
        corpus_views: Likewise of each named sound of the corpus.
        ordinary_views: Likewise of each other sound of the corpus.
        ridge: On the heads' weights over standardised tokens.
        steps: Of the optimiser.
        folds: Groups of recordings are held back in so many parts.
        clip_share: Of the weight, that of clips against the corpus; of positives and of negatives.
        positive_share: Of the weight.
        prevalence: Share of each kind that the calibration supposes: alerts are rare, and what is like a siren or a
            baby (screams, whistles) is far commoner than among the licensed recordings.
        ordinary_share: Of recordings without any kind, so many may reach a probability of one half.
        seed: Of everything.
    """

    views: int = 9
    other_views: int = 5
    corpus_views: int = 7
    ordinary_views: int = 2
    ridge: float = 3e-4
    steps: int = 60
    folds: int = 5
    clip_share: float = 0.65
    positive_share: float = 0.3
    prevalence: tuple[float, ...] = (0.1, 0.07, 0.03, 0.015)
    ordinary_share: float = 0.01
    seed: int = 2026


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """``B`` heard views of recordings: bags of stretches, one label a bag.

    Attributes:
        tokens: float32 ``(W, U, D)``, all stretches.
        owner: int64 ``(W,)``, the bag of each, ascending.
        labels: float32 ``(B, K)``.
        groups: ``(B,)``.
        is_clip: bool ``(B,)``.
        is_plain: bool ``(B,)``: as it was recorded.
    """

    tokens: torch.Tensor
    owner: torch.Tensor
    labels: torch.Tensor
    groups: NDArray[np.str_]
    is_clip: NDArray[np.bool_]
    is_plain: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, chosen: NDArray[np.bool_]) -> "Bags":
        """Some of the bags."""
        keep = torch.from_numpy(chosen)
        place = torch.cumsum(keep, 0) - 1
        rows = keep[self.owner]
        return Bags(
            self.tokens[rows],
            place[self.owner[rows]],
            self.labels[keep],
            self.groups[chosen],
            self.is_clip[chosen],
            self.is_plain[chosen],
        )

    def and_also(self, other: "Bags") -> "Bags":
        """These, then others."""
        return Bags(
            torch.cat((self.tokens, other.tokens)),
            torch.cat((self.owner, other.owner + len(self))),
            torch.cat((self.labels, other.labels)),
            np.concatenate((self.groups, other.groups)),
            np.concatenate((self.is_clip, other.is_clip)),
            np.concatenate((self.is_plain, other.is_plain)),
        )


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


def hear(found: Sequence[Recording], encoder: SoundEncoder, recipe: Recipe, cache: Path | None = None) -> Bags:
    """Encode every view of every recording, or take them from the cache."""
    counts = [_views(recording, recipe) for recording in found]
    key = hashlib.sha256(f"1 {encoder.sha256} {recipe.seed}".encode())
    for recording, count in zip(found, counts, strict=True):
        key.update(f"{recording.name} {len(recording.samples)} {count}".encode())
    kept = cache / f"heard-{key.hexdigest()[:16]}.npz" if cache else None
    if kept is not None and kept.exists():
        with np.load(kept) as file:
            tokens, sizes = file["tokens"], file["sizes"]
    else:
        tokens, sizes = _encode(found, counts, encoder, recipe.seed)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, tokens=tokens, sizes=sizes)
    repeated = [recording for recording, count in zip(found, counts, strict=True) for _ in range(count)]
    return Bags(
        torch.from_numpy(tokens).float(),
        torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
        torch.tensor([[float(kind in r.labels) for kind in KINDS] for r in repeated]),
        np.array([r.group for r in repeated]),
        np.array([r.is_clip for r in repeated]),
        np.array([number == 0 for count in counts for number in range(count)]),
    )


def _encode(
    found: Sequence[Recording], counts: Sequence[int], encoder: SoundEncoder, seed: int
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    backgrounds = background_of(found)
    tokens, sizes = [], []
    for recording, count in zip(tqdm(found, desc="hear"), counts, strict=True):
        for number in range(count):
            heard = encoder.encode(stretches(view(recording, number, backgrounds, seed))).tokens
            tokens.append(heard.cpu().numpy().astype(np.float16))
            sizes.append(len(heard))
    return np.concatenate(tokens), np.array(sizes)


def _views(recording: Recording, recipe: Recipe) -> int:
    has_kind = bool(recording.labels & KINDS.keys())
    if recording.is_clip:
        return recipe.views if has_kind else recipe.other_views
    return recipe.corpus_views if has_kind else recipe.ordinary_views


def balance(bags: Bags, recipe: Recipe) -> torch.Tensor:
    """Weights ``(B, K)``, each column summing to ``B``: by what is heard and by where it comes from."""
    weights = torch.zeros_like(bags.labels)
    is_clip = torch.from_numpy(bags.is_clip)
    for column in range(weights.shape[1]):
        positive = bags.labels[:, column] > 0
        for members, share in ((positive, recipe.positive_share), (~positive, 1 - recipe.positive_share)):
            parts = [(members & is_clip, recipe.clip_share), (members & ~is_clip, 1 - recipe.clip_share)]
            present = sum(part for rows, part in parts if rows.any())
            for rows, part in parts:
                if rows.any():
                    weights[rows, column] = share * part / present / rows.sum()
    return weights * len(bags)


def fit_heads(bags: Bags, recipe: Recipe) -> Heads:
    """Minimise the weighted log loss of bags, with a ridge, by L-BFGS."""
    mean, deviation = bags.tokens.mean((0, 1)), bags.tokens.std((0, 1)).clamp_min(1e-4)
    tokens, owner = (bags.tokens - mean) / deviation, bags.owner
    importance, kinds = balance(bags, recipe), bags.labels.shape[1]
    weights = torch.zeros(tokens.shape[2], kinds, requires_grad=True)
    biases = torch.full((kinds,), -3.0, requires_grad=True)
    gain = 4 / tokens.shape[2] ** 0.5  # steps of like size for weights and biases
    optimizer = torch.optim.LBFGS(
        [weights, biases], max_iter=recipe.steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = best(pool(tokens @ (weights * gain) + biases), owner, len(bags))
        surprise = functional.binary_cross_entropy_with_logits(logits, bags.labels, weight=importance)
        total: torch.Tensor = surprise + recipe.ridge * weights.square().sum() / kinds
        total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # nor for this
    plain = (weights * gain).detach() / deviation[:, None]
    return Heads(plain, biases.detach() - mean @ plain)


def fold_of(groups: NDArray[np.str_], labels: torch.Tensor, folds: int, seed: int) -> NDArray[np.int64]:
    """Deal whole groups to folds, those of a label evenly: ``(B,)`` to ``(B,)``."""
    random = np.random.default_rng(seed)
    fold: dict[str, int] = {}
    kinds = np.where(labels.any(1).numpy(), labels.argmax(1).numpy(), -1)
    for kind in np.unique(kinds):
        for group in random.permutation(np.unique(groups[kinds == kind])):
            fold.setdefault(str(group), len(fold) % folds)
    return np.array([fold[str(group)] for group in groups], np.int64)


def held_back_logits(bags: Bags, recipe: Recipe) -> torch.Tensor:
    """Logits of every bag by heads that heard nothing of its group: ``(B, K)``."""
    folds = fold_of(bags.groups, bags.labels, recipe.folds, recipe.seed)
    logits = torch.zeros_like(bags.labels)
    for fold in tqdm(range(recipe.folds), desc="folds"):
        held = folds == fold
        logits[torch.from_numpy(held)] = fit_heads(bags.of(~held), recipe)(bags.of(held))
    return logits


def fit_curves(logits: torch.Tensor, bags: Bags, recipe: Recipe) -> torch.Tensor:
    """Platt's slope and bias of each kind, ``(K, 2)``, on what was held back; positives weigh as if rare.

    Where that would let too much ordinary sound pass, the bias is lowered.
    """
    plain = torch.from_numpy(bags.is_plain)
    chosen, importance = logits[plain], balance(bags.of(bags.is_plain), recipe)
    labels = bags.labels[plain]
    curves = torch.zeros(logits.shape[1], 2)
    for column in range(logits.shape[1]):
        weight, truth = importance[:, column].double().numpy().copy(), labels[:, column].double().numpy()
        prevalence = recipe.prevalence[column]
        weight[truth > 0] *= prevalence / recipe.positive_share
        weight[truth == 0] *= (1 - prevalence) / (1 - recipe.positive_share)
        slope, bias = fit_platt(chosen[:, column].double().numpy(), truth, weight)
        ordinary = slope * chosen[labels.sum(1) == 0, column]
        most = float(ordinary.quantile(1 - recipe.ordinary_share)) if len(ordinary) else 0.0
        curves[column] = torch.tensor([slope, min(bias, -most)])
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


def train_heard(
    manifest: Path,
    sound: SoundEncoder,
    text: TextEncoder,
    *,
    corpus: Path | None,
    cache: Path,
    recipe: Recipe | None = None,
) -> tuple[LearnedSense, dict[str, dict[str, float]]]:
    """Train the ``heard`` sense.

    Args:
        manifest: CSV of labelled files; its licensed rows of ``train`` are learnt from.
        sound: Encoder.
        text: Of the same space.
        corpus: What `models.train.sound_corpus` gathered, or None: then the heads know one source a kind.
        cache: Folder for encoded sounds.
        recipe: None: the default.

    Returns:
        The sense, and figures of what was held back, by kind.
    """
    recipe = recipe or Recipe()
    torch.manual_seed(recipe.seed)
    found = recordings(manifest, corpus, np.random.default_rng(recipe.seed))
    bags = hear(found, sound, recipe, cache)
    if corpus is not None:
        extra = shouts(corpus, np.random.default_rng(recipe.seed))
        bags = bags.and_also(hear(extra, sound, recipe, cache))
        found += extra
    held_back = held_back_logits(bags, recipe)
    heads = fit_heads(bags, recipe)
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
    return LearnedSense("heard", gate, net, curves, shape, note), figures(held_back, bags)


def figures(logits: torch.Tensor, bags: Bags) -> dict[str, dict[str, float]]:
    """By kind, of plain clips: how many, and how often one of a kind beats another (ROC AUC)."""
    chosen = torch.from_numpy(bags.is_clip & bags.is_plain)
    logits, labels = logits[chosen], bags.labels[chosen]
    result = {}
    for column, kind in enumerate(KINDS):
        yes, no = (logits[labels[:, column] == value, column] for value in (1.0, 0.0))
        wins = (yes[:, None] > no).double() + 0.5 * (yes[:, None] == no).double()
        result[kind] = {"clips": float(len(yes)), "roc_auc": float(wins.mean())}
    return result


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="train the heads for kinds of sound")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, help="gathered by models.train.sound_corpus")
    parser.add_argument("--cache", type=Path, default=Path("build/heard"))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    encoders = load_encoders()
    sense, measured = train_heard(
        arguments.manifest, encoders.sound, encoders.sound_text, corpus=arguments.corpus, cache=arguments.cache
    )
    digest = save_senses(arguments.out, {"heard": sense}, encoders.picture.name)
    tqdm.write(json.dumps(measured, indent=1))
    tqdm.write(f"{arguments.out}: SHA-256 {digest}")


if __name__ == "__main__":
    main()
