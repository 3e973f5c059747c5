"""Effort from packet sizes alone."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamer.activity import activity
from streamer.settings import load_settings
from tests.footage import bikes

THRESHOLD = load_settings().decode.activity_threshold


def test_activity_is_what_an_ordinary_packet_weighs_against_a_keyframe() -> None:
    assert activity([10_000, 100, 300], [True, False, False], 12.5) == pytest.approx(0.02)


def test_more_frames_a_second_share_the_same_motion() -> None:
    slow, fast = (activity([10_000, size], [True, False], rate) for rate, size in ((12.5, 283), (25.0, 200)))
    assert slow == pytest.approx(fast, rel=1e-2)


def test_activity_of_nothing_but_keyframes_cannot_be_told() -> None:
    assert activity([10_000, 9_000], [True, True], 25) is None


def test_activity_without_a_keyframe_cannot_be_told() -> None:
    assert activity([10, 10], [False, False], 25) is None


def street(still: bool, noise: float, options: dict[str, str], tmp_path: Path) -> float:
    """Activity of two seconds of the street with cyclists, or of one picture of it held, through an encoder."""
    with av.open(str(bikes()), "r") as source:
        frames = [frame.to_ndarray(format="rgb24") for frame in itertools.islice(source.decode(video=0), 50)]
    rng = np.random.default_rng(0)
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream("libx264", rate=25, options={"g": "25", "threads": "1", "bf": "0", **options})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for number, pixels in enumerate(frames):
            shown = frames[0] if still else pixels
            noisy = np.clip(shown + rng.normal(0, noise, (*shown.shape[:2], 1)), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(noisy, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    with av.open(str(path), "r") as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
    measured = activity([packet.size for packet in packets], [packet.is_keyframe for packet in packets], 25)
    assert measured is not None
    return measured


@pytest.mark.parametrize("options", [{"crf": "23"}, {"crf": "30"}, {"crf": "23", "bf": "3"}])
def test_a_street_moves_and_a_held_picture_of_it_does_not(tmp_path: Path, options: dict[str, str]) -> None:
    assert street(still=True, noise=1.0, options=options, tmp_path=tmp_path) < THRESHOLD
    assert street(still=False, noise=1.0, options=options, tmp_path=tmp_path) > 3 * THRESHOLD


def test_an_encoder_that_keeps_to_a_bit_rate_never_hides_motion(tmp_path: Path) -> None:
    budget = {"b": "300k", "maxrate": "300k", "bufsize": "300k", "x264-params": "nal-hrd=cbr"}
    assert street(still=False, noise=1.0, options=budget, tmp_path=tmp_path) > THRESHOLD
