import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.encoders import Encoders, PictureTokens, SoundTokens
from models.errors import ModelError
from streamer.encode import AUDIT_EVERY, EncodeStage
from streamer.types import SAMPLE_RATE_HZ, Batch, Window
from tests.builders import SECOND_US, a_window
from tests.colours import ColourPictures, colour_encoders


class Counting(ColourPictures):
    """Notes how many frames each call brought."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.fails = False

    def encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
        if self.fails:
            raise ModelError("the device has no room")
        self.calls.append(len(pixels))
        return super().encode(pixels)


def a_stage(
    pictures: Counting, *, max_age_s: float = 10.0, noise: float = 3.0, rate_hz: float = math.inf
) -> EncodeStage:
    others = colour_encoders()
    encoders = Encoders(pictures, others.picture_text, others.sound, others.sound_text)
    return EncodeStage(encoders, hop_s=1.0, reuse_max_age_s=max_age_s, reuse_noise=noise, rate_hz=rate_hz)


def a_batch(*windows: Window) -> Batch:
    return Batch(windows, 0.0, tuple(0.0 for _ in windows))


def frames(*levels: int) -> NDArray[np.uint8]:
    return np.stack([np.full((224, 224, 3), level, np.uint8) for level in levels])


def test_a_frame_that_two_windows_share_is_encoded_once() -> None:
    pictures = Counting()
    stage = a_stage(pictures, max_age_s=0)
    first = a_window(frames=frames(0, 50, 100, 150))
    second = a_window(start_us=SECOND_US, frames=frames(100, 150, 200, 250))
    tokens = stage.encode(a_batch(first, second))
    assert pictures.calls == [6]
    assert tokens.frames[0][2:] == tokens.frames[1][:2]
    assert (
        stage.encode(a_batch(a_window(start_us=2 * SECOND_US, frames=frames(200, 250)))).frames[0][0]
        in tokens.frames[1]
    )


def test_a_still_frame_takes_the_tokens_of_the_last_that_was_encoded() -> None:
    pictures = Counting()
    tokens = a_stage(pictures).encode(a_batch(a_window(frames=frames(100, 101, 103, 140))))
    assert pictures.calls == [2]
    assert tokens.reused == (2,)
    assert len(set(tokens.frames[0])) == 2
    assert [item.encoded_us for item in tokens.frames[0]] == [0, 0, 0, 1_500_000]


def test_no_more_frames_are_encoded_in_a_second_than_are_asked_for_and_a_restart_encodes_the_same_ones() -> None:
    pixels = frames(*(255 * (number % 2) for number in range(24)))
    seconds = [
        a_window(start_us=number * SECOND_US, frames=pixels[8 * number : 8 * number + 16]) for number in range(2)
    ]
    whole, late = (a_stage(Counting(), max_age_s=0, rate_hz=4.0) for _ in range(2))
    encoded = [item.encoded_us for item in whole.encode(a_batch(*seconds)).frames[1]]
    assert encoded == [SECOND_US + number // 2 * 250_000 for number in range(16)]
    assert [item.encoded_us for item in late.encode(a_batch(seconds[1])).frames[0]] == encoded


def test_slow_change_adds_up_and_is_seen() -> None:
    pictures = Counting()
    stage = a_stage(pictures)
    levels = [100 + step for step in range(16)]  # each within the noise of the one before
    tokens = stage.encode(a_batch(a_window(frames=frames(*levels))))
    assert pictures.calls == [4]
    assert sum(tokens.reused) == 12


def test_a_change_in_one_cell_alone_is_seen() -> None:
    pictures = Counting()
    moved = frames(100, 100)
    moved[1, 64:96, 64:96] = 255
    assert a_stage(pictures).encode(a_batch(a_window(frames=moved))).reused == (0,)


def test_tokens_are_reused_no_longer_than_their_age_allows() -> None:
    pictures = Counting()
    stage = a_stage(pictures, max_age_s=3.0)
    for start_s in range(8):
        stage.encode(a_batch(a_window(start_us=start_s * SECOND_US, frames=frames(9, 9), times_us=(
            start_s * SECOND_US, start_s * SECOND_US + 500_000))))  # fmt: skip
    assert sum(pictures.calls) == 3  # at 0, 3.5 and 7 s


def test_now_and_then_a_still_frame_is_encoded_all_the_same_to_measure_the_error() -> None:
    pictures = Counting()
    stage = a_stage(pictures, max_age_s=1e6)
    audits = 0
    for start_s in range(AUDIT_EVERY // 2):
        window = a_window(start_us=start_s * 2 * SECOND_US, frames=frames(9, 9, 9, 9))
        audits += len(stage.encode(a_batch(window)).audits)
    assert audits == (4 * (AUDIT_EVERY // 2) - 1) // AUDIT_EVERY


def test_streams_do_not_share_and_a_forgotten_one_begins_anew() -> None:
    pictures = Counting()
    stage = a_stage(pictures)
    stage.encode(a_batch(a_window(stream="a", frames=frames(9)), a_window(stream="b", frames=frames(9))))
    stage.forget("a")
    later = [a_window(stream=name, start_us=SECOND_US, frames=frames(9)) for name in ("a", "b")]
    assert stage.encode(a_batch(*later)).reused == (0, 1)
    assert pictures.calls == [2, 1]


def test_sound_is_encoded_in_stretches_of_the_hop_that_windows_share() -> None:
    stage = a_stage(Counting())
    first = stage.encode(a_batch(a_window(frames=frames(9), has_sound=True)))
    second = stage.encode(a_batch(a_window(start_us=SECOND_US, frames=frames(9), has_sound=True)))
    assert first.fresh_sounds is not None
    assert second.fresh_sounds is not None
    assert len(first.fresh_sounds.items) == 2
    assert len(second.fresh_sounds.items) == 1
    assert first.sounds[0][1] is second.sounds[0][0]


def test_a_sound_is_heard_whole_in_one_of_the_windows_that_overlap() -> None:
    others, heard = colour_encoders(), list[NDArray[np.float32]]()

    class Listening:
        name, dim, token_s, sha256 = others.sound.name, others.sound.dim, others.sound.token_s, others.sound.sha256

        def encode(self, samples: NDArray[np.float32]) -> SoundTokens:
            heard.extend(samples)
            return others.sound.encode(samples)

    encoders = Encoders(Counting(), others.picture_text, Listening(), others.sound_text)
    stage = EncodeStage(encoders, hop_s=1.0, stretch_s=2.0, reuse_max_age_s=0, reuse_noise=3)
    samples = np.linspace(0, 1, 5 * SAMPLE_RATE_HZ).astype(np.float32)
    for start_s in range(3):
        window = a_window(start_us=start_s * SECOND_US, frames=frames(9), has_sound=True)
        own = samples[start_s * SAMPLE_RATE_HZ :][: 2 * SAMPLE_RATE_HZ]
        tokens = stage.encode(a_batch(replace(window, samples=own)))
        assert len(tokens.sounds[0]) == 1
        assert np.array_equal(heard[-1], own)
    # A span that is longer, as when an event is scored again, has the same stretches; what is shorter is filled up.
    stage.forget("cam")
    stage.encode(a_batch(replace(a_window(span_us=3_500_000, has_sound=True), samples=samples[: 7 * 8_000])))
    assert [np.array_equal(one, other) for one, other in zip(heard[-2:], heard[:2], strict=True)] == [True, True]
    stage.forget("cam")
    stage.encode(a_batch(replace(a_window(span_us=SECOND_US, has_sound=True), samples=samples[:SAMPLE_RATE_HZ])))
    assert heard[-1].size == 2 * SAMPLE_RATE_HZ


def test_after_a_failure_nothing_that_was_planned_is_taken_for_tokens() -> None:
    pictures = Counting()
    stage = a_stage(pictures)
    pictures.fails = True
    with pytest.raises(ModelError):
        stage.encode(a_batch(a_window(frames=frames(9))))
    pictures.fails = False
    tokens = stage.encode(a_batch(a_window(frames=frames(9))))
    assert tokens.frames[0][0].tokens.shape == (49, 8)
    assert stage.busy_s > 0
    assert stage.device_bytes > 1e6


@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=4), min_size=1, max_size=5), st.integers(1, 4))
def test_without_reuse_batches_of_any_size_give_the_same_tokens(levels: list[list[int]], size: int) -> None:
    windows = [a_window(start_us=place * 2 * SECOND_US, frames=frames(*row)) for place, row in enumerate(levels)]
    at_once = a_stage(Counting(), max_age_s=0).encode(a_batch(*windows))
    stage = a_stage(Counting(), max_age_s=0)
    apart = [stage.encode(a_batch(*windows[at : at + size])) for at in range(0, len(windows), size)]
    rows = [row for tokens in apart for row in tokens.frames]
    for one, other in zip(at_once.frames, rows, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert torch.allclose(mine.tokens, theirs.tokens, atol=1e-6)
