"""A still with the region drawn on it, as JPEG."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.errors import ContractError

MAX_SIDE_PX: Final = 1280
MAX_BYTES: Final = 262_144
_QUALITIES: Final = (85, 70, 50, 30, 15)
_BOX = (255, 64, 32)
_PAPER = (0, 0, 0)
_INK = (255, 255, 255)


def render(still: NDArray[np.uint8], region: tuple[float, float, float, float] | None, caption: str) -> bytes:
    """Draw a snapshot.

    Args:
        still: uint8 ``(H, W, 3)``, RGB, the stream's mask already blacked out. Not written to.
        region: ``(x0, y0, x1, y1)``, 0..1 of the picture; None: no box.
        caption: One line at the bottom, cut to the picture's width; empty: none.

    Returns:
        JPEG of at most `MAX_SIDE_PX` a side and `MAX_BYTES`.

    Raises:
        ContractError: It is no such picture.
    """
    if still.ndim != 3 or still.shape[2] != 3 or not still.size or still.dtype != np.uint8:
        raise ContractError(f"a still must be uint8 (H, W, 3), not {still.dtype} {still.shape}")
    picture = _bounded(still)
    if region is not None:
        _draw_box(picture, region)
    if caption:
        _draw_caption(picture, caption)
    return _encoded(picture)


def _bounded(still: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy, no larger than allowed."""
    height, width = still.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(height, width))
    if scale == 1.0:
        return still.copy()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(still, size, interpolation=cv2.INTER_AREA), np.uint8)


def _draw_box(picture: NDArray[np.uint8], region: tuple[float, float, float, float]) -> None:
    height, width = picture.shape[:2]
    thickness = max(1, round(min(height, width) / 180))
    x0, y0, x1, y1 = (min(1.0, max(0.0, edge)) for edge in region)
    near = (round(x0 * (width - 1)), round(y0 * (height - 1)))
    far = (round(x1 * (width - 1)), round(y1 * (height - 1)))
    cv2.rectangle(picture, near, far, _PAPER, thickness + 2)  # seen on bright and on dark ground
    cv2.rectangle(picture, near, far, _BOX, thickness)


def _draw_caption(picture: NDArray[np.uint8], caption: str) -> None:
    """OpenCV's own letters know ASCII only; others are shown as ``?``."""
    height, width = picture.shape[:2]
    text = caption.encode("ascii", "replace").decode()
    scale = max(0.35, min(height, width) / 900)
    face, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale * 1.5))
    while text and cv2.getTextSize(text, face, scale, thickness)[0][0] > width - 8:
        text = text[:-1]
    (_, text_height), baseline = cv2.getTextSize(text or " ", face, scale, thickness)
    strip = text_height + baseline + 6
    if not text or strip > height // 2:
        return
    picture[height - strip :] //= 3
    cv2.putText(picture, text, (4, height - baseline - 3), face, scale, _INK, thickness, cv2.LINE_AA)


def _encoded(picture: NDArray[np.uint8]) -> bytes:
    """The best quality that is small enough; where none is, half the size."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    while True:
        for quality in _QUALITIES:
            is_done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if not is_done:
                raise ContractError(f"a picture of {picture.shape[1]} x {picture.shape[0]} cannot be written as JPEG")
            if jpeg.nbytes <= MAX_BYTES:
                return bytes(jpeg.tobytes())
        bgr = bgr[::2, ::2]
