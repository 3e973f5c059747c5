from collections import Counter
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.backlog import Backlog, Item, Revoked, Skipped
from streamer.types import MediaChunk
from tests.builders import SECOND_US, a_chunk


def a_backlog(
    policy: Literal["live", "lossless"] = "live", max_bytes: int = 1_000_000, max_age_s: float = 4.0
) -> Backlog:
    return Backlog(policy=policy, max_bytes=max_bytes, max_age_s=max_age_s)


def drain(backlog: Backlog) -> list[Item]:
    items: list[Item] = []
    while (item := backlog.take(0)) is not None:
        items.append(item)
    return items


def test_items_come_out_in_order_of_arrival() -> None:
    backlog = a_backlog()
    items: list[Item] = [a_chunk(stream="a"), Revoked(3), a_chunk(stream="b")]
    for item in items:
        backlog.put(item)
    assert drain(backlog) == items


def test_an_empty_backlog_gives_nothing_after_the_time_out() -> None:
    assert a_backlog().take(0.01) is None


def test_lossless_says_that_it_is_full_and_skips_nothing() -> None:
    backlog = a_backlog("lossless", max_bytes=10)
    for index in range(4):
        backlog.put(a_chunk(payload=b"12345", capture_us=index * 60 * SECOND_US))
    assert backlog.is_full
    assert all(isinstance(item, MediaChunk) for item in drain(backlog))
    assert not backlog.is_full


def test_live_skips_a_chunk_that_its_stream_has_left_behind() -> None:
    backlog = a_backlog(max_age_s=4)
    for second in (0, 3, 5):
        backlog.put(a_chunk(capture_us=second * SECOND_US, offset=second))
    first, *rest = drain(backlog)
    assert isinstance(first, Skipped)
    assert first.reason == "age"
    assert first.position.offset == 0
    assert all(isinstance(item, MediaChunk) for item in rest)


def test_another_streams_clock_does_not_make_a_chunk_old() -> None:
    backlog = a_backlog(max_age_s=4)
    backlog.put(a_chunk(stream="a", capture_us=0))
    backlog.put(a_chunk(stream="b", capture_us=3600 * SECOND_US))
    assert all(isinstance(item, MediaChunk) for item in drain(backlog))


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_a_full_live_backlog_takes_from_the_longest_stream_and_loses_count_of_none(streams: list[str]) -> None:
    backlog = a_backlog(max_bytes=50)
    for offset, stream in enumerate(streams):
        backlog.put(a_chunk(stream=stream, payload=b"12345", capture_us=offset, offset=offset))
        assert backlog.size_bytes <= 50
    items = drain(backlog)
    offsets = [item.position.offset for item in items if isinstance(item, MediaChunk | Skipped)]
    assert offsets == list(range(len(streams)))
    kept = [item.stream for item in items if isinstance(item, MediaChunk)]
    skipped = {item.stream for item in items if isinstance(item, Skipped)}
    for stream in skipped:
        assert all(kept.count(stream) >= kept.count(other) - 1 for other in "abc")


@pytest.mark.parametrize("policy", ["live", "lossless"])
def test_bytes_are_counted_down_to_nothing(policy: Literal["live", "lossless"]) -> None:
    backlog = a_backlog(policy, max_bytes=20)
    for index in range(30):
        backlog.put(a_chunk(stream="ab"[index % 2], payload=b"1234567", capture_us=index * SECOND_US))
    drain(backlog)
    assert backlog.size_bytes == 0
    assert len(backlog) == 0


def test_streams_that_come_last_in_every_second_fare_like_those_that_come_first() -> None:
    backlog = Backlog(policy="live", max_bytes=1 << 30, max_age_s=10.0)
    names = [f"cam-{number}" for number in range(40)]
    served: Counter[str] = Counter()
    for second in range(120):
        for name in names:
            backlog.put(a_chunk(stream=name, capture_us=second * SECOND_US, offset=second))
        capacity = 20  # half of what comes
        while capacity and (item := backlog.take(0)) is not None:
            if isinstance(item, MediaChunk):
                served[item.stream] += 1
                capacity -= 1
    assert min(served[name] for name in names) >= 30  # of 60 that there are for each
    assert max(served.values()) <= 90
