"""The cross-attention of prompts over tokens, untrained: the *dense bridge*.

Tokens lie in the text encoder's own space, so a prompt's embedding is the query and the tokens are keys and values as
they come. A prompt attends to the cells of a frame (or the times of a sound); its score is the similarity to what it
attends to, mixed with the similarity to the whole. Scores are cosines; `calibrate` makes probabilities of them.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from models.prefilter import Candidates, prefilter
from models.queries import Queries

# softmax(q.k / 0.02) over cosines: half a dozen cells at most share the weight. Insensitive between 0.01 and 0.04.
TEMPERATURE = 0.02
SHOWN_TEMPERATURE = 0.04  # of what is shown to people: regions overlap best from 0.04 to 0.06
MIX = 0.5  # share of the attended similarity; the rest is the whole's
CHUNK_SCORES = 4_000_000  # similarities held at once: 16 MB each for them and for their softmax
# Of fewer prompts than this, or of fewer similarities, all cost less than choosing whom to spare.
PREFILTER_PROMPTS, PREFILTER_FROM = 250, 150_000


@dataclass(frozen=True, slots=True)
class Aligner:
    """Scores prompts against tokens. Stateless; on whatever device the tensors are.

    Attributes:
        mix: Share of the attended similarity in the score, 0..1.
        temperature: Of the attention.
    """

    mix: float = MIX
    temperature: float = TEMPERATURE

    def pictures(
        self,
        cells: torch.Tensor,
        whole: torch.Tensor,
        queries: Queries,
        allowed_cells: torch.Tensor | None = None,
        floors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score each prompt on each frame.

        Args:
            cells: float32 ``(F, S, D)``, unit length.
            whole: float32 ``(F, D)``, unit length.
            queries: ``P`` prompts.
            allowed_cells: bool ``(P, S)``: where each prompt may look, at least one cell each. Such a prompt sees
                nothing of the rest: its whole is the mean of its cells. None: everywhere.
            floors: float32 ``(P,)``, the lowest score of each that matters. Given them, a prompt that stays under its
                floor in every frame gets one cheap estimate under the floor for all of them; see `prefilter`.

        Returns:
            float32 ``(F, P)``, cosines.
        """
        if allowed_cells is not None and bool(allowed_cells.all()):
            allowed_cells = None
        return self._score(cells, whole, queries, allowed_cells, floors)

    def sounds(
        self, tokens: torch.Tensor, whole: torch.Tensor, queries: Queries, floors: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Score each prompt on each sound: float32 ``(B, U, D)`` and ``(B, D)`` to ``(B, P)``; see `pictures`."""
        return self._score(tokens, whole, queries, None, floors)

    def attention(
        self,
        cells: torch.Tensor,
        query: torch.Tensor,
        allowed_cells: torch.Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> torch.Tensor:
        """Where one prompt is matched, for people: by what its cells are like the prompt beyond what is usual there.

        Plain similarity is highest where a cell says little: of fire planted in ordinary footage its maximum found
        23 %; less what a cell has in common with its frame, and smoothed, 57 % (`watchword bench evidence`).

        Args:
            cells: float32 ``(S, D)``, unit length, of one frame.
            query: float32 ``(D,)``, unit length.
            allowed_cells: bool ``(S,)``; None: everywhere.
            grid: Rows and columns of the cells; None: they have no neighbours to be smoothed with.

        Returns:
            float32 ``(S,)``, which sums to 1.
        """
        margin = cells @ query - cells @ functional.normalize(cells.mean(0), dim=0)
        if grid is not None and min(grid) > 1:
            near = margin.new_tensor((0.25, 0.5, 0.25))
            padded = functional.pad(margin.view(1, 1, *grid), (1, 1, 1, 1), mode="replicate")
            margin = functional.conv2d(padded, torch.outer(near, near)[None, None]).reshape(-1)
        if allowed_cells is not None:
            margin = margin.masked_fill(~allowed_cells, float("-inf"))
        return (margin / SHOWN_TEMPERATURE).softmax(0)

    def _score(
        self,
        tokens: torch.Tensor,
        whole: torch.Tensor,
        queries: Queries,
        allowed: torch.Tensor | None,
        floors: torch.Tensor | None,
    ) -> torch.Tensor:
        frames, prompts = len(tokens), len(queries)
        if frames == 0 or prompts == 0:
            return tokens.new_zeros((frames, prompts))
        # On a GPU the exact product is cheap, and a choice would make the host wait for it.
        is_small = prompts < PREFILTER_PROMPTS or tokens.shape[0] * tokens.shape[1] * prompts < PREFILTER_FROM
        if floors is None or is_small or tokens.is_cuda:
            return self._exact(tokens, whole, queries, allowed)
        found = prefilter(tokens, whole, self.mix, queries, floors)
        scores = found.estimates.expand(frames, prompts).clone()
        self._score_pairs(tokens, whole, queries, found, scores)
        # With a contrast a score is lower than was bounded; with a region the whole is another, and was not bounded.
        others = torch.zeros(prompts, dtype=torch.bool)
        others[found.rows] = queries.has_contrast[found.rows]
        if allowed is not None:
            others |= ~allowed.all(1)
        rows = others.nonzero().squeeze(1)
        if len(rows):
            part = None if allowed is None else allowed[rows]
            scores[:, rows] = self._exact(tokens, whole, queries.of(rows), part)
        return scores

    def _score_pairs(
        self, tokens: torch.Tensor, whole: torch.Tensor, queries: Queries, found: Candidates, scores: torch.Tensor
    ) -> None:
        """Each prompt on those frames alone that it may match, into ``scores``."""
        frame, place = found.may_match.nonzero(as_tuple=True)
        column = found.rows[place]
        vectors = queries.vectors[column]
        each = tokens.new_empty((len(frame), tokens.shape[1]))
        start = 0
        for index, count in enumerate(found.may_match.sum(1).tolist()):
            part = slice(start, start + count)
            torch.mm(vectors[part], tokens[index].T, out=each[part])
            start += count
        attended = ((each / self.temperature).softmax(-1) * each).sum(-1)
        overall = (vectors * whole[frame]).sum(-1)
        scores[frame, column] = self.mix * attended + (1 - self.mix) * overall

    def _exact(
        self, tokens: torch.Tensor, whole: torch.Tensor, queries: Queries, allowed: torch.Tensor | None
    ) -> torch.Tensor:
        """Every prompt on every frame, some prompts at a time so that memory stays bounded."""
        frames, cells, _ = tokens.shape
        step = max(1, CHUNK_SCORES // (frames * cells))
        scores = tokens.new_empty((frames, len(queries)))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            mask = None if allowed is None else allowed[part]
            scores[:, part] = self._similarity(tokens, whole, queries.vectors[part], mask)
        if len(queries.contrast_of) == 0:
            return scores
        # Rather this than that: what a contrast is ahead by, the prompt falls behind by. Never a gain for the prompt.
        own = queries.contrast_of
        against = tokens.new_empty((frames, len(own)))
        for start in range(0, len(own), step):
            part = slice(start, start + step)
            mask = None if allowed is None else allowed[own[part]]
            against[:, part] = self._similarity(tokens, whole, queries.contrast[part], mask)
        lead = (against - scores[:, own]).clamp_min(0)
        worst = torch.zeros_like(scores).scatter_reduce(1, own.expand(frames, -1), lead, "amax")
        return scores - worst

    def _similarity(
        self, tokens: torch.Tensor, whole: torch.Tensor, vectors: torch.Tensor, allowed: torch.Tensor | None
    ) -> torch.Tensor:
        """``(F, S, D)``, ``(F, D)``, ``(p, D)`` and bool ``(p, S)`` to ``(F, p)``."""
        frames, cells, dim = tokens.shape
        each = (vectors @ tokens.reshape(-1, dim).T).view(-1, frames, cells)
        if allowed is None:
            overall = vectors @ whole.T
        else:
            inside = allowed.to(each.dtype)
            overall = (each * inside[:, None]).sum(-1) / _length_of_sum(tokens, inside)
            each = each.masked_fill(~allowed[:, None], float("-inf"))
        weights = (each / self.temperature).softmax(-1)
        if allowed is not None:
            each = each.nan_to_num(neginf=0.0)
        attended = (weights * each).sum(-1)
        return (self.mix * attended + (1 - self.mix) * overall).T


def _length_of_sum(tokens: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Length of the sum of each prompt's cells in each frame: ``(F, S, D)`` and ``(p, S)`` to ``(p, F)``."""
    products = tokens @ tokens.transpose(1, 2)
    squared = torch.einsum("ps,fst,pt->pf", inside, products, inside)
    return squared.clamp_min(1e-12).sqrt()


def best_frames(scores: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The best frame of each window.

    Args:
        scores: float32 ``(F, P)``, a window's frames one after the other; windows may share frames.
        first: int64 ``(B,)``, each window's first frame.
        last: int64 ``(B,)``, one past its last; equal to ``first`` in a window without frames.

    Returns:
        Scores ``(B, P)``, NaN where a window has no frames, and the frame's row ``(B, P)``, there -1.
    """
    windows, prompts = len(first), scores.shape[1]
    best = scores.new_full((windows, prompts), float("nan"))
    row = torch.full((windows, prompts), -1, dtype=torch.int64, device=scores.device)
    for window, (start, stop) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        if stop > start:
            best[window], place = scores[start:stop].max(0)
            row[window] = place + start
    return best, row
