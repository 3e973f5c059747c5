"""Windows from made chunks: every frame's pixels and every sample say what time they are from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.types import Decoded, Effort, MediaChunk, Position, Window
from streamer.window import Windower

T0_US = 1_700_000_000_250_000
SECOND_US = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def a_windower(
    *,
    span_s: float = 2.0,
    hop_s: float = 1.0,
    join_wait_s: float = 2.0,
    clock: Clock | None = None,
    max_bytes: int = 1 << 30,
) -> Windower:
    return Windower(span_s, hop_s, join_wait_s, 5.0, clock or Clock(), max_bytes)


def a_chunk(
    start_s: float,
    end_s: float,
    *,
    offset: int = 0,
    stream: str = "yard",
    topic: str = "media",
    partition: int = 0,
    picture: bool = True,
    sound: bool = False,
    sound_span_s: tuple[float, float] | None = None,
    rate_hz: float = 4.0,
    seq: int | None = None,
    session: str = "a",
    is_last: bool = False,
    side: int = 2,
) -> Decoded:
    """Content of a stream between two times, seconds after `T0_US`; frames lie on a grid that begins there."""
    start_us, end_us = T0_US + round(start_s * SECOND_US), T0_US + round(end_s * SECOND_US)
    step_us = round(SECOND_US / rate_hz)
    numbers = range(-((T0_US - start_us) // step_us), -((T0_US - end_us) // step_us)) if picture else range(0)
    times_us = np.array([T0_US + number * step_us for number in numbers], np.int64)
    pixels = np.zeros((len(times_us), side, side, 3), np.uint8)
    pixels[:] = (np.arange(numbers.start, numbers.stop) % 251).astype(np.uint8).reshape(-1, 1, 1, 1)
    heard_s = sound_span_s or ((start_s, end_s) if sound else (start_s, start_s))
    first, last = (int((T0_US + round(at * SECOND_US)) * 16 // 1000) for at in heard_s)
    position = Position(topic, partition, offset)
    return Decoded(
        chunk=MediaChunk(
            stream, "video/mp2t", b"x" * 10, start_us, position, seq=seq, session=session, is_last=is_last
        ),
        start_us=start_us,
        end_us=end_us,
        picture_end_us=end_us if picture else start_us,
        pixels=pixels,
        times_us=times_us,
        thumbs=np.zeros((len(times_us), 32, 32), np.uint8),
        samples=sample_values(first, last),
        samples_start_us=-(-first * 1000 // 16),
        effort=Effort.MOTION,
        source_frames=len(times_us),
        has_picture=picture,
        has_sound=bool(sound or sound_span_s),
    )


def sample_values(first: int, last: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A value for each place on the 16 kHz ruler, never zero."""
    return ((np.arange(first, last) % 997 + 1) / 1000).astype(np.float32)


@dataclass(frozen=True)
class Seen:
    """What of a window can be compared."""

    start_us: int
    times_us: tuple[int, ...]
    marks: tuple[int, ...]
    samples: bytes
    has_picture: bool
    has_sound: bool


def seen(window: Window) -> Seen:
    return Seen(
        window.start_us,
        tuple(window.times_us.tolist()),
        tuple(int(frame[0, 0, 0]) for frame in window.pixels),
        window.samples.tobytes(),
        window.has_picture,
        window.has_sound,
    )


def starts_s(windows: Sequence[Window]) -> list[float]:
    return [(window.start_us - T0_US) / SECOND_US for window in windows]


def positions(windows: Sequence[Window], stream: str) -> list[list[Position]]:
    return [[chunk.position for chunk in window.chunks] for window in windows if window.stream == stream]


def pushed(windower: Windower, *chunks: Decoded) -> list[Window]:
    return [window for chunk in chunks for window in windower.push(chunk)]


