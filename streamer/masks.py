"""Privacy masks: polygons whose pixels are blacked out before anything else sees them.

A mask errs on the dark side: a pixel is masked as soon as the polygon touches it, an outline that crosses itself hides
everything that it winds around, and a margin hides what a scaler may have carried over the edge.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.types import Polygon

_SHIFT = 4  # fractional bits of cv2's coordinates


def rasterise(polygons: Sequence[Polygon], height: int, width: int, margin_px: int = 0) -> NDArray[np.bool_]:
    """Pixels that any of the polygons touches.

    Args:
        polygons: Corners ``(x, y)``, each 0..1 of the picture's width and height.
        height: Rows of the picture.
        width: Its columns.
        margin_px: Also true this many pixels around, diagonals included.

    Returns:
        bool ``(height, width)``, true where masked.
    """
    masked = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64) * (width, height)
        masked |= _inside(corners, height, width)
        masked |= _outline(corners, height, width)
    if margin_px > 0 and polygons:
        side = 2 * margin_px + 1
        masked = cv2.dilate(masked, np.ones((side, side), np.uint8))
    return masked.astype(np.bool_)


def black_out(pixels: NDArray[np.uint8], polygons: Sequence[Polygon], margin_px: int = 0) -> None:
    """Set masked pixels to zero, in place.

    Args:
        pixels: uint8 ``(..., H, W, C)``.
        polygons: Corners ``(x, y)``, each 0..1 of the picture's width and height.
        margin_px: How far the scaler that made ``pixels`` carries a source pixel; see `scaling_margin_px`.
    """
    if not polygons or pixels.size == 0:
        return
    height, width = pixels.shape[-3:-1]
    pixels[..., rasterise(polygons, height, width, margin_px), :] = 0


def scaling_margin_px(source_px: int, scaled_px: int) -> int:
    """How far a masked source pixel reaches in the scaled picture, in pixels of that picture.

    A linear or area filter spans one output pixel when it shrinks and one input pixel when it enlarges. Colour is
    stored at half the resolution, so there one input pixel is two, and the sample at the mask's rim mixes one pixel
    from either side; one more is for rounding.
    """
    ratio = source_px / scaled_px
    return math.ceil((max(2.0, ratio) + 3.0) / ratio)


def _inside(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """Pixels whose centre has a winding number other than zero: ``(height, width)`` of 0 and 1."""
    turns = np.zeros((height, width + 1), np.int32)
    centres = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.flatnonzero((centres >= min(y0, y1)) & (centres < max(y0, y1)))
        if rows.size:
            crossings = x0 + (centres[rows] - y0) * ((x1 - x0) / (y1 - y0))
            columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.intp)
            turns[rows, columns] += 1 if y1 > y0 else -1
    inside: NDArray[np.uint8] = (np.cumsum(turns[:, :width], axis=1) != 0).astype(np.uint8)
    return inside


def _outline(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """Pixels that the outline touches, and some beside them: ``(height, width)`` of 0 and 1."""
    drawn = np.zeros((height + 2, width + 2), np.uint8)  # a rim, so that an outline at the border is drawn whole
    points = np.rint((corners + 0.5) * (1 << _SHIFT)).astype(np.int32)  # cv2 puts a pixel's centre at a whole number
    cv2.polylines(drawn, [points.reshape(-1, 1, 2)], isClosed=True, color=1, shift=_SHIFT)
    # A drawn line holds one pixel a column (or row); those that it merely cuts are next to it.
    grown: NDArray[np.uint8] = cv2.dilate(drawn, np.ones((3, 3), np.uint8))
    return grown[1:-1, 1:-1]
