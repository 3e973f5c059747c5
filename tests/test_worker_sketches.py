"""Snapshots of real footage."""

from itertools import chain

import av
import cv2
import numpy as np

from streamer.types import MediaChunk, Position
from streamer.worker.sketches import SIDE_PX, Artists, Sketch
from tests.footage import bikes

START_US = 1_700_000_000_000_000


def a_film(payload: bytes | None = None) -> MediaChunk:
    return MediaChunk("street", "video/mp4", payload or bikes().read_bytes(), START_US, Position("t", 0, 0))


def a_sketch(chunk: MediaChunk, at_s: float) -> Sketch:
    return Sketch(chunk, START_US + round(at_s * 1e6), (), (0.1, 0.1, 0.5, 0.5), "street: bicycle")


def test_events_on_one_chunk_share_its_decoding_and_each_has_its_own_frame() -> None:
    artists, chunk = Artists(), a_film()
    drawn = artists.draw({"early": a_sketch(chunk, 0.0), "late": a_sketch(chunk, 5.0), "too": a_sketch(chunk, 5.0)})
    assert len(drawn) == 1
    jpegs = drawn[0].result()
    artists.close()
    assert set(jpegs) == {"early", "late", "too"}
    assert jpegs["late"] == jpegs["too"] != jpegs["early"]
    with av.open(str(bikes())) as film:
        video = film.streams.video[0]
        longest = max(video.width, video.height)
    for jpeg in jpegs.values():
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert max(picture.shape) == min(SIDE_PX, longest)


def test_a_chunk_that_does_not_decode_costs_its_own_pictures_alone() -> None:
    artists = Artists()
    drawn = artists.draw({"bad": a_sketch(a_film(b"no film"), 0.0), "good": a_sketch(a_film(), 0.0)})
    jpegs = dict(chain.from_iterable(part.result().items() for part in drawn))
    artists.close()
    assert set(jpegs) == {"good"}


def test_once_closed_nothing_is_drawn_and_nobody_fails() -> None:
    artists = Artists()
    artists.close()
    assert artists.draw({"late": a_sketch(a_film(), 0.0)}) == ()