# |--0--|--1--|--2--|     chunks of a second
# [-----------)
#       [-----------)
def test_a_window_goes_out_with_the_chunk_that_reaches_its_end() -> None:
    windower = a_windower()
    assert windower.push(a_chunk(0, 1, offset=0)) == []
    (first,) = windower.push(a_chunk(1, 2, offset=1))
    (second,) = windower.push(a_chunk(2, 3, offset=2))
    assert (first.start_us, first.end_us) == (T0_US, T0_US + 2 * SECOND_US)
    assert second.start_us == T0_US + SECOND_US
    assert [(at - T0_US) / SECOND_US for at in first.times_us.tolist()] == [k / 4 for k in range(8)]
    assert first.samples.shape == (0,)
    assert first.has_picture
    assert not first.has_sound
    assert [chunk.position.offset for chunk in second.chunks] == [1, 2]


def test_frames_are_views_of_what_was_decoded() -> None:
    chunk = a_chunk(0, 2)
    (window,) = a_windower().push(chunk)
    assert all(np.shares_memory(frame, chunk.pixels) for frame in window.pixels)


def test_sound_fills_its_window_to_the_sample_with_zeros_where_it_is_missing() -> None:
    windower = a_windower()
    windows = pushed(windower, a_chunk(0, 2, sound_span_s=(0.5, 2.0)))
    assert len(windows) == 1
    assert windows[0].samples.shape == (32_000,)
    assert not windows[0].samples[:8_000].any()
    first = T0_US * 16 // 1000
    np.testing.assert_array_equal(windows[0].samples[8_000:], sample_values(first + 8_000, first + 32_000))


def test_a_window_waits_for_the_modality_that_is_behind() -> None:
    windower = a_windower()
    assert pushed(windower, a_chunk(0, 1, sound=True), a_chunk(1, 2, offset=1)) == []
    (window,) = windower.push(a_chunk(1, 2, offset=2, picture=False, sound=True))
    assert window.samples.all()
    assert len(window.times_us) == 8


def test_a_window_does_not_wait_a_chunk_long_for_what_a_clock_rounded_off() -> None:
    windower = a_windower()
    nearly = a_chunk(1, 2, offset=1, sound_span_s=(1, 2 - 0.0005))
    (window,) = pushed(windower, a_chunk(0, 1, sound=True), nearly)
    assert len(window.times_us) == 8
    assert window.samples[:-8].all()


def test_a_window_stops_waiting_when_the_other_modality_is_far_ahead() -> None:
    windower = a_windower(join_wait_s=2.0)
    windows = pushed(windower, a_chunk(0, 1, sound=True), *(a_chunk(k, k + 1, offset=k) for k in range(1, 4)))
    assert starts_s(windows) == [0.0]
    assert not windows[0].samples[16_000:].any()


def test_a_modality_that_fell_silent_costs_no_latency_for_ever() -> None:
    windower = a_windower(join_wait_s=1.0)
    pushed(windower, a_chunk(0, 1, sound=True), *(a_chunk(k, k + 1, offset=k) for k in range(1, 6)))
    assert starts_s(windower.push(a_chunk(6, 7, offset=6))) == [5.0]


def test_one_modality_alone_waits_for_nothing() -> None:
    assert starts_s(a_windower().push(a_chunk(0, 2, picture=False, sound=True))) == [0.0]


def test_the_last_chunk_of_a_session_releases_what_was_not_shown_yet() -> None:
    windower = a_windower()
    windows = pushed(windower, a_chunk(0, 1), a_chunk(1, 2, offset=1), a_chunk(2, 2.6, offset=2, is_last=True))
    assert starts_s(windows) == [0.0, 1.0]
    assert windower.resume(0) == {"media": 3}


def test_a_file_of_exactly_one_span_makes_one_window() -> None:
    assert starts_s(a_windower().push(a_chunk(0, 2, sound=True, is_last=True))) == [0.0]


def test_a_lone_short_chunk_makes_one_window() -> None:
    assert starts_s(a_windower().push(a_chunk(0, 0.4, is_last=True))) == [0.0]


def test_a_tail_of_sound_shorter_than_a_sliver_makes_no_window_of_its_own() -> None:
    assert starts_s(a_windower().push(a_chunk(0, 2, sound_span_s=(0, 2.05), is_last=True))) == [0.0]


