"""Which of ten thousand prompts can reach their floor in which frame, for the price of a few vectors.

A prompt's score in a frame is a mean of its similarities to the cells, weighted by attention, mixed with its similarity
to the whole. So it is at most its best similarity to a *joint* vector: a cell and the frame's whole, mixed likewise.

All joint vectors against all prompts would cost too much, so a few directions stand for them first. A joint vector is
``along`` times its direction plus a rest at right angles to it, ``aside`` long. A prompt at an angle ``t`` from the
direction has at most ``along * cos(t) + aside * sin(t)`` in common with it, which is
``hypot(along, aside) * cos(t - atan2(aside, along))``: under a floor unless ``t`` is small enough. That is proven, but
takes the rest to point straight at the prompt. It never quite does, and `LEAN` is how much of it is reckoned with
(`watchword bench prefilter`, models/weights). A direction's vectors are taken in two rings: the near ones bound better.

Products are of eight-bit integers: a quarter of the memory to read, and processors multiply them four times as fast.
"""

from dataclasses import dataclass

import torch

from models.queries import Eighths, Queries

LEAN = 0.8
CELLS_EACH = 60  # joint vectors to a direction, about: more directions cost more at first and spare more later
LEAST, MOST = 24, 64  # directions
ODD_SHARE = 4  # one direction in so many is the vector that is least like any of the others
FEW = 400  # so many prompts are looked at at once; more, direction by direction
CHUNK_PRODUCTS = 1_000_000  # products held at once
ROUNDING = 0.005  # eight-bit products of unit vectors err by less
STEPS = 64  # floors are rounded down to so many


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
class Rings:
    """Joint vectors by the direction that stands for them, and by how far from it they are.

    Attributes:
        directions: ``K`` unit vectors.
        direction: int64 ``(R,)``, of each ring.
        length: float32 ``(R,)``, of its longest vector.
        angle: float32 ``(R,)``, between the direction and the vector farthest from it, radians.
        order: int64 ``(N,)``: the vectors, ring by ring.
        sizes: How many each ring has, ``R`` of them, none 0.
    """

    directions: Eighths
    direction: torch.Tensor
    length: torch.Tensor
    angle: torch.Tensor
    order: torch.Tensor
    sizes: list[int]


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
        lean: Share of a vector's rest that may add to a similarity. 1: the proven bound.
    """
    vectors = torch.lerp(whole[:, None], tokens, mix).flatten(0, 1)
    joint = Eighths.alike(vectors)
    rings = arrange(vectors, joint, lean)
    likeness = rings.directions.times(queries.eighths)
    estimates = likeness.amax(0)
    may_reach = likeness[rings.direction] >= least_likeness(rings, floors)
    rows = may_reach.any(0).nonzero().squeeze(1)
    if len(rows) > FEW:
        _second_look(queries.eighths, joint, rings, may_reach, estimates)
        rows = (estimates + ROUNDING >= floors).nonzero().squeeze(1)
    best = best_joint(queries.eighths.of(rows), joint, len(tokens))
    estimates[rows] = torch.maximum(estimates[rows], best.amax(1))
    may_match = best + ROUNDING >= floors[rows, None]
    return Candidates(rows, may_match.T, torch.minimum(estimates, floors - ROUNDING))


def _second_look(
    queries: Eighths, joint: Eighths, rings: Rings, may_reach: torch.Tensor, estimates: torch.Tensor
) -> None:
    """Each ring's vectors against the prompts that they may reach.

    Args:
        queries: ``P`` prompts.
        joint: ``N`` vectors with one scale.
        rings: Of the vectors.
        may_reach: bool ``(R, P)``: the vectors of a ring are looked at for these prompts only.
        estimates: float32 ``(P,)``; raised to what is found.
    """
    ring, prompt = may_reach.nonzero(as_tuple=True)
    asking = torch.split(prompt, torch.bincount(ring, minlength=len(may_reach)).tolist())
    members = torch.split(joint.values.index_select(0, rings.order), rings.sizes)
    # Eight-bit sums are compared as they are: to scale each would cost as much as the product.
    best = [
        torch._int_mm(mine, queries.values.index_select(0, rows).T).amax(0)
        for mine, rows in zip(members, asking, strict=True)
        if len(rows)
    ]
    if best:
        found = torch.cat(best) * joint.scale[0] * queries.scale[prompt]
        estimates.scatter_reduce_(0, prompt, found, "amax")


def best_joint(queries: Eighths, joint: Eighths, frames: int) -> torch.Tensor:
    """The best similarity of each prompt to a joint vector of each frame: ``(R, F)``."""
    step = max(1, CHUNK_PRODUCTS // len(joint))
    best = [
        queries.of(rows).times(joint).view(-1, frames, len(joint) // frames).amax(2)
        for rows in torch.split(torch.arange(len(queries)), step)
        if len(rows)
    ]
    return torch.cat(best) if best else torch.zeros(0, frames)


def least_likeness(rings: Rings, floors: torch.Tensor) -> torch.Tensor:
    """How like a ring's direction each prompt must be to reach its floor with one of the ring's vectors.

    Args:
        rings: ``R`` of them.
        floors: float32 ``(P,)``.

    Returns:
        ``(R, P)``, or ``(R, 1)`` where all floors are the same; over 1 where nothing reaches.
    """
    lowest = floors.amin()
    if not lowest.isfinite():
        return lowest.expand(len(rings.angle), 1)
    # Floors are rounded down to a few, whose angles are worked out once.
    step = (floors.nan_to_num(posinf=-torch.inf).amax() - lowest) / STEPS
    heights = lowest + step * torch.arange(STEPS + 1)
    reach = heights / rings.length[:, None]
    angle = rings.angle[:, None] + torch.acos(reach.clamp(-1, 1))
    least = torch.where(reach <= 1, angle.clamp(max=torch.pi).cos(), torch.inf) - ROUNDING
    least = torch.where(heights > 0, least, -torch.inf)  # beyond a right angle a short vector reaches more
    if float(step) == 0:
        return torch.where(floors.isfinite(), least[:, :1], torch.inf) if floors.isinf().any() else least[:, :1]
    number = ((floors - lowest) / step).clamp(max=STEPS).long()
    return torch.where(floors.isfinite(), least[:, number], torch.inf)


def arrange(vectors: torch.Tensor, rounded: Eighths, lean: float) -> Rings:
    """Choose directions that stand for vectors, each vector for the one most like it.

    An odd vector, such as a small flame's, stands for itself: nothing is near it.

    Args:
        vectors: float32 ``(N, D)``.
        rounded: The same in eight bits.
        lean: What is left of each vector's part beside its direction.
    """
    count = min(len(vectors), max(LEAST, min(MOST, len(vectors) // CELLS_EACH)))
    odd = count // ODD_SHARE
    seeds = torch.linspace(0, len(vectors) - 1, count - odd).long()
    likeness, owner = rounded.times(rounded.of(seeds)).max(1)
    sums = vectors.new_zeros((len(seeds), vectors.shape[1])).index_add_(0, owner, vectors)
    least_like = likeness.topk(odd, largest=False).indices
    directions = Eighths.of_vectors(torch.cat((sums, vectors[least_like])))
    exact = directions.values.float()
    lengths = exact.norm(dim=1).clamp_min(1e-12)
    along, owner = (vectors @ (exact / lengths[:, None]).T).max(1)
    aside = lean * (torch.linalg.vecdot(vectors, vectors) - along.square()).clamp_min(0).sqrt()
    length, angle = torch.hypot(along, aside), torch.atan2(aside, along)
    mean = torch.bincount(owner, angle, count) / torch.bincount(owner, minlength=count).clamp_min(1)
    ring = owner * 2 + (angle > mean[owner] + 1e-6).long()
    sizes = torch.bincount(ring, minlength=2 * count)
    used = sizes.nonzero().squeeze(1)
    longest, widest = (torch.zeros(2 * count).scatter_reduce(0, ring, part, "amax")[used] for part in (length, angle))
    units = Eighths(directions.values, 1 / lengths)
    return Rings(units, used // 2, longest, widest, ring.argsort(), sizes[used].tolist())
