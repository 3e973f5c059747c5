"""Which of ten thousand prompts can reach their floor at all, for the price of a few vectors.

Some cells represent the others. By the triangle inequality for angles, a cell is no nearer to a prompt than its
representative is, less the angle between the two:

    angle(prompt, cell) >= angle(prompt, representative) - angle(representative, cell)

so the attended similarity, at most the best cell's, is bounded from above, and no prompt over its floor is lost.
Representatives are chosen farthest first (Gonzalez 1985): an odd cell, such as a small flame's, represents itself.
"""

import math

import torch

from models.queries import Queries

RADIUS = math.radians(25)  # more representatives are chosen until every cell is this near one
MOST_CELLS = 24  # representatives of cells
MOST_WHOLES = 4  # and of whole pictures
ROUNDING = 0.01  # bfloat16 products of unit vectors err by less


def estimate(
    tokens: torch.Tensor, whole: torch.Tensor, mix: float, queries: Queries
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score prompts roughly on all frames of a batch at once.

    Args:
        tokens: float32 ``(F, S, D)``, unit length.
        whole: float32 ``(F, D)``, unit length.
        mix: Share of the attended similarity in the score.
        queries: ``P`` prompts.

    Returns:
        An estimate ``(P,)`` of each prompt's best score in any of the frames, and a bound ``(P,)`` that neither it nor
        any of the prompt's scores exceeds.
    """
    cells, cell_radii = representatives(tokens.flatten(0, 1), MOST_CELLS)
    wholes, whole_radii = representatives(whole, MOST_WHOLES)
    chosen = torch.cat((cells, wholes)).bfloat16()
    similarity = (chosen @ queries.compact.T).float()
    nearest = _nearest_possible(similarity + ROUNDING, torch.cat((cell_radii, whole_radii)))
    parts = (slice(0, len(cells)), slice(len(cells), None))
    attended, overall = (similarity[part].amax(0) for part in parts)
    most_attended, most_overall = (nearest[part].amax(0) for part in parts)
    return mix * attended + (1 - mix) * overall, mix * most_attended + (1 - mix) * most_overall


def representatives(vectors: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose at most ``most`` of ``(N, D)`` unit vectors so that the others lie near one of them.

    Returns:
        The chosen ``(K, D)``, and the angle in radians to the farthest vector that each stands for, ``(K,)``.
    """
    rows = [0]
    similarity = vectors @ vectors[0]
    owner = torch.zeros(len(vectors), dtype=torch.int64)
    limit = math.cos(RADIUS)
    while len(rows) < most:
        worst, row = similarity.min(0)
        if float(worst) >= limit:
            break
        closer = vectors @ vectors[row]
        owner[closer > similarity] = len(rows)
        similarity = torch.maximum(similarity, closer)
        rows.append(int(row))
    least = torch.ones(len(rows)).scatter_reduce(0, owner, similarity, "amin")
    # A cosine near 1 is blurred by rounding far more than the angle that it stands for.
    return vectors[rows], (least - 1e-6).clamp(-1, 1).acos()


def _nearest_possible(similarity: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """Cosine to the nearest point within an angle: ``cos(max(0, acos(s) - r))``; ``(K, P)`` and ``(K,)``."""
    cosine, sine = radii.cos()[:, None], radii.sin()[:, None]
    turned = similarity * cosine + (1 - similarity.square()).clamp_min(0).sqrt() * sine
    return torch.where(similarity >= cosine, 1.0, turned)
