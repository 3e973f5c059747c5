"""What a camera or microphone always meets, and how much of a prompt's score that explains.

A stream's background is the slow mean of its own whole-picture (or whole-sound) vectors: one vector a sense and stream,
from which the usual similarity of any prompt follows, be it one of ten thousand or one that is added tomorrow. A prompt
that the stream usually scores higher on than ordinary footage does loses part of that lead; none gains. So a sunset
camera needs more to say "fire", and floors of scores stay floors. It is causal: what is scored is not yet in the mean.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from models.errors import ModelError
from models.normalise import Ordinary, Scaling

SHARE = 0.5  # of the lead that is taken away: of 0, 1/4, 1/2, 3/4 and 1 the best for both senses (docs/calibration.md)
WARM_UP_S = 300.0  # before so much was met, nothing is usual
HALF_LIFE_S = 6 * 3600.0  # what was met so long ago counts half
EVERY_S = 10.0  # a window is taken in so often: what is usual changes slowly, and what follows from it can be kept


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Of one sense of one stream. A value: `update` gives the next one.

    Attributes:
        mean: float32 ``(D,)``, not of unit length: what varies shortens it.
        weight_s: Seconds met, older ones counting less.
        until_us: End of the last window that was looked at for it, capture time.
    """

    mean: np.ndarray[tuple[int], np.dtype[np.float32]]
    weight_s: float = 0.0
    until_us: int = 0

    @classmethod
    def empty(cls, dim: int) -> "Background":
        """Of a stream that nothing is known of."""
        return cls(np.zeros(dim, np.float32))

    @property
    def is_warm(self) -> bool:
        """Whether enough was met to call anything usual."""
        return self.weight_s >= WARM_UP_S

    def is_due(self, end_us: int) -> bool:
        """Whether a window that ends then would be looked at: one in `EVERY_S`."""
        return end_us >= self.until_us + round(EVERY_S * 1e6)


def update(state: Background, wholes: Sequence[torch.Tensor], end_us: int, *, is_alert: bool) -> Background:
    """Take in what a window showed, if one is due.

    Each one stands for `EVERY_S`, however long the stream was away before.

    Args:
        state: Up to now.
        wholes: float32 ``(D,)`` of each of its frames or stretches.
        end_us: The window's end.
        is_alert: An event is open, or would be: it is not taken in, so that no alert is learnt away.
    """
    if not wholes or not state.is_due(end_us):
        return state
    if is_alert:
        return replace(state, until_us=end_us)
    weight_s = state.weight_s * 0.5 ** (EVERY_S / HALF_LIFE_S) + EVERY_S
    now = torch.stack(tuple(wholes)).mean(0).cpu().numpy()
    mean = (state.mean + (now - state.mean) * np.float32(EVERY_S / weight_s)).astype(np.float32)
    return Background(mean, weight_s, end_us)


def usual_lead(state: Background, vectors: torch.Tensor, ordinary: Ordinary, scaling: Scaling) -> torch.Tensor:
    """How much of each prompt's score is the stream's own: float32 ``(P,)``, not negative, to be taken away.

    Changes as slowly as the background does, so it is worth keeping between windows.

    Args:
        state: Of the stream.
        vectors: float32 ``(P, D)``, the prompts.
        ordinary: What the prompts were normalised by.
        scaling: Theirs.
    """
    if not state.is_warm:
        return torch.zeros(len(vectors))
    apart = torch.from_numpy(state.mean) - ordinary.whole.mean(0)
    return SHARE * (scaling.scale * (vectors @ apart)).clamp_min(0)


def to_document(state: Background) -> dict[str, Any]:
    """As JSON can hold it, to the last bit, so that a successor goes on just as we would have: 2 kB."""
    packed = base64.b64encode(state.mean.astype("<f4").tobytes()).decode()
    return {"mean": packed, "weight_s": state.weight_s, "until_us": state.until_us}


def from_document(document: Mapping[str, Any], dim: int) -> Background:
    """What `to_document` wrote.

    Raises:
        ModelError: It is something else, or of an encoder with tokens of another length.
    """
    try:
        raw = base64.b64decode(document["mean"], validate=True)
        mean = np.frombuffer(raw, "<f4").astype(np.float32)
        weight_s, until_us = float(document["weight_s"]), int(document["until_us"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ModelError(f"the background of a stream cannot be read: {error}; it starts afresh without it") from error
    if mean.shape != (dim,) or not np.isfinite(mean).all() or not 0 <= weight_s < float("inf"):
        raise ModelError(f"the background of a stream has {len(mean)} values, not {dim} finite ones; start afresh")
    return Background(mean, weight_s, until_us)
