"""Masks err on the dark side."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.masks import black_out, rasterise, scaling_margin_px
from streamer.types import Polygon

UNIT = st.floats(0, 1, allow_nan=False, width=32)
POLYGONS = st.lists(st.tuples(UNIT, UNIT), min_size=3, max_size=8).map(tuple)
WHOLE: Polygon = ((0, 0), (1, 0), (1, 1), (0, 1))
PENTAGRAM: Polygon = tuple(
    (0.5 + 0.45 * np.sin(k * 4 * np.pi / 5), 0.5 - 0.45 * np.cos(k * 4 * np.pi / 5)) for k in range(5)
)


def winding(polygon: Polygon, x: float, y: float) -> int:
    """How often an outline goes around a point: the sum of its signed angles."""
    corners = np.asarray(polygon) - (x, y)
    after = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * after[:, 1] - corners[:, 1] * after[:, 0]
    dot = (corners * after).sum(axis=1)
    return round(float(np.arctan2(cross, dot).sum()) / (2 * np.pi))


@given(POLYGONS, st.integers(1, 40), st.integers(1, 40), st.lists(st.tuples(UNIT, UNIT), min_size=20, max_size=20))
@settings(max_examples=200, deadline=None)
def test_every_point_that_a_polygon_winds_around_lies_in_a_masked_pixel(
    polygon: Polygon, height: int, width: int, points: list[tuple[float, float]]
) -> None:
    masked = rasterise([polygon], height, width)
    for x, y in points:
        if winding(polygon, x, y):
            assert masked[min(height - 1, int(y * height)), min(width - 1, int(x * width))]


@given(POLYGONS, st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_every_pixel_that_the_outline_touches_is_masked(
    polygon: Polygon, height: int, width: int, along: float
) -> None:
    masked = rasterise([polygon], height, width)
    for (x0, y0), (x1, y1) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        x, y = x0 + along * (x1 - x0), y0 + along * (y1 - y0)
        assert masked[min(height - 1, int(y * height)), min(width - 1, int(x * width))]


def test_a_mask_is_no_larger_than_it_needs_to_be() -> None:
    masked = rasterise([((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))], 100, 100)
    assert masked[25:75, 25:75].all()
    assert not masked[:23].any()
    assert not masked[:, 77:].any()


def test_the_middle_of_an_outline_that_crosses_itself_is_masked() -> None:
    assert rasterise([PENTAGRAM], 64, 64)[32, 32]


def test_a_mask_without_area_still_masks_its_line() -> None:
    assert rasterise([((0, 0.5), (1, 0.5), (0.5, 0.5))], 10, 10)[5].all()


def test_the_margin_reaches_around_corners() -> None:
    plain = rasterise([((0.5, 0.5), (0.6, 0.5), (0.6, 0.6))], 50, 50)
    wide = rasterise([((0.5, 0.5), (0.6, 0.5), (0.6, 0.6))], 50, 50, margin_px=3)
    rows, columns = np.nonzero(plain)
    assert wide[rows.min() - 3, columns.min() - 3]
    assert not wide[rows.min() - 4].any()


def test_black_out_touches_masked_pixels_of_every_frame_and_no_other() -> None:
    pixels = np.full((3, 40, 60, 3), 200, np.uint8)
    polygons = [((0.1, 0.1), (0.4, 0.1), (0.2, 0.6)), ((0.8, 0.8), (0.9, 0.8), (0.9, 0.95))]
    black_out(pixels, polygons)
    masked = rasterise(polygons, 40, 60)
    assert not pixels[:, masked].any()
    assert (pixels[:, ~masked] == 200).all()


def test_without_masks_nothing_is_blacked_out() -> None:
    pixels = np.full((1, 4, 4, 3), 7, np.uint8)
    black_out(pixels, [])
    assert (pixels == 7).all()


def test_a_mask_over_everything_leaves_nothing() -> None:
    pixels = np.full((1, 9, 5, 3), 7, np.uint8)
    black_out(pixels, [WHOLE])
    assert not pixels.any()


@pytest.mark.parametrize(("source", "scaled", "margin"), [(1280, 224, 2), (224, 224, 5), (160, 224, 7), (3840, 224, 2)])
def test_the_margin_covers_what_a_scaler_spreads(source: int, scaled: int, margin: int) -> None:
    assert scaling_margin_px(source, scaled) == margin
