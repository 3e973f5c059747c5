"""Where standing prompts meet the trained senses: which take part, and how their scores change."""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.calibrate import Calibration
from models.learned import Learned, LearnedSense, blend, score_units
from models.prompts import PromptEmbeddings
from models.queries import Queries
from streamer.types import Fresh, Tokens

MOST = 0.5  # from this share on a trained sense has most of the say
STILL_LOGIT = -3.0  # of an event that is all movement, where too little is seen to tell movement


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The prompts that one trained sense answers.

    A prompt's text says which kinds it means; each kind is asked for in its own first words, once for all prompts.

    Attributes:
        sense: The sense.
        rows: int64 ``(R,)``, their columns, ascending.
        shares: float32 ``(R,)``, 0 to 1, how much of each one's score is learned.
        kinds: float32 ``(R, K)``, of which kinds that is, rows summing to 1; where the sense computes.
        queries: float32 ``(K, Q)``, the kinds that are asked for; there, too.
        curves: float32 ``(K, 2)``, how their logits are calibrated; there, too.
    """

    sense: LearnedSense
    rows: Tensor
    shares: Tensor
    kinds: Tensor
    queries: Tensor
    curves: Tensor

    @classmethod
    def of(cls, sense: LearnedSense | None, queries: Queries) -> Self | None:
        """None where no prompt takes part."""
        if sense is None or not len(queries):
            return None
        routes = sense.route(queries.vectors)
        shares = routes.sum(1)
        rows = shares.nonzero().squeeze(1)
        if not len(rows):
            return None
        asked = routes.amax(0).nonzero().squeeze(1)
        kinds = (routes[rows][:, asked] / shares[rows, None]).to(sense.device)
        asked = asked.to(sense.device)
        return cls(sense, rows, shares[rows], kinds, sense.asking[asked], sense.curves[asked])

    def logits(self, tokens: Tensor, whole: Tensor, which: slice = slice(None)) -> Tensor:
        """Calibrated logits of its prompts, or of some: ``(N, S, D)`` and ``(N, D)`` to ``(N, R)``."""
        device = self.sense.device
        return (
            self.sense.calibrated(tokens.to(device), whole.to(device), self.queries, self.curves) @ self.kinds[which].T
        )

    def attention(self, weights: Tensor, tokens: Tensor, column: int, allowed: Tensor | None) -> Tensor:
        """Where a prompt looks in a frame, mixed as its score is.

        Args:
            weights: float32 ``(S,)``, where the bridge looks.
            tokens: float32 ``(S, D)``.
            column: The prompt.
            allowed: bool ``(S,)``, where it may.
        """
        place = (self.rows == column).nonzero()
        if not len(place):
            return weights
        row = int(place[0, 0])
        kept = slice(None) if allowed is None else allowed.to(tokens.device)
        learned = torch.zeros_like(weights)
        query = self.queries[int(self.kinds[row].argmax())]
        learned[kept] = self.sense.attention(tokens[kept], query.to(tokens.device))
        return torch.lerp(weights, learned, float(self.shares[row]))


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """By sense; None where no prompt takes part."""

    seen: Part | None = None
    moved: Part | None = None
    heard: Part | None = None

    @classmethod
    def of(cls, learned: Learned | None, embeddings: PromptEmbeddings) -> Self:
        """Route the prompts."""
        if learned is None:
            return cls()
        return cls(
            Part.of(learned.seen, embeddings.picture),
            Part.of(learned.moved, embeddings.picture),
            Part.of(learned.heard, embeddings.sound),
        )

    def columns(self) -> set[int]:
        """Of prompts that a trained sense has most of the say about."""
        parts = [part for part in (self.seen, self.moved, self.heard) if part is not None]
        return {int(column) for part in parts for column in part.rows[part.shares >= MOST]}


def of_frames(scores: Tensor, block: Fresh, part: Part, curve: Calibration, allowed: Tensor | None) -> Tensor:
    """The bridge's scores of frames, those of the routed prompts mixed with what was learned.

    Args:
        scores: float32 ``(N, P)``.
        block: The frames.
        part: Who takes part.
        curve: Of the sense: says which score a logit is.
        allowed: bool ``(P, S)``, where each prompt may look; None: everywhere.
    """
    device = scores.device
    logits = part.logits(block.tokens, block.whole)
    if allowed is not None:
        for number in (~allowed[part.rows].all(1)).nonzero().flatten().tolist():
            tokens = block.tokens[:, allowed[part.rows[number]].to(device)]
            whole = functional.normalize(tokens.sum(1), dim=-1)
            logits[:, number] = part.logits(tokens, whole, slice(number, number + 1))[:, 0]
    return blend(scores, score_units(logits, curve), part.shares.to(device), part.rows.to(device))


def of_sounds(scores: Tensor, block: Fresh, part: Part, curve: Calibration) -> Tensor:
    """Likewise for stretches of sound."""
    device = scores.device
    logits = part.logits(block.tokens, block.whole)
    return blend(scores, score_units(logits, curve), part.shares.to(device), part.rows.to(device))


def of_motions(best: NDArray[np.float32], tokens: Tokens, part: Part, curve: Calibration) -> None:
    """Mix what was learned of motion into the windows' scores, in place.

    A window's logit is the mean over its stretches. One that does not tell motion keeps no more than a doubt.

    Args:
        best: float32 ``(B, P)``, each window's best frame, NaN where there is none.
        tokens: Of the batch.
        part: Who takes part.
        curve: Of what is seen.
    """
    moved = list(dict.fromkeys(stretch for mine in tokens.motions for stretch in mine))
    place = {stretch: number for number, stretch in enumerate(moved)}
    rows, shares = part.rows.numpy(), part.shares.numpy()
    logits = np.zeros((0, len(rows)), np.float32)
    if moved:
        block = torch.stack([stretch.token for stretch in moved])
        logits = part.logits(block[:, None], block).cpu().numpy()
    for window, mine in enumerate(tokens.motions or ((),) * len(best)):
        own = best[window, rows]
        told = np.full(len(rows), STILL_LOGIT, np.float32)
        if mine:
            told = logits[[place[stretch] for stretch in mine]].mean(0)
        learned = score_units(torch.from_numpy(told), curve).numpy()
        if not mine:
            learned = np.fmin(own, learned)
        mixed = (1 - shares) * own + shares * learned
        best[window, rows] = np.where(np.isnan(own), own, mixed)


def place_of_motion(
    tokens: Tokens, row: int, column: int, part: Part | None, grid: tuple[int, int]
) -> tuple[int, NDArray[np.float64]] | None:
    """Where most moved in a window, for a prompt that is about motion: the stretch's middle and shares by cell.

    None for other prompts, and where no motion can be told.
    """
    places = [] if part is None else (part.rows == column).nonzero().flatten().tolist()
    if part is None or not places or not tokens.motions or not tokens.motions[row]:
        return None
    stretches = tokens.motions[row]
    block = torch.stack([stretch.token for stretch in stretches])
    best = stretches[int(part.logits(block[:, None], block, slice(places[0], places[0] + 1)).argmax())]
    speeds = cv2.resize(np.square(best.speeds), grid[::-1], interpolation=cv2.INTER_AREA).astype(np.float64)
    return (best.start_us + best.end_us) // 2, speeds / max(float(speeds.sum()), 1e-9)
