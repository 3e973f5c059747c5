"""A prompt's query drawn towards examples: a few pictures, clips or sounds of what is meant.

Examples say what text does not: which smoke, what kind of crowd. Their mean, counted from ordinary footage, becomes
part of the query, so a prompt with examples costs no more than one without, and is normalised, bounded and shown like
any other. Text keeps the larger say where it scores the examples high already and they differ much among themselves:
their mean is then of nothing in particular.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from models.aligner import Aligner
from models.encoders import PictureEncoder, SoundEncoder
from models.normalise import Ordinary
from models.queries import Queries

MAX_EXAMPLES = 16
_AT_ONCE = 16
_STRETCH_S, _SAMPLE_RATE_HZ = 2.0, 16_000
# Text's mean distance from the ordinary, times how unlike the examples are: from here on text has the larger say.
# Set on eleven kinds of event.
TRUST_TEXT = 0.5
STEEPNESS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What an encoder makes of an example.

    Attributes:
        tokens: float32 ``(N, S, D)``, of its frames or stretches of sound.
        whole: float32 ``(N, D)``.
    """

    tokens: torch.Tensor
    whole: torch.Tensor


def pictures_of(pixels: NDArray[np.uint8], encoder: PictureEncoder) -> Example:
    """Encode frames, uint8 ``(N, H, W, 3)``."""
    parts = [encoder.encode(pixels[start : start + _AT_ONCE]) for start in range(0, len(pixels), _AT_ONCE)]
    cells, whole = torch.cat([part.cells for part in parts]), torch.cat([part.whole for part in parts])
    return Example(cells.float().cpu(), whole.float().cpu())


def sound_of(samples: NDArray[np.float32], encoder: SoundEncoder) -> Example:
    """Encode sound ``(M,)``, 16 kHz, in half-overlapping stretches of a window's length, the last one padded."""
    length = int(_STRETCH_S * _SAMPLE_RATE_HZ)
    starts = range(0, max(1, len(samples) - length // 2), length // 2)
    parts = [samples[start : start + length] for start in starts]
    heard = encoder.encode(np.stack([np.pad(part, (0, length - len(part))) for part in parts]).astype(np.float32))
    return Example(heard.tokens.float().cpu(), heard.whole.float().cpu())


def pack(query: torch.Tensor) -> bytes:
    """A query, float32 ``(D,)``, as signed bytes; `models.prompts.with_queries` reads them."""
    packed: bytes = (query / query.abs().max() * 127).round().to(torch.int8).numpy().tobytes()
    return packed


def draw_towards(text: torch.Tensor, examples: Sequence[Example], ordinary: Ordinary) -> torch.Tensor:
    """The query of a prompt with examples.

    Args:
        text: float32 ``(D,)``, its text's query, unit length.
        examples: One to `MAX_EXAMPLES`. From two on they are weighed against each other.
        ordinary: Of the sense.

    Returns:
        float32 ``(D,)``, unit length.
    """
    apart = torch.stack([example.whole.mean(0) for example in examples]) - ordinary.whole.mean(0)
    mean = normalize(apart.mean(0), dim=0)
    others = [normalize(apart[torch.arange(len(apart)) != left].mean(0), dim=0) for left in range(len(apart))]
    if len(apart) == 1:
        others = [mean]
    likeness = float(
        torch.stack([normalize(one, dim=0) @ other for one, other in zip(apart, others, strict=True)]).mean()
    )
    by_text = _beyond_ordinary([text] * len(examples), examples, ordinary)
    by_others = _beyond_ordinary(others, examples, ordinary)
    doubt = float(by_text.mean().clamp_min(0)) * (1 - likeness)
    share = 1 / (1 + (doubt / TRUST_TEXT) ** STEEPNESS)
    # By the example that is matched worst: what misses one of five will miss others.
    own = by_text.amin().clamp_min(0) / _spread(text, ordinary) + 1e-3
    theirs = share * by_others.amin().clamp_min(0) / _spread(mean, ordinary)
    return normalize(own * text + theirs * mean, dim=0)


def _beyond_ordinary(queries: Sequence[torch.Tensor], examples: Sequence[Example], ordinary: Ordinary) -> torch.Tensor:
    """How far each example's best frame scores above ordinary ones with its query, in their spread: ``(K,)``."""
    found = []
    for query, example in zip(queries, examples, strict=True):
        best = Aligner().pictures(example.tokens, example.whole, Queries.plain(query[None])).amax()
        usual = Aligner().pictures(ordinary.tokens, ordinary.whole, Queries.plain(query[None]))
        found.append((best - usual.mean()) / _spread(query, ordinary))
    return torch.stack(found)


def _spread(query: torch.Tensor, ordinary: Ordinary) -> torch.Tensor:
    scores = Aligner().pictures(ordinary.tokens, ordinary.whole, Queries.plain(query[None]))
    return (scores.std() + ordinary.floor / 2).clamp_min(1e-3)
