"""Prompts as the aligner wants them."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """``P`` prompts in one encoder's text space.

    Attributes:
        vectors: float32 ``(P, D)``, unit length.
        contrast: float32 ``(C, D)``, unit length: the contrast prompts of all of them, one after the other.
        contrast_of: int64 ``(C,)``, the prompt that each belongs to, ascending.
        compact: bfloat16 ``(P, D)``: half the memory to read for the prefilter.
    """

    vectors: torch.Tensor
    contrast: torch.Tensor
    contrast_of: torch.Tensor
    compact: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compact", self.vectors.bfloat16())

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
        return Queries(self.vectors.to(device), self.contrast.to(device), self.contrast_of.to(device))

    @classmethod
    def plain(cls, vectors: torch.Tensor) -> "Queries":
        """Prompts without contrast."""
        return cls(vectors, vectors[:0], torch.zeros(0, dtype=torch.int64, device=vectors.device))
