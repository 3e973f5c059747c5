"""Raw scores of whole files, for fitting curves to: no windows, no calibration. `streamer.evaluate` measures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.aligner import Aligner
from models.encoders import Encoders
from models.evaluate.manifest import KINDS, Item
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


def _queries(texts: Sequence[str], encoders: Encoders, *, is_sound: bool) -> Queries:
    embedded = embed_prompts([PromptText(text) for text in texts], encoders)
    return embedded.sound if is_sound else embedded.picture
