"""What each part of calibration contributes, measured on prompts that nothing was trained on.

    python -m models.train.ablation MANIFEST ROOT [CACHE]

Prints the rows of the table in docs/calibration.md. Kinds of event stand for prompts: nothing here saw their labels but
`models.calibrate`'s curves, which fire, fight, smoke and four sounds were fitted on.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.aligner import Aligner
from models.calibrate import NORMALISED_PRIOR, PRIOR, Calibration, fit_curve, fit_platt, probability_of, recalibrate
from models.encoders import TextEncoder
from models.evaluate.metrics import average_precision, calibration_error, reliability, roc_auc
from models.load import load_encoders
from models.normalise import Ordinary, load_normaliser
from models.prompts import PromptText, embed_texts
from models.prototypes import LOOKS_SHARE, Example, Looks, draw_towards, looks_of, pack
from models.queries import Queries
from models.train.ablation_streams import background, budget, own_camera
from models.train.ordinary import is_in_bank
from models.train.token_cache import Case, TokenCache, read_cases

TEXTS: Mapping[str, Sequence[str]] = {
    "fire": ("fire", "flames", "a building on fire", "something is burning", "blaze"),
    "smoke": ("smoke", "smoke rising", "thick smoke from a building", "a plume of smoke"),
    "car crash": ("car crash", "a traffic accident", "two cars collided", "a wrecked car on the road"),
    "crowd": ("crowd", "many people", "a crowded place", "a large group of people gathering"),
    "gunshot": ("gunshot", "shots fired", "someone firing a gun", "the sound of a gun going off", "rifle fire"),
    "explosion": ("explosion", "something blows up", "a loud blast", "a bomb going off in the distance"),
    "siren": ("siren", "an ambulance with its siren on", "police car siren", "emergency vehicle passing by"),
    "scream": ("scream", "a person screaming", "someone screams for help", "shrieking"),
    "glass breaking": ("glass breaking", "a window being smashed", "shattering glass", "somebody breaks a bottle"),
    "speech": ("speech", "people talking", "a man is speaking", "conversation"),
}
SEEN = ("fire", "smoke", "car crash", "crowd")
HEARD = ("gunshot", "explosion", "siren", "scream", "glass breaking", "speech")
UNTRAINED = ("smoke", "car crash", "crowd", "scream", "glass breaking", "speech")
CONTRAST = {"seen": "an ordinary scene where nothing happens", "heard": "ordinary background noise"}
EXAMPLES, DRAWS, LABELS = 5, 24, 20
FRAMES = 6  # of a video, evenly

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Sense:
    """One sense with everything that its rows are measured on."""

    name: str
    text: TextEncoder
    ordinary: Ordinary
    raw_prior: Calibration
    prior: Calibration
    cases: Sequence[Case]
    tokens: Sequence[Example]
    kinds: Sequence[str]

    def scores(self, queries: Queries, rows: Sequence[int] | None = None, part: slice | None = None) -> Floats:
        """Best score over a file's frames: ``(files, P)``."""
        chosen = range(len(self.tokens)) if rows is None else rows
        taken = [self.tokens[row] for row in chosen]
        if part is not None:
            taken = [replace(one, tokens=one.tokens[part], whole=one.whole[part]) for one in taken]
        tokens, whole = torch.cat([one.tokens for one in taken]).float(), torch.cat([one.whole for one in taken])
        return best_of_each(Aligner().pictures(tokens, whole, queries), taken)

    def normalised(
        self, prompts: Sequence[PromptText], rows: Sequence[int] | None = None, part: slice | None = None
    ) -> Floats:
        """The same of prompts, made comparable."""
        queries = self.queries(prompts)
        scaling = self.ordinary.scaling(queries.vectors)
        scores = self.scores(queries, rows, part)
        return np.asarray(scores * scaling.scale.double().numpy() + scaling.offset.double().numpy())

    def queries(self, prompts: Sequence[PromptText]) -> Queries:
        """Embed prompts for this sense."""
        return embed_texts(prompts, self.text)

    def scope(self, kind: str) -> Bools:
        """Which files a kind was labelled on."""
        only_video = kind in ("smoke", "crowd")
        return np.array([not only_video or case.kind == "video" for case in self.cases])

    def labels(self, kind: str) -> Bools:
        """Which files show it."""
        return np.array([kind in case.labels for case in self.cases])

    def split(self, name: str) -> Bools:
        """Which files are of a split."""
        return np.array([case.split == name for case in self.cases])


