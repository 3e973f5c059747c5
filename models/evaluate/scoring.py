"""A manifest's files against its prompts, written as tables that a scorer reads."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.aligner import Aligner
from models.calibrate import PRIOR, Calibrations
from models.encoders import Encoders
from models.evaluate.manifest import KINDS, Item, read_manifest, read_rows
from models.evaluate.media import SAMPLE_RATE_HZ, read_frames, read_picture, read_sound
from models.prompts import PromptText, embed_prompts
from models.queries import Queries

RATE_HZ = 4.0
STRETCH_S = 2.0  # sound at once, a window's length
FRAMES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Scorer:
    """Encoders and aligner: a file to one score a prompt, before calibration."""

    encoders: Encoders
    aligner: Aligner = field(default_factory=Aligner)

    def pixels(self, pixels: NDArray[np.uint8], queries: Queries) -> NDArray[np.float32]:
        """Frames ``(N, H, W, 3)`` to the best score of each prompt, ``(P,)``."""
        parts = []
        for start in range(0, len(pixels), FRAMES_AT_ONCE):
            seen = self.encoders.picture.encode(pixels[start : start + FRAMES_AT_ONCE])
            parts.append(self.aligner.pictures(seen.cells, seen.whole, queries).amax(0))
        best: NDArray[np.float32] = torch.stack(parts).amax(0).cpu().numpy()
        return best

    def samples(self, samples: NDArray[np.float32], queries: Queries) -> NDArray[np.float32]:
        """Sound ``(M,)`` to the best score of each prompt, ``(P,)``, over half-overlapping stretches."""
        length = int(STRETCH_S * SAMPLE_RATE_HZ)
        starts = range(0, max(1, len(samples) - length // 2), length // 2)
        stretches = [samples[start : start + length] for start in starts]
        heard = self.encoders.sound.encode(np.stack([np.pad(part, (0, length - len(part))) for part in stretches]))
        best: NDArray[np.float32] = self.aligner.sounds(heard.tokens, heard.whole, queries).amax(0).cpu().numpy()
        return best


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
    scorer = Scorer(encoders)
    written = {"predictions": out / "predictions.csv"}
    items = read_manifest(manifest, split)
    scored = score_items(items, root, scorer, rate_hz, progress)
    curves = {"video": calibrations.seen, "image": calibrations.seen, "audio": calibrations.heard}
    rows = (
        (item.path, text, float(probability))
        for item, texts, scores in scored
        for text, probability in zip(texts, curves[item.kind].probability(scores), strict=True)
    )
    _write(written["predictions"], rows)
    for name, listing, column in (("open_vocab", open_vocab, "name"), ("captions", captions, "caption")):
        if listing is not None:
            written[name] = out / f"{name}.csv"
            _write(written[name], _score_photos(listing, column, scorer, calibrations, progress))
    return written


Row = tuple[str, str, float]


def score_items(
    items: Sequence[Item], root: Path, scorer: Scorer, rate_hz: float, progress: Callable[[str], None]
) -> Iterator[tuple[Item, list[str], NDArray[np.float32]]]:
    """Score every item on the prompts of its kind: the labels that some item of that kind has.

    Pictures show no gunshot and sounds no fire: on another kind a prompt's label says nothing.
    """
    prompts = {kind: sorted({label for item in items if item.kind == kind for label in item.labels}) for kind in KINDS}
    queries = {kind: _queries(texts, scorer.encoders, is_sound=kind == "audio") for kind, texts in prompts.items()}
    for item in items:
        if not prompts.get(item.kind):
            continue
        progress(item.path)
        path, side_px = root / item.path, scorer.encoders.picture.size
        if item.kind == "audio":
            scores = scorer.samples(read_sound(path), queries["audio"])
        else:
            pixels = read_picture(path, side_px) if item.kind == "image" else read_frames(path, side_px, rate_hz)
            scores = scorer.pixels(pixels, queries[item.kind])
        yield item, prompts[item.kind], scores


def _score_photos(
    listing: Path, column: str, scorer: Scorer, calibrations: Calibrations, progress: Callable[[str], None]
) -> Iterator[Row]:
    rows = read_rows(listing, ("path", column))
    texts = list(dict.fromkeys(row[column] for row in rows))
    queries = _queries(texts, scorer.encoders, is_sound=False)
    for path in dict.fromkeys(row["path"] for row in rows):
        progress(path)
        scores = scorer.pixels(read_picture(listing.parent / path, scorer.encoders.picture.size), queries)
        probabilities = calibrations.seen.probability(scores)
        yield from ((path, text, float(value)) for text, value in zip(texts, probabilities, strict=True))


def _queries(texts: Sequence[str], encoders: Encoders, *, is_sound: bool) -> Queries:
    embedded = embed_prompts([PromptText(text) for text in texts], encoders)
    return embedded.sound if is_sound else embedded.picture


def _write(path: Path, rows: Iterable[Row]) -> None:
    """Write a table once all of it is there: half of one looks like a whole one."""
    draft = path.with_suffix(".draft")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "prompt", "score"))
        # Nine digits: near 0 and 1 a ranking must survive being printed.
        writer.writerows((name, text, f"{score:.9f}") for name, text, score in rows)
    draft.replace(path)
