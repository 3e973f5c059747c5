"""Which of ten thousand prompts can reach their floor in which frame, for the price of a few vectors.

A prompt's score in a frame is a mean of its similarities to the cells, weighted by attention, mixed with its similarity
to the whole. So it is at most its best similarity to a *joint* vector: a cell and the frame's whole, mixed likewise.
That bound is proven, and hardly ever far from the score. All joint vectors against all prompts would cost too much, so
a few centres stand for them first: a joint vector's similarity to a prompt is its centre's plus what the rest, vector
minus centre, adds. At most that is the rest's length, if the rest points straight at the prompt; it never quite does,
and `LEAN` is how much of it matches gained on real footage at most (`watchword bench prefilter`, models/weights).

Products are of eight-bit integers: a quarter of the memory to read, and processors multiply them four times as fast.
"""

from dataclasses import dataclass

import torch

from models.queries import Eighths, Queries

LEAN = 0.7
EVEN, ODD = 24, 8  # centres that lie evenly over the cells, and more of those that are least like any of them
FEW = 400  # so many prompts are looked at at once; more, centre by centre
ROUNDING = 0.005  # eight-bit products of unit vectors err by less
CHUNK_PRODUCTS = 1_000_000  # products held at once


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
        lean: Share of the rest's length that may add to a similarity. 1: the proven bound.
    """
    vectors = torch.lerp(whole[:, None], tokens, mix).flatten(0, 1)
    joint = Eighths.of_vectors(vectors)
    centres, radii, owner = cluster(vectors, joint)
    estimates, may_reach = _first_look(queries.eighths, centres, lean * radii, floors)
    rows = may_reach.any(0).nonzero().squeeze(1)
    if len(rows) > FEW:
        rows = _second_look(queries.eighths, joint, owner, may_reach, floors, estimates)
    best = best_joint(queries.eighths.of(rows), joint, len(tokens))
    estimates[rows] = torch.maximum(estimates[rows], best.amax(1))
    may_match = best + ROUNDING >= floors[rows, None]
    return Candidates(rows, may_match.T, torch.minimum(estimates, floors - ROUNDING))


def _first_look(
    queries: Eighths, centres: Eighths, reach: torch.Tensor, floors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres against all prompts: the best similarity ``(P,)``, and bool ``(K, P)``, whose vectors may reach whom."""
    likeness = centres.times(queries)
    return likeness.amax(0), likeness >= floors - (reach + ROUNDING)[:, None]


def _second_look(
    queries: Eighths,
    joint: Eighths,
    owner: torch.Tensor,
    may_reach: torch.Tensor,
    floors: torch.Tensor,
    estimates: torch.Tensor,
) -> torch.Tensor:
    """Each centre's vectors against the prompts that they may reach: those they do reach, ascending rows ``(R,)``.

    Args:
        queries: ``P`` prompts.
        joint: ``N`` vectors.
        owner: int64 ``(N,)``, the centre that each belongs to.
        may_reach: bool ``(K, P)``: the vectors of a centre are looked at for these prompts only.
        floors: float32 ``(P,)``.
        estimates: float32 ``(P,)``; raised to what is found.
    """
    order = owner.argsort()
    members = torch.split(order, torch.bincount(owner, minlength=len(may_reach)).tolist())
    centre, prompt = may_reach.nonzero(as_tuple=True)
    asking = torch.split(prompt, torch.bincount(centre, minlength=len(may_reach)).tolist())
    for mine, rows in zip(members, asking, strict=True):
        if len(rows) and len(mine):
            best = joint.of(mine).times(queries.of(rows)).amax(0)
            estimates[rows] = torch.maximum(estimates[rows], best)
    return (estimates + ROUNDING >= floors).nonzero().squeeze(1)


def best_joint(queries: Eighths, joint: Eighths, frames: int) -> torch.Tensor:
    """The best similarity of each prompt to a joint vector of each frame: ``(R, F)``."""
    step = max(1, CHUNK_PRODUCTS // len(joint))
    best = [
        queries.of(rows).times(joint).view(-1, frames, len(joint) // frames).amax(2)
        for rows in torch.split(torch.arange(len(queries)), step)
        if len(rows)
    ]
    return torch.cat(best) if best else torch.zeros(0, frames)


def cluster(vectors: torch.Tensor, rounded: Eighths) -> tuple[Eighths, torch.Tensor, torch.Tensor]:
    """Choose centres that stand for vectors ``(N, D)``, each vector for the centre nearest to it.

    An odd vector, such as a small flame's, stands for itself: nothing is near it.

    Args:
        vectors: float32 ``(N, D)``.
        rounded: The same in eight bits.

    Returns:
        ``K`` centres; the distance to the farthest vector that each stands for, ``(K,)``; each vector's centre,
        int64 ``(N,)``.
    """
    if len(vectors) <= EVEN + ODD:
        return rounded, torch.zeros(len(vectors)), torch.arange(len(vectors))
    lengths = vectors.square().sum(1)
    seeds = torch.linspace(0, len(vectors) - 1, EVEN).long()
    owner = _squared_distances(rounded, lengths, rounded.of(seeds), lengths[seeds]).argmin(1)
    belongs = torch.nn.functional.one_hot(owner, EVEN).to(vectors.dtype)
    means = (belongs.T @ vectors) / belongs.sum(0).clamp_min(1)[:, None]
    middle = Eighths.of_vectors(means)
    distances = _squared_distances(rounded, lengths, middle, means.square().sum(1))
    odd = distances.amin(1).topk(ODD).indices
    others = _squared_distances(rounded, lengths, rounded.of(odd), lengths[odd])
    squared, owner = torch.cat((distances, others), 1).min(1)
    farthest = torch.zeros(EVEN + ODD).scatter_reduce(0, owner, squared, "amax")
    return middle.and_also(rounded.of(odd)), farthest.clamp_min(0).sqrt(), owner


def _squared_distances(
    vectors: Eighths, lengths: torch.Tensor, centres: Eighths, centre_lengths: torch.Tensor
) -> torch.Tensor:
    """``N`` and ``K`` vectors, with their squared lengths, to ``(N, K)``."""
    return vectors.times(centres).mul_(-2).add_(lengths[:, None]).add_(centre_lengths)
