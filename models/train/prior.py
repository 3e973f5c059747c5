"""The recipe of `models.calibrate`'s priors: one curve a sense for prompts that nothing was trained on.

    python -m models.train.prior MANIFEST ROOT [CACHE]

Fitted over every label of the licensed rows of `train` at once, positives weighted as if one item in ten held what a
prompt asks for, of normalised pictures one in a hundred: of a prompt that nobody tuned, a false alarm costs more trust
than a miss, and at one in ten one prompt in forty reached 0.5 on an ordinary film that had nothing to do with it.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.aligner import Aligner
from models.calibrate import Calibration, fit_platt
from models.encoders import Encoders
from models.errors import ModelError
from models.evaluate.manifest import KINDS
from models.load import load_encoders
from models.normalise import load_normaliser
from models.prompts import PromptText, embed_texts
from models.train.ordinary import is_in_bank
from models.train.token_cache import Case, TokenCache, licensed

PREVALENCE = {"raw": 0.1, "seen": 0.01, "heard": 0.1}
NORMALISED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "seen": {
        "fire": ("fire", "flames", "a building on fire", "something is burning", "blaze"),
        "fight": ("fight", "people fighting", "brawl", "two men punching each other", "a violent attack on a person"),
        "smoke": ("smoke", "smoke rising", "thick smoke from a building", "a plume of smoke"),
    },
    "heard": {kind: (kind,) for kind in ("gunshot", "explosion", "siren", "baby cry")},
}
VIDEO_ONLY = ("fight", "smoke")  # nobody looked for them on photos


def fit_prior(scored: Iterable[tuple[Case, Sequence[str], NDArray[np.float32]]]) -> Calibration:
    """Fit one curve over all cases and prompts, each pair alike."""
    scores, labels = [], []
    for case, texts, values in scored:
        scores += values.tolist()
        labels += [float(text in case.labels) for text in texts]
    truth = np.array(labels)
    share = truth.mean()
    prevalence = PREVALENCE["raw"]
    weights = np.where(truth > 0, prevalence / share, (1 - prevalence) / (1 - share))
    slope, bias = fit_platt(np.array(scores), truth, weights)
    return Calibration(round(slope, 1), round(bias, 2))


def score_labels(
    cases: Sequence[Case], cache: TokenCache, encoders: Encoders
) -> Iterator[tuple[Case, Sequence[str], NDArray[np.float32]]]:
    """The best score in each case of the labels that some case of its kind has.

    Pictures show no gunshot and sounds no fire: on another kind a prompt's label says nothing.
    """
    for kind in KINDS:
        mine = [case for case in cases if case.kind == kind]
        texts = sorted({label for case in mine for label in case.labels})
        encoder = encoders.sound_text if kind == "audio" else encoders.picture_text
        queries = embed_texts([PromptText(text) for text in texts], encoder)
        for case in mine if texts else ():
            found = cache.of(case.path, kind)
            yield case, texts, Aligner().pictures(found.tokens, found.whole, queries).amax(0).numpy()


def fit_normalised(sense: str, cases: Sequence[Case], cache: TokenCache, encoders: Encoders) -> Calibration:
    """Fit one curve to normalised scores: of phrasings of the kinds that can be seen, of the names of what is heard.

    Each phrasing counts alike, and only cases that are not in the bank count.
    """
    normaliser, texts = load_normaliser(encoders), [text for texts in NORMALISED[sense].values() for text in texts]
    kinds = [kind for kind, texts in NORMALISED[sense].items() for _ in texts]
    encoder, ordinary = (
        (encoders.picture_text, normaliser.seen) if sense == "seen" else (encoders.sound_text, normaliser.heard)
    )
    if ordinary is None:
        raise ModelError(f"the bank of ordinary scores does not fit the {sense} encoder; see models.train.ordinary")
    queries = embed_texts([PromptText(text) for text in texts], encoder)
    scaling = ordinary.scaling(queries.vectors)
    best = []
    for case in cases:
        found = cache.of(case.path, case.kind)
        best.append(scaling(Aligner().pictures(found.tokens, found.whole, queries)).amax(0).double().numpy())
    every, kind_of = np.stack(best), np.array([case.kind for case in cases])
    scores, labels, weights = [], [], []
    for column, kind in enumerate(kinds):
        rows = kind_of == "video" if kind in VIDEO_ONLY else np.ones(len(cases), np.bool_)
        truth = np.array([kind in case.labels for case in cases])[rows]
        share = truth.mean()
        scores.append(every[rows, column])
        labels.append(truth.astype(np.float64))
        prevalence = PREVALENCE[sense]
        weights.append(np.where(truth, prevalence / share, (1 - prevalence) / (1 - share)) / len(truth) * 1000)
    slope, bias = fit_platt(np.concatenate(scores), np.concatenate(labels), np.concatenate(weights))
    return Calibration(round(slope, 1), round(bias, 2))


def main(manifest: Path, root: Path, encoders: Encoders, folder: Path) -> None:
    """Print all curves."""
    cases, cache = licensed(manifest), TokenCache(root, folder, encoders)
    for sense, kinds in (("seen", {"image", "video"}), ("heard", {"audio"})):
        mine = [case for case in cases if case.kind in kinds]
        outside = [case for case in mine if not is_in_bank(case)]
        sys.stdout.write(f"normalised {sense}: {fit_normalised(sense, outside, cache, encoders)}\n")
        sys.stdout.write(f"raw {sense}: {fit_prior(score_labels(mine, cache, encoders))}\n")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        load_encoders(),
        Path(sys.argv[3] if len(sys.argv) > 3 else "build/tokens"),
    )
