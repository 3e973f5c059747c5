"""How things move: dense optical flow of a stretch of frames, and the square of the picture in which most happens.

Flow is DIS (Kroeger et al. 2016) on small luma pictures, the camera's own motion taken off. All lengths are shares of
the picture's side and all speeds are per second, so that neither the size nor the frame rate matters much.
"""

import itertools
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from models.encoders import PictureEncoder

SIDE_PX: Final = 128  # flow is computed on squares of this side
CELLS: Final = 7  # the flow is summed up on a grid like the picture encoder's
FEWEST_FRAMES: Final = 4  # of a stretch: fewer tell no motion
STATISTICS: Final = (
    "mean", "deviation", "median", "q90", "q99", "share", "spread", "disorder", "divergence", "curl", "jerk",
    "flicker", "peak cell", "cells", "camera",
)  # fmt: skip
_FAST: Final = 0.25  # sides a second: a person's arm, not her walk, at the far end of a room
_LEAST_SIDE, _MOST_SIDE = 0.35, 0.85  # of the square, shares of the picture
_SPREADS: Final = 2.2  # deviations of the motion that half a square's side covers
_DIRECTIONS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """What moves in ``T`` frames.

    Attributes:
        statistics: float32 ``(T - 1, len(STATISTICS))``, of each pair of neighbours.
        cells: float32 ``(T - 1, CELLS, CELLS)``, mean speed.
        square: Centre ``x``, ``y`` and side of where most of it is, shares of the picture.
    """

    statistics: NDArray[np.float32]
    cells: NDArray[np.float32]
    square: tuple[float, float, float]


def movement(frames: NDArray[np.uint8], step_s: float) -> Movement:
    """Measure what moves.

    Args:
        frames: uint8 ``(T, H, W, 3)`` RGB, ``T >= 2``.
        step_s: Seconds between two.
    """
    small = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        for frame in frames
    ]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    statistics, cells = [], []
    before: NDArray[np.float32] | None = None
    for first, second in itertools.pairwise(small):
        flow = estimator.calc(first, second, None).astype(np.float32) / (SIDE_PX * step_s)
        camera = np.median(flow.reshape(-1, 2), axis=0)
        flow -= camera
        flicker = float(cv2.absdiff(first, second).mean()) / 255
        values, speeds = _pair(flow, before, flicker, float(np.hypot(*camera)))
        statistics.append(values)
        cells.append(speeds)
        before = flow
    grids = np.stack(cells)
    return Movement(np.array(statistics, np.float32), grids, _square(grids))


def see_motion(
    frames: NDArray[np.uint8], step_s: float, encoder: PictureEncoder
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A stretch of frames to its motion token, and where it moves.

    Args:
        frames: uint8 ``(T, size, size, 3)`` RGB, ``T >= FEWEST_FRAMES``.
        step_s: Seconds between two.
        encoder: Looks at the square in which most moves.

    Returns:
        The token, float32 ``(M,)``, see `motion_token`, and mean speeds, float32 ``(CELLS, CELLS)``.
    """
    moved = movement(frames, step_s)
    made = encoder.encode(crop(frames, moved.square, encoder.size))
    features = made.whole if made.features is None else made.features
    return motion_token(moved, features.cpu().numpy()), moved.cells.mean(0)


def crop(frames: NDArray[np.uint8], square: tuple[float, float, float], side_px: int) -> NDArray[np.uint8]:
    """Cut a square out of each frame ``(T, H, W, 3)`` and scale it to ``(T, side_px, side_px, 3)``."""
    height, width = frames.shape[1:3]
    x, y, side = square
    x0, y0 = round((x - side / 2) * width), round((y - side / 2) * height)
    wide, high = round(side * width), round(side * height)
    cut = frames[:, y0 : y0 + high, x0 : x0 + wide]
    return np.stack([cv2.resize(frame, (side_px, side_px), interpolation=cv2.INTER_LINEAR) for frame in cut])


def motion_token(moved: Movement, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """One token of a stretch: what the square shows, how that changes, and the statistics of the flow.

    Args:
        moved: Of ``T`` frames.
        features: float32 ``(T, F)``, what the picture encoder makes of the square in each.

    Returns:
        float32 ``(2 * F + 3 * len(STATISTICS),)``.
    """
    change = np.abs(np.diff(features, axis=0)).mean(0)
    logs = np.log1p(10 * moved.statistics)
    parts = (features.mean(0), change, logs.mean(0), logs.std(0), logs.max(0))
    return np.concatenate(parts).astype(np.float32)


def _pair(
    flow: NDArray[np.float32], before: NDArray[np.float32] | None, flicker: float, camera: float
) -> tuple[list[float], NDArray[np.float32]]:
    """Statistics of one field ``(SIDE_PX, SIDE_PX, 2)``, sides a second, and its mean speed by cell."""
    speed = np.hypot(flow[..., 0], flow[..., 1])
    median, q90, q99 = np.quantile(speed[::2, ::2], (0.5, 0.9, 0.99))
    grid = cv2.resize(speed, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    total = float(speed.sum()) + 1e-6
    angle = np.arctan2(flow[..., 1], flow[..., 0])
    bins = ((angle + np.pi) * (_DIRECTIONS / (2 * np.pi))).astype(np.intp).clip(0, _DIRECTIONS - 1)
    shares = np.bincount(bins.reshape(-1), speed.reshape(-1), _DIRECTIONS) / total
    by_x, by_y = np.diff(flow, axis=1)[:-1], np.diff(flow, axis=0)[:, :-1]
    _, _, spread = _spread(grid)
    values = [
        float(speed.mean()),
        float(speed.std()),
        float(median),
        float(q90),
        float(q99),
        float((speed > _FAST).mean()),
        spread,
        float(-(shares * np.log(shares + 1e-6)).sum()),
        float(np.abs(by_x[..., 0] + by_y[..., 1]).mean()),
        float(np.abs(by_x[..., 1] - by_y[..., 0]).mean()),
        0.0 if before is None else float(np.abs(flow - before).mean()),
        flicker,
        float(grid.max()),
        float((grid > 0.5 * grid.max()).mean()),
        camera,
    ]
    return values, grid


def _spread(grid: NDArray[np.float32]) -> tuple[float, float, float]:
    """Centroid ``x``, ``y`` and deviation of the weight on a grid, shares of its side."""
    weight = np.square(grid.astype(np.float64))  # squared, so that a quiet background hardly pulls
    total = weight.sum() + 1e-12
    place = (np.arange(len(grid)) + 0.5) / len(grid)
    x, y = float((weight.sum(0) * place).sum() / total), float((weight.sum(1) * place).sum() / total)
    variance = (weight.sum(0) * np.square(place - x)).sum() + (weight.sum(1) * np.square(place - y)).sum()
    return x, y, float(np.sqrt(variance / total / 2))


def _square(cells: NDArray[np.float32]) -> tuple[float, float, float]:
    x, y, spread = _spread(cells.mean(0))
    side = float(np.clip(2 * _SPREADS * spread, _LEAST_SIDE, _MOST_SIDE))
    half = side / 2
    return float(np.clip(x, half, 1 - half)), float(np.clip(y, half, 1 - half)), side