def test_last_chunks_of_two_topics_flush_once_both_ended() -> None:
    windower = a_windower()
    pushed(windower, a_chunk(0, 1.5), a_chunk(0, 1, topic="sound", picture=False, sound=True))
    assert windower.push(a_chunk(1.5, 1.8, offset=1, is_last=True)) == []
    (window,) = windower.push(a_chunk(1, 1.8, topic="sound", offset=1, picture=False, sound=True, is_last=True))
    assert window.samples[: int(1.8 * 16_000)].all()


def test_windows_without_content_in_a_gap_are_left_out_however_long_it_is() -> None:
    windower = a_windower()
    decades_s = 30 * 365 * 86_400.0
    windows = pushed(windower, a_chunk(0, 2), a_chunk(decades_s, decades_s + 2, offset=1))
    assert starts_s(windows) == [0.0, 1.0, decades_s - 1, decades_s]
    assert [len(window.times_us) for window in windows] == [8, 4, 4, 8]


def test_a_repeated_chunk_is_dropped_and_counted() -> None:
    windower = a_windower()
    windows = pushed(windower, a_chunk(0, 1, seq=4), a_chunk(0, 1, offset=1, seq=4), a_chunk(1, 2, offset=2, seq=5))
    assert starts_s(windows) == [0.0]
    assert windower.drain_counts()["yard"].duplicates == 1
    assert windower.drain_counts() == {}


def test_a_jump_of_the_counter_is_a_gap_but_not_across_sessions() -> None:
    windower = a_windower()
    pushed(windower, a_chunk(0, 1, seq=4), a_chunk(3, 4, offset=1, seq=7), a_chunk(4, 5, offset=2, seq=0, session="b"))
    assert windower.drain_counts()["yard"].gaps == 2


def test_a_chunk_behind_what_went_out_is_dropped_and_counted() -> None:
    windower = a_windower()
    pushed(windower, a_chunk(0, 4), a_chunk(1, 2, offset=1))
    assert windower.drain_counts()["yard"].late == 1
    assert windower.resume(0) == {"media": 0}


def test_skipped_chunks_move_the_offset_on() -> None:
    windower = a_windower()
    windower.skip(Position("media", 3, 41))
    assert windower.resume(3) == {"media": 42}


def test_the_offset_stays_at_the_oldest_chunk_that_a_window_still_needs() -> None:
    windower = a_windower()
    pushed(windower, a_chunk(0, 1, offset=10), a_chunk(0, 1, offset=11, stream="gate"), a_chunk(1, 2, offset=12))
    assert windower.resume(0) == {"media": 11}
    windower.flush("gate")
    assert windower.resume(0) == {"media": 12}


def test_an_idle_stream_is_named_until_it_is_flushed() -> None:
    clock = Clock()
    windower = a_windower(clock=clock)
    windower.push(a_chunk(0, 1))
    assert windower.idle(clock.now_s + 4.9) == []
    assert windower.idle(clock.now_s + 5.0) == ["yard"]
    assert starts_s(windower.flush("yard")) == [0.0]
    assert windower.idle(clock.now_s + 50.0) == []


def test_a_stream_that_holds_too_much_lets_its_oldest_windows_go() -> None:
    windower = a_windower(join_wait_s=1e6, max_bytes=100_000)
    pushed(windower, a_chunk(0, 1, sound=True, side=20))
    windows = pushed(windower, *(a_chunk(k, k + 1, offset=k, side=20) for k in range(1, 30)))
    assert len(windows) >= 8
    assert windower.drain_counts()["yard"].forced == len(windows)
    assert starts_s(windows) == sorted(starts_s(windows))


def test_a_hole_of_a_few_samples_between_chunks_is_drawn_over() -> None:
    windower = a_windower()
    one, two = a_chunk(0, 1, picture=False, sound=True), a_chunk(1, 2, offset=1, picture=False, sound=True)
    two = replace(two, samples=two.samples[20:], samples_start_us=two.samples_start_us + 1250)
    (window,) = pushed(windower, one, two)
    hole = window.samples[15_999:16_021]
    assert hole.all()
    assert np.abs(np.diff(np.diff(hole))).max() < 1e-6


