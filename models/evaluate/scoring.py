"""A manifest's files against its prompts, written as tables that a scorer reads."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.aligner import Aligner
from models.calibrate import PRIOR, Calibration, Calibrations
from models.encoders import Encoders
from models.evaluate.manifest import Item, read_manifest, read_rows
from models.evaluate.media import SAMPLE_RATE_HZ, read_frames, read_picture, read_sound
from models.prompts import PromptText, embed_prompts
from models.queries import Queries

RATE_HZ = 4.0
# Pictures show no gunshot and sounds no fire: a prompt is scored on the kinds that some item of the manifest labels so.
SECONDS_AT_ONCE = 2.0


@dataclass(frozen=True, slots=True)
class Scorer:
    """Encoders, aligner and calibration: a file to one number a prompt."""

    encoders: Encoders
    aligner: Aligner
    calibrations: Calibrations

    def pixels(self, pixels: NDArray[np.uint8], queries: Queries) -> NDArray[np.float32]:
        """Frames ``(N, H, W, 3)`` to their best confidence by prompt, ``(P,)``."""
        best: torch.Tensor | None = None
        for start in range(0, len(pixels), 16):
            seen = self.encoders.picture.encode(pixels[start : start + 16])
            scores = self.aligner.pictures(seen.cells, seen.whole, queries).amax(0)
            best = scores if best is None else torch.maximum(best, scores)
        return _probability(best, self.calibrations.seen)

    def samples(self, samples: NDArray[np.float32], queries: Queries) -> NDArray[np.float32]:
        """Sound ``(M,)`` to its best confidence by prompt, ``(P,)``, over half-overlapping stretches."""
        length = int(SECONDS_AT_ONCE * SAMPLE_RATE_HZ)
        padded = np.pad(samples, (0, max(0, length - len(samples))))
        starts = range(0, len(padded) - length // 2, length // 2)
        stretches = [padded[start : start + length] for start in starts]
        whole = [np.pad(stretch, (0, length - len(stretch))) for stretch in stretches]
        heard = self.encoders.sound.encode(np.stack(whole))
        return _probability(self.aligner.sounds(heard.tokens, heard.whole, queries).amax(0), self.calibrations.heard)


def _probability(scores: torch.Tensor | None, calibration: Calibration) -> NDArray[np.float32]:
    if scores is None:
        raise ValueError("nothing to score")
    return calibration.probability(scores.cpu().numpy())


def evaluate(  # noqa: PLR0913  # what a manifest needs, by name
    manifest: Path,
    root: Path,
    out: Path,
    *,
    encoders: Encoders,
    split: str | None = "dev",
    open_vocab: Path | None = None,
    captions: Path | None = None,
    rate_hz: float = RATE_HZ,
    calibrations: Calibrations = PRIOR,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Path]:
    """Score every file and write ``predictions.csv``, and ``open_vocab.csv`` and ``captions.csv`` where asked for.

    Args:
        manifest: CSV with columns path, kind, labels, split.
        root: Folder that its paths are relative to.
        out: Folder to write to; made where it is missing.
        encoders: From `load_encoders`.
        split: Only items of this split; None: all.
        open_vocab: CSV with columns path and name, paths relative to its own folder: every name on every photo.
        captions: CSV with columns path and caption, likewise.
        rate_hz: Frames a second of video.
        calibrations: Scores to probabilities.
        progress: Told about each file.

    Returns:
        The tables written, by name. Their columns are path, prompt and score, 0..1.

    Raises:
        EvaluationError: A list or a file cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    scorer = Scorer(encoders, Aligner(), calibrations)
    written = {"predictions": out / "predictions.csv"}
    items = read_manifest(manifest, split)
    _write(written["predictions"], _score_items(items, root, scorer, rate_hz, progress))
    for name, listing, column in (("open_vocab", open_vocab, "name"), ("captions", captions, "caption")):
        if listing is not None:
            written[name] = out / f"{name}.csv"
            _write(written[name], _score_photos(listing, column, scorer, progress))
    return written


Row = tuple[str, str, float]


def _score_items(
    items: Sequence[Item], root: Path, scorer: Scorer, rate_hz: float, progress: Callable[[str], None]
) -> Iterator[Row]:
    prompts = {kind: sorted({label for item in items if item.kind == kind for label in item.labels}) for kind in _KINDS}
    queries = {kind: _queries(texts, scorer.encoders, is_sound=kind == "audio") for kind, texts in prompts.items()}
    for item in items:
        if item.kind not in _KINDS or not prompts[item.kind]:
            continue
        progress(item.path)
        path, side = root / item.path, scorer.encoders.picture.size
        if item.kind == "audio":
            scores = scorer.samples(read_sound(path), queries["audio"])
        else:
            pixels = read_picture(path, side) if item.kind == "image" else read_frames(path, side, rate_hz)
            scores = scorer.pixels(pixels, queries[item.kind])
        yield from ((item.path, text, float(score)) for text, score in zip(prompts[item.kind], scores, strict=True))


_KINDS = ("video", "image", "audio")


def _score_photos(listing: Path, column: str, scorer: Scorer, progress: Callable[[str], None]) -> Iterator[Row]:
    rows = read_rows(listing, ("path", column))
    texts = list(dict.fromkeys(row[column] for row in rows))
    queries = _queries(texts, scorer.encoders, is_sound=False)
    for path in dict.fromkeys(row["path"] for row in rows):
        progress(path)
        scores = scorer.pixels(read_picture(listing.parent / path, scorer.encoders.picture.size), queries)
        yield from ((path, text, float(score)) for text, score in zip(texts, scores, strict=True))


def _queries(texts: Sequence[str], encoders: Encoders, *, is_sound: bool) -> Queries:
    embedded = embed_prompts([PromptText(text) for text in texts], encoders)
    return embedded.sound if is_sound else embedded.picture


def _write(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "prompt", "score"))
        # Nine digits: near 0 and 1 a ranking must survive being printed.
        writer.writerows((path, text, f"{score:.9f}") for path, text, score in rows)
