"""Scores to probabilities, per sense, and the two senses to one confidence.

Platt's scaling (Platt 1999): a logistic curve over the score. Untrained, one curve serves every prompt; it was fitted
over several prompts on licensed footage (`models.train.prior`) and says so by ``trained``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEADY = 1e9  # labels that a slope would take to move
# Log-odds of what nobody marks because it never became an event: there a curve stays as low as it was.
_ANCHORS = (-8.0, -7.0, -6.0, -5.0, -4.0, -3.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """``probability = 1 / (1 + exp(-(slope * score + bias)))``.

    Attributes:
        slope: Positive.
        bias: What a score of 0 is worth.
        trained: Fitted for the very prompt or encoder. False: a prior, and events say that they are uncalibrated.
    """

    slope: float
    bias: float
    trained: bool = False

    def logit(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of any shape to log-odds; NaN stays NaN."""
        logit: NDArray[np.float32] = self.slope * scores + self.bias
        return logit

    def probability(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of any shape to 0..1; NaN stays NaN."""
        return probability_of(self.logit(scores))

    def score(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """The score that is worth a probability: what a threshold is to the aligner."""
        score: NDArray[np.float32] = (logit_of(probability) - self.bias) / self.slope
        return score


@dataclass(frozen=True, slots=True)
class Calibrations:
    """One curve a sense."""

    seen: Calibration
    heard: Calibration

    @property
    def trained(self) -> bool:
        """Both are."""
        return self.seen.trained and self.heard.trained


# `python -m models.train.prior` over the licensed rows of `train`; 0.5 lies where few ordinary scenes reach.
PRIOR = Calibrations(seen=Calibration(slope=19.8, bias=-11.35), heard=Calibration(slope=14.1, bias=-3.88))

# Likewise, of scores that `models.normalise` made comparable.
NORMALISED_PRIOR = Calibrations(seen=Calibration(slope=28.9, bias=-16.58), heard=Calibration(slope=15.7, bias=-3.84))


def probability_of(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-odds of any shape to 0..1; NaN stays NaN."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float32)


def logit_of(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """0..1 to log-odds, none beyond that of one in a million."""
    inner = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inner / (1 - inner)), np.float32)


def fuse(seen: NDArray[np.float32], heard: NDArray[np.float32], modality: NDArray[np.str_]) -> NDArray[np.float32]:
    """Join what was seen and what was heard.

    Args:
        seen: ``(..., P)``, 0..1, NaN where there was no picture.
        heard: ``(..., P)``, likewise.
        modality: ``(P,)``. ``any``: either may say it, together they say it louder (noisy or). ``both``: no surer than
            the less sure. ``video``, ``audio``: that one. A sense that is absent says 0.

    Returns:
        ``(..., P)``, 0..1.
    """
    picture, sound = np.nan_to_num(seen), np.nan_to_num(heard)
    confidence = np.select(
        [modality == "video", modality == "audio", modality == "both"],
        [picture, sound, np.minimum(picture, sound)],
        1 - (1 - picture) * (1 - sound),
    )
    return confidence.astype(np.float32)


def fit_platt(
    scores: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64], steps: int = 50
) -> tuple[float, float]:
    """Slope and bias of least weighted log loss, by Newton's method with a little ridge on the slope.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)``, 0 or 1.
        weights: ``(N,)``, not negative.
        steps: Newton steps.
    """
    design = np.stack((scores, np.ones_like(scores)), axis=1)
    theta = np.zeros(2)
    ridge = np.diag((1e-4, 1e-6))
    for _ in range(steps):
        probability = 1 / (1 + np.exp(-np.clip(design @ theta, -60, 60)))
        gradient = design.T @ (weights * (probability - labels)) + ridge @ theta
        curve = (design * (weights * probability * (1 - probability))[:, None]).T @ design + ridge
        theta -= np.linalg.solve(curve, gradient)
    return float(theta[0]), float(theta[1])


def recalibrate(
    prior: Calibration,
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
    trust: float = 4.0,
    *,
    is_steady: bool = False,
) -> Calibration:
    """A prompt's own curve from a few of its windows that someone marked right or wrong.

    The prior counts as a Gaussian around its logit: with few labels the curve stays near it, with many it leaves it.

    Args:
        prior: The curve so far.
        scores: ``(N,)``, scores of what was marked. Drawn from what the prompt meets, not from its alerts alone: a
            curve that saw alerts only does not know what was rightly left out.
        labels: ``(N,)``, 1 right, 0 wrong.
        trust: In the prior: how many labels weigh as much.
        is_steady: Shift the curve and leave it as steep as it is.

    Returns:
        ``trained`` once there are both right and wrong ones; the prior itself without any label.
    """
    if not len(scores):
        return prior
    # In units of the prior's own logit: slope 1 and bias 0 are the prior.
    logits = np.clip(prior.slope * scores + prior.bias, -12, 12)
    design = np.stack((logits, np.ones_like(logits)), axis=1)
    start, ridge = np.array((1.0, 0.0)), np.diag((_STEADY if is_steady else trust, trust / 4))
    theta = start.copy()
    for _ in range(60):
        probability = 1 / (1 + np.exp(-np.clip(design @ theta, -60, 60)))
        gradient = design.T @ (probability - labels) + ridge @ (theta - start)
        curve = (design * (probability * (1 - probability))[:, None]).T @ design + ridge
        step = np.linalg.solve(curve, gradient)
        theta -= step / max(1.0, float(np.abs(step).max()))  # a full step can overshoot and never return
    slope = max(0.1, float(theta[0]))  # marks that contradict the ranking must not turn it round
    both = bool(labels.any() and not labels.all())
    return Calibration(slope * prior.slope, slope * prior.bias + float(theta[1]), trained=both)


def fit_curve(logits: Sequence[float], labels: Sequence[float]) -> tuple[float, float] | None:
    """Scale and shift of log-odds that marks ask for, near 1 and 0 while there are few; None without any.

    Events alone are marked, so of what was rightly left out nothing is known: there the curve is held where it was, and
    while all marks agree it is only shifted.

    Args:
        logits: Log-odds of what was marked.
        labels: 1 right, 0 wrong.
    """
    if not logits:
        return None
    plain = Calibration(1.0, 0.0)
    if len(set(labels)) == 1:
        curve = recalibrate(plain, np.array(logits), np.array(labels, np.float64), is_steady=True)
    else:
        held = np.array(_ANCHORS)
        below = 1 / (1 + np.exp(-held))
        curve = recalibrate(plain, np.append(logits, held), np.append(np.array(labels, np.float64), below))
    return round(curve.slope, 4), round(curve.bias, 4)
