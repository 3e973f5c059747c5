"""Where a prompt looked, drawn over an event's picture."""

from collections.abc import Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.errors import ContractError

_STRONGEST: Final = 0.65  # of the colour, where attention is highest; the picture still shows
_QUALITY: Final = 90


def draw_attention(jpeg: bytes, attention: Sequence[Sequence[float]], form: Literal["png", "jpeg"]) -> bytes:
    """Colour a picture by attention: where it is highest red, where there is none as it was.

    Args:
        jpeg: The picture.
        attention: Rows of a grid over the whole picture, from the top, each cell 0 or more.
        form: What to write.

    Raises:
        ContractError: It is no picture, or no grid.
    """
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    if picture is None:
        raise ContractError("the picture of an event cannot be decoded; it was damaged in redis")
    grid = _grid(attention)
    height, width = picture.shape[:2]
    smooth = np.clip(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    heat = cv2.applyColorMap((smooth * 255).astype(np.uint8), cv2.COLORMAP_TURBO).astype(np.float32)
    share = (smooth * _STRONGEST)[:, :, None]
    mixed = (picture.astype(np.float32) * (1.0 - share) + heat * share).round().astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if form == "jpeg" else []
    is_done, written = cv2.imencode(f".{'jpg' if form == 'jpeg' else 'png'}", mixed, options)
    if not is_done:
        raise ContractError(f"a picture of {width} x {height} cannot be written as {form}")
    return bytes(written.tobytes())


def _grid(attention: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    """Float32 ``(rows, columns)``, 0..1, the highest cell 1."""
    if not attention or not attention[0] or len({len(row) for row in attention}) != 1:
        raise ContractError("attention is no grid of rows of equal length")
    grid = np.asarray(attention, np.float32)
    highest = float(grid.max())
    return grid / np.float32(highest) if highest > 0 else grid
