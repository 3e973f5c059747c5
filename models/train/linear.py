"""Logistic regression with a ridge, exactly: for tokens with far more numbers than there are files."""

import torch
from torch import Tensor


def fit_linear(
    tokens: Tensor, labels: Tensor, weights: Tensor, looseness: float, steps: int = 15
) -> tuple[Tensor, Tensor]:
    """Least weighted log loss plus a ridge on the weights of standardised numbers, by Newton's method.

    Solved among the examples' principal axes, of which there are no more than examples.

    Args:
        tokens: ``(N, M)``.
        labels: ``(N,)``, 0 or 1.
        weights: ``(N,)``, not negative.
        looseness: How little the ridge holds: the inverse of its factor.
        steps: Newton steps.

    Returns:
        Weights float32 ``(M,)`` of the numbers as they are, and bias ``()``.
    """
    numbers, truth, counts = tokens.double(), labels.double(), weights.double()
    mean, deviation = numbers.mean(0), numbers.std(0, correction=0) + 1e-6
    _, _, axes = torch.linalg.svd((numbers - mean) / deviation, full_matrices=False)
    design = torch.cat((((numbers - mean) / deviation) @ axes.T, torch.ones(len(numbers), 1).double()), 1)
    ridge = torch.full((design.shape[1],), 1 / looseness).double()
    ridge[-1] = 1e-6
    theta = torch.zeros_like(ridge)
    for _ in range(steps):
        probability = (design @ theta).sigmoid()
        gradient = design.T @ (counts * (probability - truth)) + ridge * theta
        curve = (design * (counts * probability * (1 - probability)).clamp_min(1e-6)[:, None]).T @ design
        theta = theta - torch.linalg.solve(curve + ridge.diag(), gradient)
    slope = (axes.T @ theta[:-1]) / deviation
    return slope.float(), (theta[-1] - slope @ mean).float()
