"""Kinds of sound that were learnt, on top of the sound encoder's tokens."""

import math

import torch
from torch import Tensor, nn

SHARPNESS = 20.0  # of a prompt's choice among the kinds, over cosines


class KindHeads(nn.Module):
    """A linear head a kind over every token; a sound is as much of a kind as its best tokens are.

    The tokens hold what the encoder heard already, in 385 numbers: a network that learns more of a few hundred
    recordings learns who made them.

    Args:
        token_dim: Length of a token.
        query_dim: Length of a prompt's vector.
        kinds: ``K``, heads.
    """

    def __init__(self, token_dim: int, query_dim: int, kinds: int) -> None:
        super().__init__()
        self.head = nn.Linear(token_dim, kinds)
        # What prompts for a kind have in common: unit length, in the prompts' space.
        self.keys = nn.Parameter(torch.zeros(kinds, query_dim))

    def forward(self, tokens: Tensor, whole: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002  # as others
        """Compare.

        Args:
            tokens: float32 ``(N, U, D)``.
            whole: float32 ``(N, D)``; not looked at, a short sound is lost in it.
            queries: float32 ``(R, Q)``, unit length.

        Returns:
            Logits ``(N, R)``, and the share of each token in them ``(N, R, U)``, each row summing to 1.
        """
        choice = (SHARPNESS * queries @ self.keys.T).softmax(1)  # (R, K)
        logits = self.head(tokens) @ choice.T  # (N, U, R)
        return pool(logits), logits.softmax(1).transpose(1, 2)


def pool(logits: Tensor) -> Tensor:
    """A sound's logits from its tokens', ``(N, U, K)`` to ``(N, K)``: a soft maximum, blind to how many there are."""
    return logits.logsumexp(1) - math.log(logits.shape[1])
