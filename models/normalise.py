"""Scores of prompts that nothing was trained on, made comparable: each by what the ordinary scores on it.

"bicycle" scores 0.73 where "a person riding a bicycle" scores 0.49 on the same street, so no one threshold fits both.
How a prompt's score is distributed over ordinary pictures is known before it ever watches: a small bank of tokens of
ordinary footage is scored once, when the prompt is embedded. Its scores are then counted from that mean, in units of
that spread. For sounds the bank is the names of the classes that tokens are made of, which says how far a prompt can be
heard at all. Batches cost a multiplication and an addition a score.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from models.aligner import Aligner
from models.encoders import Encoders
from models.integrity import load_safetensors, verify
from models.queries import Queries

BANK = Path(__file__).parent / "weights" / "ordinary.safetensors"
BANK_SHA256 = "fd6d3ee19acc2b308e9cee6db29caf450e0cb70a3eb8701371fc251628193d4a"

# Where a typical prompt lies already, so that a score stays about what it was.
SEEN_MEAN, SEEN_SPREAD = 0.36, 0.04
HEARD_MEAN, HEARD_SPREAD = 0.0, 0.05
# Added to a spread, which few frames give only roughly: short names of one class hardly vary, and would be blown up.
SEEN_FLOOR = 0.06
_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """``score' = scale * score + offset``, one of each a prompt.

    Attributes:
        scale: float32 ``(P,)``, positive.
        offset: float32 ``(P,)``.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    @classmethod
    def none(cls, prompts: int) -> "Scaling":
        """Leave scores as they are."""
        return cls(torch.ones(prompts), torch.zeros(prompts))

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores ``(..., P)``, on any device."""
        return torch.addcmul(self.offset.to(scores.device), scores, self.scale.to(scores.device))

    def back(self, scaled: torch.Tensor) -> torch.Tensor:
        """What scores ``(..., P)`` were before; infinite stays infinite. Floors are looked for among raw scores."""
        return (scaled - self.offset) / self.scale


@dataclass(frozen=True, slots=True, eq=False)
class Ordinary:
    """What one sense ordinarily meets.

    Attributes:
        tokens: float32 ``(N, S, D)``, unit length.
        whole: float32 ``(N, D)``, unit length.
        mean: Of a typical prompt's scores.
        spread: Of a typical prompt's scores.
        floor: Added to every spread.
        features: float32 ``(N, F)``, what the wholes were made from; None where the encoder gives none.
    """

    tokens: torch.Tensor
    whole: torch.Tensor
    mean: float
    spread: float
    floor: float
    features: torch.Tensor | None = None

    @torch.inference_mode()
    def scaling(self, vectors: torch.Tensor) -> Scaling:
        """Score prompts, float32 ``(P, D)``, on the bank."""
        if not len(vectors):
            return Scaling.none(0)
        aligner, means, spreads = Aligner(), [], []
        for part in torch.split(vectors, _AT_ONCE):
            scores = aligner.pictures(self.tokens, self.whole, Queries.plain(part))
            means.append(scores.mean(0))
            spreads.append(scores.std(0, correction=0))
        scale = (self.spread + self.floor) / (torch.cat(spreads) + self.floor).clamp_min(1e-3)
        return Scaling(scale, self.mean - scale * torch.cat(means))


@dataclass(frozen=True, slots=True, eq=False)
class Normaliser:
    """Both senses' banks; None where the encoders have none: their scores stay as they are."""

    seen: Ordinary | None = None
    heard: Ordinary | None = None


class Scales:
    """The scaling of standing prompts; those that stood already are not scored again.

    Args:
        ordinary: Of one sense; None: scores stay as they are.
    """

    def __init__(self, ordinary: Ordinary | None) -> None:
        self._ordinary = ordinary
        self._known: dict[bytes, tuple[float, float]] = {}

    def of(self, vectors: torch.Tensor) -> Scaling:
        """Of prompts, float32 ``(P, D)`` on the CPU; forgets all others."""
        if self._ordinary is None:
            return Scaling.none(len(vectors))
        keys = [vector.tobytes() for vector in vectors.numpy()]
        new = [row for row, key in enumerate(keys) if key not in self._known]
        fresh = self._ordinary.scaling(vectors[new])
        known = dict(
            zip((keys[row] for row in new), zip(fresh.scale.tolist(), fresh.offset.tolist(), strict=True), strict=True)
        )
        self._known = {key: known.get(key) or self._known[key] for key in keys}
        both = torch.tensor([self._known[key] for key in keys]).view(-1, 2)
        return Scaling(both[:, 0].contiguous(), both[:, 1].contiguous())


def load_normaliser(encoders: Encoders) -> Normaliser:
    """The bank that fits these encoders.

    Raises:
        ModelError: The file is missing or altered.
    """
    verify(BANK, BANK_SHA256, package="watchword")
    bank = load_safetensors(BANK)
    seen = heard = None
    if _fits(bank["seen_of"], encoders.picture.sha256):
        tokens, whole, features = _unit(bank["seen_tokens"]), _unit(bank["seen_whole"]), bank["seen_features"].float()
        seen = Ordinary(tokens, whole, SEEN_MEAN, SEEN_SPREAD, SEEN_FLOOR, features)
    if _fits(bank["heard_of"], encoders.sound.sha256):
        names = _unit(bank["heard_whole"])
        heard = Ordinary(names[:, None], names, HEARD_MEAN, HEARD_SPREAD, 0.0)
    return Normaliser(seen, heard)


def digest_of(sha256: str) -> torch.Tensor:
    """A hex digest as bytes, to be kept with tensors: uint8 ``(32,)``."""
    return torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8)


def _fits(kept: torch.Tensor, sha256: str) -> bool:
    """Whether a bank is of an encoder; some give no digest."""
    return sha256 == bytes(kept.tolist()).hex()


def _unit(rounded: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rounded.float(), dim=-1)