def test_sound_that_overlaps_keeps_what_was_there_first() -> None:
    windower = a_windower()
    one, two = a_chunk(0, 1.0, picture=False, sound=True), a_chunk(0.98, 2, offset=1, picture=False, sound=True)
    two = replace(two, samples=-two.samples)
    (window,) = pushed(windower, one, two)
    assert (window.samples[:16_000] > 0).all()
    assert (window.samples[16_000:] < 0).all()


def test_state_survives_json() -> None:
    windower = a_windower()
    pushed(windower, a_chunk(0, 1, sound=True), a_chunk(1, 2.5, offset=1, sound=True))
    state = json.loads(json.dumps(windower.state(0)))
    other = a_windower()
    other.restore(0, state)
    assert other.state(0)["streams"] == state["streams"]
    assert starts_s(pushed(other, a_chunk(1, 2.5, offset=1, sound=True), a_chunk(2.5, 3, offset=2, sound=True))) == [
        1.0
    ]


def test_chunks_that_come_again_after_a_restart_are_not_counted_as_late() -> None:
    windower = a_windower()
    pushed(windower, a_chunk(0, 4))
    other = a_windower()
    other.restore(0, windower.state(0))
    pushed(other, a_chunk(0, 1))
    assert other.drain_counts() == {}


def test_a_partition_that_was_dropped_leaves_nothing() -> None:
    windower = a_windower()
    pushed(windower, a_chunk(0, 1), a_chunk(0, 1, stream="gate", partition=1))
    windower.drop_partition(0)
    assert windower.resume(0) == {}
    assert windower.resume(1) == {"media": 0}
    assert list(windower.state(0)["streams"]) == []


# --- properties ---------------------------------------------------------------------------------------


