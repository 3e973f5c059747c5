"""Losses over epochs, as a table and as a picture."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Curve = Sequence[tuple[int, float, float]]  # epoch, loss, score on what was held out (NaN: nothing was)
WIDTH, HEIGHT, MARGIN = 640, 360, 40


def write_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    """Write curves as CSV, and as PNG beside it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("run", "epoch", "loss", "held_out"))
        for name, curve in curves.items():
            writer.writerows((name, epoch, loss, "" if math.isnan(score) else score) for epoch, loss, score in curve)
    draw_curves(path.with_suffix(".png"), curves)


def draw_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    """Losses over epochs, one colour a run: a line in training, dots of what was held out."""
    import cv2

    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    held = {
        name: [(epoch, -score) for epoch, _, score in curve if not math.isnan(score)] for name, curve in curves.items()
    }
    trained = {name: [(epoch, loss) for epoch, loss, _ in curve] for name, curve in curves.items()}
    every = [point for points in (*held.values(), *trained.values()) for point in points] or [(1, 1.0)]
    epochs, top = max(epoch for epoch, _ in every), max(value for _, value in every)
    for number, name in enumerate(curves):
        hue = cv2.cvtColor(np.array([[[number * 41 % 180, 200, 170]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
        colour = tuple(int(value) for value in hue)
        cv2.polylines(canvas, [_places(trained[name], epochs, top)], False, colour, 1, cv2.LINE_AA)
        for x, y in _places(held[name], epochs, top).tolist():
            cv2.circle(canvas, (x, y), 2, colour, -1, cv2.LINE_AA)
        _write(canvas, name, (WIDTH - 170, MARGIN + 14 * number), colour)
    _write(canvas, f"loss, 0 to {top:.2f}, over {epochs} epochs; dots: held out", (MARGIN, 20), (0, 0, 0))
    cv2.imwrite(str(path), canvas)


def _places(points: Sequence[tuple[int, float]], epochs: int, top: float) -> NDArray[np.int32]:
    """Pixels, int32 ``(N, 2)``."""
    rows = [
        (
            MARGIN + round(epoch / epochs * (WIDTH - 2 * MARGIN)),
            HEIGHT - MARGIN - round(max(0.0, value) / max(top, 1e-9) * (HEIGHT - 2 * MARGIN)),
        )
        for epoch, value in points
    ]
    return np.array(rows, np.int32).reshape(-1, 2)


def _write(canvas: NDArray[np.uint8], text: str, place: tuple[int, int], colour: Any) -> None:
    import cv2

    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, 1, cv2.LINE_AA)