def best_of_each(scores: torch.Tensor, files: Sequence[Example]) -> Floats:
    """Scores of all frames, file after file, ``(frames, P)``, to each file's best: ``(files, P)``."""
    counts = np.array([len(file.whole) for file in files])
    best: Floats = np.maximum.reduceat(scores.double().numpy(), np.cumsum(counts) - counts, axis=0)
    return best


def open_senses(manifest: Path, root: Path, folder: Path) -> list[Sense]:
    """Both senses with the tokens of all files but those in the bank and those of the split `other`."""
    encoders = load_encoders(threads=1)
    normaliser, cache = load_normaliser(encoders), TokenCache(root, folder, encoders)
    assert normaliser.seen is not None
    assert normaliser.heard is not None
    cases = [case for case in read_cases(manifest) if case.split in ("train", "dev") and not is_in_bank(case)]
    seen = [case for case in cases if case.kind != "audio"]
    heard = [case for case in cases if case.kind == "audio"]

    def few(case: Case) -> Example:
        found = cache.of(case.path, case.kind)
        rows = torch.linspace(0, len(found.whole) - 1, min(FRAMES, len(found.whole))).long()
        features = None if case.kind == "audio" else cache.features(case.path, case.kind)[rows]
        return Example(found.tokens[rows].half(), found.whole[rows], features)

    return [
        Sense("seen", encoders.picture_text, normaliser.seen, PRIOR.seen, NORMALISED_PRIOR.seen, seen,
              [few(case) for case in seen], SEEN),
        Sense("heard", encoders.sound_text, normaliser.heard, PRIOR.heard, NORMALISED_PRIOR.heard, heard,
              [few(case) for case in heard], HEARD),
    ]  # fmt: skip


def curve_error(labels: Bools, probabilities: Floats) -> float:
    """Expected calibration error."""
    return calibration_error(reliability(labels, probabilities)) or 0.0


def normalisation(sense: Sense) -> Iterator[str]:
    """Pooled over all phrasings of all kinds on dev: raw against normalised."""
    pairs = [(kind, text) for kind in sense.kinds for text in TEXTS[kind]]
    queries = sense.queries([PromptText(text) for _, text in pairs])
    raw = sense.scores(queries)
    scaling = sense.ordinary.scaling(queries.vectors)
    normal = raw * scaling.scale.double().numpy() + scaling.offset.double().numpy()
    for name, scores, curve in (("raw", raw, sense.raw_prior), ("normalised", normal, sense.prior)):
        truth, pooled, errors, twenty, marked, found = [], [], [], [], [], []
        for column, (kind, _) in enumerate(pairs):
            rows = sense.split("dev") & sense.scope(kind)
            labels, mine = sense.labels(kind)[rows], scores[rows, column]
            probability = curve.probability(mine.astype(np.float32)).astype(np.float64)
            truth.append(labels)
            pooled.append(mine)
            found.append(probability[labels] >= 0.5)
            if kind in UNTRAINED:
                errors.append(curve_error(labels, probability))
                twenty.append(_with_labels(curve, mine, labels))
                marked.append(_with_marks(curve, mine, labels))
        truth_, pooled_ = np.concatenate(truth), np.concatenate(pooled)
        yield (
            f"{sense.name} {name}: pooled AUC {roc_auc(truth_, pooled_):.3f}"
            f" AP {average_precision(truth_, pooled_):.3f}, recall at 0.5 {np.concatenate(found).mean():.2f},"
            f" untrained ECE {np.mean(errors):.3f}, with {LABELS} labels {np.mean(twenty):.3f},"
            f" with {LABELS} marks of the surest {np.mean(marked, 0)[0]:.3f} (of those as sure as the marked off by"
            f" {np.mean(marked, 0)[1]:.3f}, with marks {np.mean(marked, 0)[2]:.3f})"
        )


