import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.errors import ContractError
from streamer.snapshot import MAX_BYTES, MAX_SIDE_PX, render


def decoded(jpeg: bytes) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def a_still(height: int = 360, width: int = 640) -> NDArray[np.uint8]:
    still = np.full((height, width, 3), 128, np.uint8)
    still.setflags(write=False)
    return still


def test_the_box_is_drawn_where_the_region_is_and_nowhere_else() -> None:
    picture = decoded(render(a_still(), (0.25, 0.25, 0.75, 0.5), "")).astype(int)
    for y, x in ((90, 320), (180, 320), (135, 160), (135, 479)):
        red, _, blue = picture[y, x]
        assert red - blue > 100, (y, x)
    untouched = np.abs(picture - 128).max(axis=2)
    assert untouched[:80].max() <= 4
    assert untouched[100:170, 180:460].max() <= 4


def test_colours_keep_their_order() -> None:
    still = np.zeros((64, 64, 3), np.uint8)
    still[..., 0] = 200
    red, green, blue = decoded(render(still, None, ""))[32, 32].astype(int)
    assert (red > 180, green < 30, blue < 30) == (True, True, True)


def test_a_region_at_or_over_the_rim_is_drawn_on_the_rim() -> None:
    picture = decoded(render(a_still(), (-0.5, 0.0, 1.5, 1.0), "")).astype(int)
    for y, x in ((0, 320), (359, 320), (180, 0), (180, 639)):
        assert picture[y, x, 0] - picture[y, x, 2] > 60, (y, x)


def test_the_caption_is_on_a_strip_at_the_bottom_and_cut_to_the_width() -> None:
    plain = decoded(render(a_still(), None, "")).astype(int)
    short = decoded(render(a_still(), None, "fire 0.91")).astype(int)
    endless = decoded(render(a_still(), None, "fire " * 500)).astype(int)
    for picture in (short, endless):
        assert np.abs(picture - plain)[:300].max() <= 4
        assert picture[350:, 600:].mean() < 128
    assert short[330:, :150].max() > 200


def test_letters_that_cannot_be_drawn_do_not_stop_a_snapshot() -> None:
    assert decoded(render(a_still(), None, "Feuer im Büro 火")).shape == (360, 640, 3)


def test_a_large_picture_is_made_smaller_in_its_proportions() -> None:
    assert decoded(render(a_still(2160, 3840), (0, 0, 1, 1), "big")).shape == (720, MAX_SIDE_PX, 3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9000), (9000, 3), (16, 16)])
def test_odd_shapes_are_drawn_too(height: int, width: int) -> None:
    assert decoded(render(a_still(height, width), (0.1, 0.1, 0.9, 0.9), "caption")).size > 0


def test_a_picture_of_pure_noise_stays_under_the_limit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1280, 1280, 3), np.uint8)
    assert len(render(noise, None, "")) <= MAX_BYTES


@pytest.mark.parametrize(
    "still", [np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_what_is_no_picture_is_refused(still: NDArray[np.uint8]) -> None:
    with pytest.raises(ContractError, match="a still must be uint8"):
        render(still, None, "")
