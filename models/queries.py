"""Prompts as the aligner wants them."""

from dataclasses import dataclass, field

import torch

_MOST = 127  # of a signed byte


@dataclass(frozen=True, slots=True, eq=False)
class Eighths:
    """Vectors of about equal spread in eight bits: for products that may err a little.

    Attributes:
        values: int8 ``(N, D)``.
        scale: A vector is about its values times this. One for all, so that whole sums compare.
    """

    values: torch.Tensor
    scale: float

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of_vectors(cls, vectors: torch.Tensor) -> "Eighths":
        """Round float32 ``(N, D)``."""
        scale = max(float(vectors.abs().amax()), 1e-12) / _MOST if len(vectors) else 1.0
        return cls((vectors / scale).round_().to(torch.int8), scale)

    def of(self, rows: torch.Tensor) -> "Eighths":
        """Some of them, by int64 ``(R,)``."""
        # Whole rows are copied at once: indexing would go byte by byte.
        return Eighths(self.values.index_select(0, rows), self.scale)

    def times(self, other: "Eighths") -> torch.Tensor:
        """Products of each with each of ``K`` others: float32 ``(N, K)``."""
        products = torch._int_mm(self.values, other.values.T)  # there is no public one for eight bits
        return products.float().mul_(self.scale * other.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """``P`` prompts in one encoder's text space.

    Attributes:
        vectors: float32 ``(P, D)``, unit length.
        contrast: float32 ``(C, D)``, unit length: the contrast prompts of all of them, one after the other.
        contrast_of: int64 ``(C,)``, the prompt that each belongs to, ascending.
    """

    vectors: torch.Tensor
    contrast: torch.Tensor
    contrast_of: torch.Tensor
    _eighths: list[Eighths] = field(init=False, default_factory=list)

    @property
    def eighths(self) -> Eighths:
        """The vectors in eight bits, for the prefilter; made when first asked for."""
        if not self._eighths:
            self._eighths.append(Eighths.of_vectors(self.vectors))
        return self._eighths[0]

    @property
    def has_contrast(self) -> torch.Tensor:
        """Which prompts have contrast prompts: bool ``(P,)``."""
        marked = torch.zeros(len(self.vectors), dtype=torch.bool, device=self.vectors.device)
        marked[self.contrast_of] = True
        return marked

    def __len__(self) -> int:
        return len(self.vectors)

    def of(self, rows: torch.Tensor) -> "Queries":
        """Some of the prompts, by ascending int64 ``(R,)``."""
        place = torch.full((len(self.vectors),), -1, dtype=torch.int64, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        owner = place[self.contrast_of]
        kept = owner >= 0
        return Queries(self.vectors[rows], self.contrast[kept], owner[kept])

    def to(self, device: torch.device | str) -> "Queries":
        """The same on another device."""
        if self.vectors.device == torch.device(device):
            return self
        return Queries(self.vectors.to(device), self.contrast.to(device), self.contrast_of.to(device))

    @classmethod
    def plain(cls, vectors: torch.Tensor) -> "Queries":
        """Prompts without contrast."""
        return cls(vectors, vectors[:0], torch.zeros(0, dtype=torch.int64, device=vectors.device))
