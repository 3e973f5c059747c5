"""Which of ten thousand prompts can reach their floor at all, for the price of a few vectors.

Some vectors, centres, stand for the cells of all frames of a batch. A cell's similarity to a prompt is its centre's
plus what the rest, cell minus centre, adds; that is at most the rest's length, if the rest points straight at the
prompt. It never does: over frames of real footage and 10,000 prompts from a dictionary, no match over its floor gained
`LEAN` of that length. So the bound is a measured one (models/weights/README.md); the proven one, a lean of 1, would
keep nearly every prompt. The attended similarity is at most the best cell's, so nothing else is lost.

Two rounds: few centres drop most prompts, more of them most of the rest.
"""

import torch

from models.queries import Queries

LEAN = 0.6
ROUNDS = (12, 40)  # centres of cells in each
ROUNDING = 0.005  # bfloat16 products of unit vectors err by less


def prefilter(
    tokens: torch.Tensor, whole: torch.Tensor, mix: float, queries: Queries, floors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the prompts that can reach their floor in some frame of a batch.

    Args:
        tokens: float32 ``(F, S, D)``, unit length, on the CPU.
        whole: float32 ``(F, D)``, unit length.
        mix: Share of the attended similarity in the score.
        queries: ``P`` prompts.
        floors: float32 ``(P,)``.

    Returns:
        Their ascending rows, int64 ``(R,)``, and for all prompts an estimate of the best score in any frame, ``(P,)``.
        The estimate of a prompt that is not among the rows is under its floor.
    """
    cells = tokens.flatten(0, 1)
    seeds = spread(cells, max(ROUNDS))
    overall = (whole.bfloat16() @ queries.compact.T).amax(0).float()
    rows = torch.arange(len(queries))
    estimate = torch.empty(len(queries))
    for count in ROUNDS:
        centres, radii = cluster(cells, seeds[:count])
        compact = queries.compact if len(rows) == len(queries) else queries.compact[rows]
        attended = (centres.bfloat16() @ compact.T).float()
        estimate[rows] = mix * attended.amax(0) + (1 - mix) * overall[rows]
        highest = attended.add_((LEAN * radii)[:, None]).amax(0)
        bound = mix * highest + (1 - mix) * overall[rows] + ROUNDING
        rows = rows[bound >= floors[rows]]
        if len(rows) == 0 or len(cells) <= count:
            break
    return rows, estimate


def spread(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """Choose vectors far from each other, each farthest from those before it (Gonzalez 1985).

    An odd cell, such as a small flame's, is chosen early and stands for itself.

    Args:
        vectors: ``(N, D)``, unit length.
        count: How many, or ``N``.

    Returns:
        ``(count, D)``.
    """
    chosen = [0]
    nearest = vectors @ vectors[0]
    while len(chosen) < min(count, len(vectors)):
        row = int(nearest.argmin())
        torch.maximum(nearest, vectors @ vectors[row], out=nearest)
        chosen.append(row)
    return vectors[chosen]


def cluster(vectors: torch.Tensor, seeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Move seeds to the middle of the vectors that are nearest to them.

    Returns:
        Centres ``(K, D)``, unit length, and the distance to the farthest vector that each stands for, ``(K,)``.
    """
    owner = (vectors @ seeds.T).argmax(1)
    sums = torch.zeros_like(seeds).index_add_(0, owner, vectors)
    lengths = sums.norm(dim=1, keepdim=True)
    centres = torch.where(lengths > 1e-6, sums / lengths.clamp_min(1e-6), seeds)
    similarity, owner = (vectors @ centres.T).max(1)
    least = torch.ones(len(seeds)).scatter_reduce(0, owner, similarity, "amin")
    return centres, (2 - 2 * least).clamp_min(0).sqrt()
