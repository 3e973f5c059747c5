"""The aligner without its economies."""

import torch

from models.aligner import Aligner
from models.queries import Queries


class ExactAligner(Aligner):
    """Gives every prompt its exact score: a worker may estimate those that cannot fire, a ranking needs them all."""

    __slots__ = ()

    def pictures(
        self,
        cells: torch.Tensor,
        whole: torch.Tensor,
        queries: Queries,
        allowed_cells: torch.Tensor | None = None,
        floors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Aligner.pictures`."""
        del floors
        return Aligner.pictures(self, cells, whole, queries, allowed_cells)

    def sounds(
        self, tokens: torch.Tensor, whole: torch.Tensor, queries: Queries, floors: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Aligner.sounds`."""
        del floors
        return Aligner.sounds(self, tokens, whole, queries)
