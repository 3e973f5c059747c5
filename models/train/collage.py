"""Photos put into pictures of other places: an event that is small, and known to be where it was put."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_FEATHER = 0.12  # of the photo's side, over which it fades into the scene: an edge must not tell that it is there


@dataclass(frozen=True, slots=True, eq=False)
class Collage:
    """A picture with a photo in it.

    Attributes:
        pixels: uint8 ``(H, W, 3)``.
        box: ``x0, y0, x1, y1``, shares of the picture.
    """

    pixels: NDArray[np.uint8]
    box: tuple[float, float, float, float]


def paste(scene: NDArray[np.uint8], photo: NDArray[np.uint8], random: np.random.Generator) -> Collage:
    """Put a photo somewhere into a scene, a fifth to three fifths as wide; both uint8 ``(H, W, 3)``."""
    height, width = scene.shape[:2]
    share = float(random.uniform(0.2, 0.6))
    wide, high = round(width * share), round(height * share)
    left, top = int(random.integers(0, width - wide + 1)), int(random.integers(0, height - high + 1))
    small = cv2.resize(photo, (wide, high), interpolation=cv2.INTER_AREA).astype(np.float32)
    fade_x, fade_y = (np.minimum(1, (np.arange(n) + 1) / (_FEATHER * n)) for n in (wide, high))
    alpha = np.outer(np.minimum(fade_y, fade_y[::-1]), np.minimum(fade_x, fade_x[::-1])).astype(np.float32)[..., None]
    made = scene.copy()
    part = made[top : top + high, left : left + wide].astype(np.float32)
    made[top : top + high, left : left + wide] = (alpha * small + (1 - alpha) * part).astype(np.uint8)
    box = (left / width, top / height, (left + wide) / width, (top + high) / height)
    return Collage(made, box)


def cells_inside(box: tuple[float, float, float, float], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Share of each cell that a box covers: float32 ``(rows * columns,)``."""
    rows, columns = grid
    x0, y0, x1, y1 = box
    across = _overlap(x0 * columns, x1 * columns, columns)
    down = _overlap(y0 * rows, y1 * rows, rows)
    return np.outer(down, across).reshape(-1).astype(np.float32)


def _overlap(start: float, stop: float, count: int) -> NDArray[np.float64]:
    edges = np.arange(count)
    return np.asarray(np.clip(np.minimum(edges + 1, stop) - np.maximum(edges, start), 0, 1), np.float64)
