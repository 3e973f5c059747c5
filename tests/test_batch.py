import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamer.batch import Batcher
from streamer.types import Window
from tests.builders import SECOND_US, a_window


def test_a_lone_window_is_released_after_max_wait() -> None:
    batcher = Batcher(max_frames=16, max_wait_s=0.05)
    batcher.add([a_window()], now_s=10.0)
    assert batcher.take(10.04) is None
    batch = batcher.take(10.06)
    assert batch is not None
    assert len(batch.windows) == 1
    assert abs(batch.waited_s - 0.06) < 1e-9


def test_a_full_batch_waits_for_nothing() -> None:
    batcher = Batcher(max_frames=8, max_wait_s=10)
    batcher.add([a_window(stream="a"), a_window(stream="b")], now_s=0)
    batch = batcher.take(0)
    assert batch is not None
    assert [window.stream for window in batch.windows] == ["a", "b"]


def test_waiting_in_vain_is_not_waited() -> None:
    batcher = Batcher(max_frames=100, max_wait_s=10)
    batcher.add([a_window()], now_s=0)
    assert batcher.take(0, is_idle=True) is not None


def test_frames_that_an_earlier_window_had_do_not_count_again() -> None:
    # window 1: 0 . 1 . 2        frames at 0, .5, 1, 1.5
    # window 2:     1 . 2 . 3    frames at 1, 1.5, 2, 2.5: two of them new
    batcher = Batcher(max_frames=7, max_wait_s=10)
    batcher.add([a_window(), a_window(start_us=SECOND_US)], now_s=0)
    assert batcher.take(0) is None
    batcher.add([a_window(start_us=2 * SECOND_US)], now_s=0)
    assert batcher.take(0) is not None


def test_it_says_when_it_holds_a_batch_so_that_no_more_is_added() -> None:
    batcher = Batcher(max_frames=6, max_wait_s=10)
    batcher.add([a_window(stream="a")], now_s=0)
    assert not batcher.is_full
    batcher.add([a_window(stream="b")], now_s=0)
    assert batcher.is_full
    batcher.take(0)
    assert not batcher.is_full


def test_windows_of_sound_alone_fill_a_batch_too() -> None:
    batcher = Batcher(max_frames=2, max_wait_s=10)
    quiet = np.zeros((0, 224, 224, 3), np.uint8)
    batcher.add([a_window(frames=quiet), a_window(frames=quiet, start_us=SECOND_US)], now_s=0)
    assert batcher.is_full


def test_windows_of_a_lost_partition_are_dropped() -> None:
    batcher = Batcher(max_frames=100, max_wait_s=0)
    batcher.add([a_window(stream="a", partition=0), a_window(stream="b", partition=1)], now_s=0)
    batcher.drop(0)
    batch = batcher.take(1)
    assert batch is not None
    assert [window.stream for window in batch.windows] == ["b"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.2)), max_size=30))
def test_nothing_is_lost_or_reordered(arrivals: list[tuple[str, float]]) -> None:
    batcher = Batcher(max_frames=10, max_wait_s=0.1)
    now_s = 0.0
    sent: list[Window] = []
    got: list[Window] = []
    for index, (stream, gap_s) in enumerate(arrivals):
        now_s += gap_s
        window = a_window(stream=stream, start_us=index * SECOND_US)
        sent.append(window)
        batcher.add([window], now_s)
        if (batch := batcher.take(now_s)) is not None:
            got.extend(batch.windows)
    if (batch := batcher.take(now_s, is_idle=True)) is not None:
        got.extend(batch.windows)
    assert [id(window) for window in got] == [id(window) for window in sent]
