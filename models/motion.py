"""How things move: the square of the picture in which most happens, and how much what it shows changes.

The square follows dense optical flow, DIS (Kroeger et al. 2016), on small luma pictures with the camera's own motion
taken off. What the square shows is left out: people in a lift that has seen a fight are no fight, and of few cameras a
model learns the cameras.
"""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.encoders import PictureEncoder

SIDE_PX: Final = 128  # flow is computed on squares of this side
CELLS: Final = 7  # the flow is summed up on a grid like the picture encoder's
RATE_HZ: Final = 8.0  # frames a second that training saw: more change less from one to the next
FEWEST_FRAMES: Final = 4  # of a stretch: fewer tell no motion
_LEAST_SIDE, _MOST_SIDE = 0.35, 0.85  # of the square, shares of the picture
_SPREADS: Final = 2.2  # deviations of the motion that half a square's side covers


def see_motion(frames: NDArray[np.uint8], step_s: float, encoder: PictureEncoder) -> tuple[Tensor, NDArray[np.float32]]:
    """A stretch of frames to its motion token, and where it moves.

    Args:
        frames: uint8 ``(T, size, size, 3)`` RGB, ``T >= FEWEST_FRAMES``.
        step_s: Seconds between two.
        encoder: Looks at the square in which most moves.

    Returns:
        The token, float32 ``(F,)``, where the encoder computes: how much each feature of the square changes from frame
        to frame. And mean speeds, float32 ``(CELLS, CELLS)``, sides of the picture a second.
    """
    cells = speeds(frames, step_s).mean(0)
    made = encoder.encode(crop(frames, busiest_square(cells), encoder.size))
    features = made.whole if made.features is None else made.features
    return features.diff(dim=0).abs().mean(0), cells


def crop(frames: NDArray[np.uint8], square: tuple[float, float, float], side_px: int) -> NDArray[np.uint8]:
    """Cut a square out of each frame ``(T, H, W, 3)`` and scale it to ``(T, side_px, side_px, 3)``."""
    import cv2  # models import with torch and numpy alone

    height, width = frames.shape[1:3]
    x, y, side = square
    x0, y0 = round((x - side / 2) * width), round((y - side / 2) * height)
    wide, high = round(side * width), round(side * height)
    cut = frames[:, y0 : y0 + high, x0 : x0 + wide]
    return np.stack([cv2.resize(frame, (side_px, side_px), interpolation=cv2.INTER_LINEAR) for frame in cut])


def speeds(frames: NDArray[np.uint8], step_s: float) -> NDArray[np.float32]:
    """Mean speed by cell from each frame ``(T, H, W, 3)`` to the next: ``(T - 1, CELLS, CELLS)``, sides a second."""
    import cv2

    small = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        for frame in frames
    ]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    cells = []
    for first, second in pairwise(small):
        flow = estimator.calc(first, second, None).astype(np.float32) / (SIDE_PX * step_s)
        flow -= np.median(flow.reshape(-1, 2), axis=0)
        speed = np.hypot(flow[..., 0], flow[..., 1])
        cells.append(cv2.resize(speed, (CELLS, CELLS), interpolation=cv2.INTER_AREA))
    return np.stack(cells)


def _spread(grid: NDArray[np.float32]) -> tuple[float, float, float]:
    """Centroid ``x``, ``y`` and deviation of the weight on a grid, shares of its side."""
    weight = np.square(grid.astype(np.float64))  # squared, so that a quiet background hardly pulls
    total = weight.sum() + 1e-12
    place = (np.arange(len(grid)) + 0.5) / len(grid)
    x, y = float((weight.sum(0) * place).sum() / total), float((weight.sum(1) * place).sum() / total)
    variance = (weight.sum(0) * np.square(place - x)).sum() + (weight.sum(1) * np.square(place - y)).sum()
    return x, y, float(np.sqrt(variance / total / 2))


def busiest_square(cells: NDArray[np.float32]) -> tuple[float, float, float]:
    """Centre ``x``, ``y`` and side of where most of the motion ``(CELLS, CELLS)`` is, shares of the picture."""
    x, y, spread = _spread(cells)
    side = float(np.clip(2 * _SPREADS * spread, _LEAST_SIDE, _MOST_SIDE))
    half = side / 2
    return float(np.clip(x, half, 1 - half)), float(np.clip(y, half, 1 - half)), side