@st.composite
def cuts(draw: st.DrawFn, length_ms: int) -> list[tuple[float, float]]:
    step_ms = draw(st.sampled_from([1, 250]))  # the coarse one often meets the grid
    inner = draw(st.lists(st.integers(1, (length_ms - 1) // step_ms), max_size=12, unique=True))
    edges = [0, *(step_ms * edge for edge in sorted(inner)), length_ms]
    return [(low / 1000, high / 1000) for low, high in pairwise(edges)]


SPANS = st.sampled_from([(2.0, 1.0), (1.0, 1.0), (1.5, 0.5), (2.0, 0.75)])
KINDS = st.sampled_from([(True, False), (False, True), (True, True)])


def run(chunks: Sequence[Decoded], span: tuple[float, float], join_wait_s: float = 1e6) -> list[Seen]:
    windower = a_windower(span_s=span[0], hop_s=span[1], join_wait_s=join_wait_s)
    return [seen(window) for window in pushed(windower, *chunks)]


@given(cuts(7_300), SPANS, KINDS)
@settings(max_examples=60, deadline=None)
def test_windows_do_not_depend_on_where_chunks_are_cut(
    spans: list[tuple[float, float]], span: tuple[float, float], kind: tuple[bool, bool]
) -> None:
    picture, sound = kind
    chunks = [
        a_chunk(low, high, offset=k, picture=picture, sound=sound, is_last=k == len(spans) - 1)
        for k, (low, high) in enumerate(spans)
    ]
    whole = a_chunk(0, 7.3, picture=picture, sound=sound, is_last=True)
    assert run(chunks, span) == run([whole], span)


@st.composite
def two_streams(draw: st.DrawFn) -> list[Decoded]:
    """Chunks of one partition: two streams, one of them with its sound on another topic, gaps, in any interleaving."""
    lanes = []
    for stream, topic, picture, sound in (
        ("yard", "media", True, False),
        ("yard", "sound", False, True),
        ("gate", "media", True, True),
    ):
        lanes.append(
            [
                a_chunk(low, high, stream=stream, topic=topic, picture=picture, sound=sound)
                for low, high in draw(cuts(6_000))
                if draw(st.integers(0, 9)) > 0
            ]
        )
    order = draw(st.permutations([lane for lane, chunks in enumerate(lanes) for _ in chunks]))
    next_offset = {"media": 0, "sound": 0}
    mixed = []
    for lane in order:
        decoded = lanes[lane].pop(0)
        topic = decoded.chunk.position.topic
        next_offset[topic] += draw(st.sampled_from([1, 1, 1, 4]))
        position = replace(decoded.chunk.position, offset=next_offset[topic])
        mixed.append(replace(decoded, chunk=replace(decoded.chunk, position=position)))
    return mixed


@given(two_streams(), SPANS, st.integers(0, 40), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_a_restart_anywhere_loses_and_doubles_no_window(
    chunks: list[Decoded], span: tuple[float, float], stop: int, shuffle: Random
) -> None:
    def fresh() -> Windower:
        return a_windower(span_s=span[0], hop_s=span[1], join_wait_s=1e6)

    def finish(windower: Windower) -> list[Window]:
        return windower.flush("yard") + windower.flush("gate")

    undisturbed = fresh()
    expected = pushed(undisturbed, *chunks) + finish(undisturbed)
    stop = min(stop, len(chunks))
    first = fresh()
    got = pushed(first, *chunks[:stop])
    state, offsets = json.loads(json.dumps(first.state(0))), first.resume(0)
    second = fresh()
    second.restore(0, state)
    replayed = [chunk for chunk in chunks if chunk.chunk.position.offset >= offsets.get(chunk.chunk.position.topic, 0)]
    known = {(chunk.has_picture, chunk.has_sound) for chunk in chunks[:stop] if chunk.chunk.stream == "yard"}
    if len(known) == 2:
        replayed = interleaved(replayed, shuffle)  # once a stream's modalities are known, topics may come in any order
    got += pushed(second, *replayed) + finish(second)
    for stream in ("yard", "gate"):
        assert [seen(w) for w in got if w.stream == stream] == [seen(w) for w in expected if w.stream == stream]
        assert positions(got, stream) == positions(expected, stream)


def interleaved(chunks: Sequence[Decoded], shuffle: Random) -> list[Decoded]:
    """The same chunks, each topic in its order, the topics mixed anew."""
    lanes: dict[str, list[Decoded]] = {}
    for chunk in chunks:
        lanes.setdefault(chunk.chunk.position.topic, []).append(chunk)
    mixed = []
    while lanes:
        topic = shuffle.choice(sorted(lanes))
        mixed.append(lanes[topic].pop(0))
        if not lanes[topic]:
            del lanes[topic]
    return mixed


@given(two_streams(), SPANS)
@settings(max_examples=60, deadline=None)
def test_the_offset_never_passes_a_chunk_that_a_later_window_shows(
    chunks: list[Decoded], span: tuple[float, float]
) -> None:
    windower = a_windower(span_s=span[0], hop_s=span[1], join_wait_s=1e6)
    promised: dict[str, int] = {}
    for chunk in chunks:
        for window in windower.push(chunk):
            for shown in window.chunks:
                assert shown.position.offset >= promised.get(shown.position.topic, 0)
        now = windower.resume(0)
        assert all(now[topic] >= offset for topic, offset in promised.items())
        promised = now
        assert all(offset <= chunk_next for offset, chunk_next in ((now[t], _after(chunks, chunk, t)) for t in now))


def _after(chunks: Sequence[Decoded], current: Decoded, topic: str) -> int:
    """The offset after the last one of a topic that was pushed up to ``current``."""
    upto = next(place for place, chunk in enumerate(chunks) if chunk is current)
    return max(chunk.chunk.position.offset for chunk in chunks[: upto + 1] if chunk.chunk.position.topic == topic) + 1


@pytest.mark.parametrize("kind", [(True, False), (True, True)])
def test_every_frame_and_sample_is_in_a_window_once_a_hop(kind: tuple[bool, bool]) -> None:
    windower = a_windower()
    chunks = [a_chunk(k, k + 1, offset=k, picture=True, sound=kind[1], is_last=k == 9) for k in range(10)]
    windows = pushed(windower, *chunks)
    assert starts_s(windows) == [float(k) for k in range(9)]
    times = {at for window in windows for at in window.times_us.tolist()}
    assert times == {at for chunk in chunks for at in chunk.times_us.tolist()}
