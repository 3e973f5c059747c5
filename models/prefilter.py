"""Which of ten thousand prompts can reach their floor in which frame, for the price of a few vectors.

A prompt's score in a frame is a mean of its similarities to the cells, weighted by attention, mixed with its similarity
to the whole. So it is at most its best similarity to a *joint* vector: a cell and the frame's whole, mixed likewise.

All joint vectors against all prompts would cost too much, so vectors that are alike, such as a wall's in one frame and
the next, are grouped. A prompt's similarity to any of a group is at most that to the group's centre and the group's
radius more. That is proven, but takes a vector to lie from the centre straight towards the prompt. It never quite does,
and `LEAN` is how much of the radius is reckoned with (`watchword bench prefilter`, models/weights).

Products are of eight-bit integers: a quarter of the memory to read, and processors multiply them four times as fast.
"""

from dataclasses import dataclass

import numpy as np
import torch

from models.queries import Eighths, Queries

LEAN = 0.75
VECTORS_EACH = 12  # joint vectors to a group, about: more groups cost more at first and spare more later
MOST_GROUPS = 96
ROUNDS = 2  # of Lloyd's algorithm (1982)
FEW = 1000  # so many prompts are looked at at once; more, group by group
CHUNK_PRODUCTS = 1_000_000  # products held at once
ROUNDING = 0.005  # eight-bit products of unit vectors err by less
_UNREACHED = 2**30  # no sum of products is as large


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What may matter.

    Attributes:
        rows: int64 ``(R,)``, ascending: prompts that may reach their floor in some frame.
        may_match: bool ``(F, R)``: in which.
        estimates: float32 ``(P,)``, of the best score in any frame, each under the prompt's floor.
    """

    rows: torch.Tensor
    may_match: torch.Tensor
    estimates: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Vectors that are alike.

    Attributes:
        centres: ``G`` of them.
        radius: float32 ``(G,)``: how far the farthest vector lies from its centre.
        members: int8 ``(n, D)`` each, with the scale of the centres.
    """

    centres: Eighths
    radius: torch.Tensor
    members: tuple[torch.Tensor, ...]


def prefilter(
    tokens: torch.Tensor,
    whole: torch.Tensor,
    mix: float,
    queries: Queries,
    floors: torch.Tensor,
    lean: float = LEAN,
) -> Candidates:
    """Find the prompts that can reach their floor, and the frames they can reach it in.

    Args:
        tokens: float32 ``(F, S, D)``, unit length, on the CPU.
        whole: float32 ``(F, D)``, unit length.
        mix: Share of the attended similarity in the score.
        queries: ``P`` prompts.
        floors: float32 ``(P,)``; infinite where nothing matters.
        lean: Share of a group's radius that may add to a similarity. 1: the proven bound.
    """
    vectors = torch.lerp(whole[:, None], tokens, mix).flatten(0, 1)
    joint = Eighths.of_vectors(vectors)
    if len(queries) <= FEW:
        rows = floors.isfinite().nonzero().squeeze(1)
        estimates = torch.minimum(floors - ROUNDING, torch.zeros(()))
    else:
        best = _look_by_group(arrange(vectors, joint), queries.eighths, floors, lean)
        estimates = best * (joint.scale * queries.eighths.scale)
        rows = (estimates + ROUNDING >= floors).nonzero().squeeze(1)
    best = best_joint(queries.eighths.of(rows), joint, len(tokens))
    estimates[rows] = torch.maximum(estimates[rows], best.amax(1))
    may_match = best + ROUNDING >= floors[rows, None]
    return Candidates(rows, may_match.T, torch.minimum(estimates, floors - ROUNDING))


def arrange(vectors: torch.Tensor, rounded: Eighths) -> Groups:
    """Group vectors that are alike, float32 ``(N, D)`` and the same in eight bits."""
    count = max(1, min(MOST_GROUPS, len(vectors) // VECTORS_EACH))
    centres = rounded.values[torch.linspace(0, len(vectors) - 1, count).long()]
    owner = _nearest(rounded.values, centres)
    for _ in range(ROUNDS):
        sizes = torch.bincount(owner, minlength=count).clamp_min(1)
        sums = vectors.new_zeros((count, vectors.shape[1])).index_add_(0, owner, vectors)
        centres = (sums / (sizes[:, None] * rounded.scale)).round_().to(torch.int8)
        owner = _nearest(rounded.values, centres)
    apart = (vectors - (centres.float() * rounded.scale).index_select(0, owner)).norm(dim=1)
    radius = torch.zeros(count).scatter_reduce(0, owner, apart, "amax")
    sizes = torch.bincount(owner, minlength=count)
    members = torch.split(rounded.values.index_select(0, owner.argsort()), sizes.tolist())
    return Groups(Eighths(centres, rounded.scale), radius, members)


def _nearest(values: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The nearest centre of each vector, int8 ``(N, D)`` and ``(G, D)`` to int64 ``(N,)``."""
    # The square of a distance, less the vector's own and halved: the rest does not change who is nearest.
    return (torch._int_mm(values, centres.T) - centres.float().square().sum(1) / 2).argmax(1)


def _look_by_group(groups: Groups, queries: Eighths, floors: torch.Tensor, lean: float) -> torch.Tensor:
    """The best sum of products of each prompt: with the centres, and with members of groups that it may reach.

    Args:
        groups: ``G`` of them.
        queries: ``P`` prompts.
        floors: float32 ``(P,)``.
        lean: See `prefilter`.

    Returns:
        int32 ``(P,)``, to be scaled; too low only where that leaves it under the floor.
    """
    # Sums are compared as they are: to scale each would cost as much as the product.
    unit = groups.centres.scale * queries.scale
    least = ((floors - ROUNDING) / unit).floor().clamp(-_UNREACHED, _UNREACHED).int()
    reach = (lean * groups.radius / unit).ceil().int()
    likeness = torch._int_mm(groups.centres.values, queries.values.T)
    best = likeness.amax(0)
    for mine, may_reach in zip(groups.members, likeness.add_(reach[:, None]) >= least, strict=True):
        rows = torch.from_numpy(np.flatnonzero(may_reach.numpy()))  # five times as fast as torch's own
        if len(mine) and len(rows):
            found = torch._int_mm(mine, queries.values.index_select(0, rows).T).amax(0)
            best[rows] = torch.maximum(best[rows], found)
    return best


def best_joint(queries: Eighths, joint: Eighths, frames: int) -> torch.Tensor:
    """The best similarity of each prompt to a joint vector of each frame: ``(R, F)``."""
    step = max(1, CHUNK_PRODUCTS // len(joint))
    best = [
        queries.of(rows).times(joint).view(-1, frames, len(joint) // frames).amax(2)
        for rows in torch.split(torch.arange(len(queries)), step)
        if len(rows)
    ]
    return torch.cat(best) if best else torch.zeros(0, frames)
