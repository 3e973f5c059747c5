"""A prompt drawn towards examples: a few pictures, clips or sounds of what is meant.

Examples say what text does not: which smoke, what kind of crowd. Their mean, counted from ordinary footage, becomes
part of the query, so that it is normalised, bounded and shown like any other. Text keeps the larger say where it scores
the examples high already and they differ much among themselves: their mean is then of nothing in particular.

Of pictures much is lost when a frame is put in the words of a thousand classes. So they are also compared with the
examples by the features behind those words: in how a frame departs from ordinary ones it is like them or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from models.aligner import Aligner
from models.encoders import PictureEncoder, SoundEncoder
from models.normalise import SEEN_MEAN, Ordinary
from models.queries import Queries

MAX_EXAMPLES = 16
_AT_ONCE = 16
_STRETCH_S, _SAMPLE_RATE_HZ = 2.0, 16_000
# Text's mean distance from the ordinary, times how unlike the examples are: from here on text has the larger say.
# Set on eleven kinds of event.
TRUST_TEXT = 0.5
STEEPNESS = 8
# Of a frame's score that likeness to the examples makes up. Set on `train`: the best of five for each kind of event by
# the others.
LOOKS_SHARE = 0.9
LOOKS_GAIN = 0.07  # score for each of ordinary frames' deviations that a frame is more like the examples than they are
LOOKS_FLOOR = 0.02  # added to that deviation
_EVENNESS = 0.3  # added to each feature's deviation, of their mean: rare ones would be all that counts


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What an encoder makes of an example.

    Attributes:
        tokens: float32 ``(N, S, D)``, of its frames or stretches of sound.
        whole: float32 ``(N, D)``.
        features: float32 ``(N, F)``, what the whole was made from; None: the encoder gives none.
    """

    tokens: torch.Tensor
    whole: torch.Tensor
    features: torch.Tensor | None = None


def pictures_of(pixels: NDArray[np.uint8], encoder: PictureEncoder) -> Example:
    """Encode frames, uint8 ``(N, H, W, 3)``."""
    parts = [encoder.encode(pixels[start : start + _AT_ONCE]) for start in range(0, len(pixels), _AT_ONCE)]
    cells, whole = torch.cat([part.cells for part in parts]), torch.cat([part.whole for part in parts])
    given = [part.features for part in parts if part.features is not None]
    return Example(cells.float().cpu(), whole.float().cpu(), torch.cat(given).float().cpu() if given else None)


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


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """How much frames look like the examples of ``R`` prompts.

    Attributes:
        rows: int64 ``(R,)``, the prompts' columns, ascending.
        directions: float32 ``(R, F)``, unit length: how examples depart from ordinary frames.
        centre: float32 ``(F,)``, of ordinary frames.
        spread: float32 ``(F,)``, likewise.
        mean: float32 ``(R,)``, how much ordinary frames look like the examples.
        deviation: float32 ``(R,)``, and by how much that varies.
    """

    rows: torch.Tensor
    directions: torch.Tensor
    centre: torch.Tensor
    spread: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def of(cls, drawn: Mapping[int, bytes], ordinary: Ordinary | None) -> "Looks | None":
        """Of prompts by row, as `pack` wrote each one's `looks_of`; None where there is none that fits."""
        if ordinary is None or ordinary.features is None:
            return None
        dim = ordinary.features.shape[1]
        fit = {row: packed for row, packed in sorted(drawn.items()) if len(packed) == dim}
        if not fit:
            return None
        given = np.stack([np.frombuffer(packed, np.int8) for packed in fit.values()]).astype(np.float32)
        directions = normalize(torch.from_numpy(given), dim=1)
        centre, spread = _usual_features(ordinary.features)
        usual = _departure(ordinary.features, centre, spread) @ directions.T
        deviation = usual.std(0) + LOOKS_FLOOR
        return cls(torch.tensor(list(fit)), directions, centre, spread, usual.mean(0), deviation)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Features of frames, float32 ``(N, F)``, to normalised scores ``(N, R)``, on the features' device."""
        place = features.device
        apart = _departure(features.float(), self.centre.to(place), self.spread.to(place))
        likeness = apart @ self.directions.to(place).T
        return SEEN_MEAN + LOOKS_GAIN * (likeness - self.mean.to(place)) / self.deviation.to(place)


def looks_of(examples: Sequence[Example], ordinary: Ordinary) -> torch.Tensor | None:
    """How examples depart from ordinary frames, float32 ``(F,)``, unit length; None: there are no features."""
    if ordinary.features is None:
        return None
    centre, spread = _usual_features(ordinary.features)
    each = [
        _departure(example.features, centre, spread).mean(0) for example in examples if example.features is not None
    ]
    return normalize(torch.stack(each).mean(0), dim=0) if each else None


def _usual_features(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and spread of ordinary frames' features: ``(F,)`` each."""
    rooted = features.clamp_min(0).sqrt()
    spread = rooted.std(0)
    return rooted.mean(0), spread + _EVENNESS * spread.mean()


def _departure(features: torch.Tensor, centre: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """How frames depart from ordinary ones: ``(N, F)``, unit length. Roots: a few features are very large."""
    return normalize((features.clamp_min(0).sqrt() - centre) / spread, dim=-1)


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
