"""The recipe of `models.calibrate.PRIOR`: one curve a sense for prompts that nothing was trained on.

    python -m models.train.prior MANIFEST ROOT

Fitted over every label of the licensed rows of `train` at once, positives weighted as if one item in ten showed what
a prompt asks for: of a prompt that nobody tuned, a false alarm costs more trust than a miss.
"""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.calibrate import Calibration, fit_platt
from models.encoders import Encoders
from models.evaluate.manifest import Item
from models.evaluate.scoring import RATE_HZ, Scorer, score_items
from models.load import load_encoders

PREVALENCE = 0.1


def licensed(manifest: Path) -> list[Item]:
    """Rows of `train` whose licence allows training."""
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train" and row["train_ok"] == "yes"]
    return [Item(row["path"], row["kind"], tuple(filter(None, row["labels"].split(";"))), "train") for row in rows]


def fit_prior(scored: Iterable[tuple[Item, list[str], NDArray[np.float32]]]) -> Calibration:
    """Fit one curve over all items and prompts, each pair one case."""
    scores, labels = [], []
    for item, texts, values in scored:
        scores += values.tolist()
        labels += [float(text in item.labels) for text in texts]
    truth = np.array(labels)
    share = truth.mean()
    weights = np.where(truth > 0, PREVALENCE / share, (1 - PREVALENCE) / (1 - share))
    slope, bias = fit_platt(np.array(scores), truth, weights)
    return Calibration(round(slope, 1), round(bias, 2))


def main(manifest: Path, root: Path, encoders: Encoders) -> None:
    """Print both curves."""
    for sense, kinds in (("seen", {"image", "video"}), ("heard", {"audio"})):
        items = [item for item in licensed(manifest) if item.kind in kinds]
        scored = score_items(items, root, Scorer(encoders), RATE_HZ, lambda _: None)
        sys.stdout.write(f"{sense}: {fit_prior(scored)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), load_encoders())