def _with_labels(curve: Calibration, scores: Floats, labels: Bools) -> float:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(DRAWS):
        order = rng.permutation(len(scores))
        own = recalibrate(curve, scores[order[:LABELS]], labels[order[:LABELS]].astype(np.float64))
        rest = order[LABELS:]
        errors.append(curve_error(labels[rest], own.probability(scores[rest].astype(np.float32)).astype(np.float64)))
    return float(np.mean(errors))


def _with_marks(curve: Calibration, scores: Floats, labels: Bools) -> tuple[float, float, float]:
    """Those that a prompt is surest of are marked in one half of the files, as events are; the other half is judged.

    Returns:
        Expected calibration error; and by how much the mean confidence is off where the prompt is as sure as of what
        was marked, before and after.
    """
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(DRAWS):
        order = rng.permutation(len(scores))
        mine, rest = order[: len(order) // 2], order[len(order) // 2 :]
        surest = mine[np.argsort(-scores[mine])[:LABELS]]
        raw = curve.logit(scores.astype(np.float32)).astype(np.float64)
        scale, shift = fit_curve(raw[surest].tolist(), labels[surest].astype(float).tolist()) or (1.0, 0.0)
        after = probability_of((scale * raw[rest] + shift).astype(np.float32)).astype(np.float64)
        before = probability_of(raw[rest].astype(np.float32)).astype(np.float64)
        sure = raw[rest] >= raw[surest].min()
        off = [abs(float((each[sure] - labels[rest][sure]).mean())) if sure.any() else 0.0 for each in (before, after)]
        errors.append((curve_error(labels[rest], after), *off))
    error, plain, marked = np.mean(errors, axis=0)
    return float(error), float(plain), float(marked)


def wording(sense: Sense) -> Iterator[str]:
    """AP of the name alone, of the mean of phrasings, and of the name with a contrast, on dev."""
    ways = {
        "name": [PromptText(kind) for kind in sense.kinds],
        "phrasings": [PromptText(kind, tuple(TEXTS[kind][1:])) for kind in sense.kinds],
        "contrast": [PromptText(kind, contrast=(CONTRAST[sense.name],)) for kind in sense.kinds],
    }
    for name, prompts in ways.items():
        scores = sense.scores(sense.queries(prompts))
        each = {
            kind: _ap(sense, kind, scores[:, column], sense.split("dev")) for column, kind in enumerate(sense.kinds)
        }
        yield f"{sense.name} {name}: mean AP {np.mean(list(each.values())):.3f} {_shown(each)}"


def examples(sense: Sense) -> Iterator[str]:
    """AP from five examples of different groups against zero-shot, on files of all other groups."""
    groups = np.array([case.group for case in sense.cases])
    rng = np.random.default_rng(0)
    gains = {}
    for kind in sense.kinds:
        rows, labels = sense.scope(kind), sense.labels(kind)
        queries = sense.queries([PromptText(kind)])
        plain = sense.scores(queries)[:, 0]
        before, after = [], []
        for _ in range(DRAWS):
            drawn = rng.permutation(np.unique(groups[rows & labels]))[:EXAMPLES]
            if len(drawn) < EXAMPLES:
                break
            chosen = [rng.choice(np.flatnonzero(rows & labels & (groups == group))) for group in drawn]
            shown = [replace(sense.tokens[row], tokens=sense.tokens[row].tokens.float()) for row in chosen]
            rest = rows & ~np.isin(groups, drawn)
            if not labels[rest].any():
                break
            mine = _drawn(sense, queries.vectors[0], shown, np.flatnonzero(rest).tolist())
            before.append(average_precision(labels[rest], plain[rest]) or 0.0)
            after.append(average_precision(labels[rest], mine) or 0.0)
        if before:
            gains[kind] = (float(np.mean(before)), float(np.mean(after)))
    mean = np.mean([b - a for kind, (a, b) in gains.items() if kind in UNTRAINED])
    told = ", ".join(f"{kind} {before:.2f} to {after:.2f}" for kind, (before, after) in gains.items())
    yield f"{sense.name} {EXAMPLES} examples, {DRAWS} draws: {told}; untrained {mean:+.3f}"


def _drawn(sense: Sense, text: torch.Tensor, shown: Sequence[Example], rows: Sequence[int]) -> Floats:
    """Best score over each file's frames of a prompt with examples, as workers have it: ``(rows,)``."""
    query = draw_towards(text, shown, sense.ordinary)[None]
    scaling, looks = sense.ordinary.scaling(query), None
    if (direction := looks_of(shown, sense.ordinary)) is not None:
        looks = Looks.of({0: pack(direction)}, sense.ordinary)
    files = [sense.tokens[row] for row in rows]
    tokens, whole = torch.cat([file.tokens for file in files]).float(), torch.cat([file.whole for file in files])
    scores = scaling(Aligner().pictures(tokens, whole, Queries.plain(query)))
    features = [file.features for file in files if file.features is not None]
    if looks is not None:
        scores = torch.lerp(scores, looks(torch.cat(features)), LOOKS_SHARE)
    return best_of_each(scores, files)[:, 0]


def fusion(seen: Sense, heard: Sense) -> Iterator[str]:
    """Composed: each sound under a random ordinary film. The curve is fitted on the other kinds' train files."""
    films = [r for r, case in enumerate(seen.cases) if case.kind == "video" and not case.labels]
    texts = [PromptText(kind) for kind in heard.kinds]
    ears, eyes = heard.queries(texts), seen.queries(texts)
    hear, see = heard.ordinary.scaling(ears.vectors), seen.ordinary.scaling(eyes.vectors)
    sound = heard.scores(ears) * hear.scale.double().numpy() + hear.offset.double().numpy()
    picture = seen.scores(eyes, films) * see.scale.double().numpy() + see.offset.double().numpy()
    place = np.random.default_rng(0).integers(0, len(films), len(heard.cases))
    p_heard = heard.prior.probability(sound.astype(np.float32)).astype(np.float64)
    p_seen = seen.prior.probability(picture[place].astype(np.float32)).astype(np.float64)
    truth = np.stack([heard.labels(kind) for kind in heard.kinds], 1)
    train, dev = heard.split("train"), heard.split("dev")
    logit_heard, logit_seen = _logit(p_heard), _logit(p_seen)
    joined = {"heard alone": p_heard, "noisy or": 1 - (1 - p_heard) * (1 - p_seen), "logistic": np.zeros_like(p_heard)}
    for column in range(len(heard.kinds)):
        others = [other for other in range(len(heard.kinds)) if other != column]
        # One weight for the pictures' logit against the sound's, the best of a few by log loss on the other kinds.
        best = min(
            (_loss(logit_heard[train][:, others] + w * logit_seen[train][:, others], truth[train][:, others]), w)
            for w in (0.0, 0.1, 0.25, 0.5, 1.0)
        )[1]
        joined["logistic"][:, column] = logit_heard[:, column] + best * logit_seen[:, column]
    for name, scores in joined.items():
        each = {kind: _ap(heard, kind, scores[:, column], dev) for column, kind in enumerate(heard.kinds)}
        yield f"fusion {name}: mean AP {np.mean(list(each.values())):.3f} {_shown(each)}"


def _loss(logits: Floats, truth: Bools) -> float:
    slope, bias = fit_platt(logits.ravel(), truth.ravel().astype(np.float64), np.ones(truth.size))
    probability = np.clip(1 / (1 + np.exp(-np.clip(slope * logits + bias, -60, 60))), 1e-6, 1 - 1e-6)
    return float(-np.where(truth, np.log(probability), np.log(1 - probability)).mean())


def _logit(probability: Floats) -> Floats:
    inner = np.clip(probability, 1e-6, 1 - 1e-6)
    logits: Floats = np.log(inner / (1 - inner))
    return logits


def _ap(sense: Sense, kind: str, scores: Floats, rows: Bools) -> float:
    rows = rows & sense.scope(kind)
    return average_precision(sense.labels(kind)[rows], scores[rows]) or 0.0


def _shown(each: Mapping[str, float]) -> str:
    return "(" + ", ".join(f"{kind} {value:.2f}" for kind, value in each.items()) + ")"


def main(manifest: Path, root: Path, folder: Path) -> None:
    """Print every row."""
    senses = open_senses(manifest, root, folder)
    parts = [part(sense) for part in (normalisation, wording, background, budget, examples) for sense in senses]
    for line in itertools.chain(*parts, own_camera(senses[0]), fusion(*senses)):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else "build/tokens"))
