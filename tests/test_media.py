from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import ChunkError
from streamer.media import (
    CONTENT_TYPES,
    MAX_DURATION_US,
    MAX_SEQ,
    MAX_TIME_US,
    REASONS,
    headers_of,
    is_stream_id,
    parse_message,
)
from streamer.types import MediaChunk, Position

POSITION = Position("watchword.media", 3, 481_207)
NOW_MS = 1_764_000_000_000
NOW_US = NOW_MS * 1000
NAMES = ("content-type", "capture-us", "duration-us", "seq", "session", "last", "traceparent")


def a_chunk(**changes: object) -> MediaChunk:
    chunk = MediaChunk("dock-3", "video/mp2t", b"media", NOW_US, POSITION)
    return replace(chunk, **changes)  # type: ignore[arg-type]  # keyword names are checked by replace itself


def parse(
    *pairs: tuple[str, bytes | None],
    key: bytes | None = b"dock-3",
    value: bytes | None = b"media",
    timestamp_ms: int = NOW_MS,
    max_future_s: float = 3600.0,
) -> MediaChunk:
    return parse_message(key, pairs, value, POSITION, timestamp_ms, max_future_s)


def fields(chunk: MediaChunk) -> tuple[object, ...]:
    return tuple(getattr(chunk, name) for name in MediaChunk.__slots__)


TYPE = ("content-type", b"video/mp2t")

chunks = st.builds(
    MediaChunk,
    stream=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
    content_type=st.sampled_from(CONTENT_TYPES),
    payload=st.binary(min_size=1, max_size=64),
    capture_us=st.integers(0, NOW_US + 3_600_000_000),
    position=st.just(POSITION),
    duration_us=st.none() | st.integers(0, MAX_DURATION_US),
    session=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=64),
    seq=st.none() | st.integers(0, MAX_SEQ),
    is_last=st.booleans(),
)


@given(chunks)
def test_a_chunk_comes_back_from_its_own_headers(chunk: MediaChunk) -> None:
    back = parse(*headers_of(chunk), key=chunk.stream.encode(), value=chunk.payload)
    assert fields(back) == fields(chunk)


texts = (
    st.binary(max_size=24)
    | st.integers().map(lambda number: str(number).encode())
    | st.sampled_from(CONTENT_TYPES).map(str.encode)
)


@given(
    key=st.none() | st.binary(max_size=70) | st.just(b"dock-3"),
    headers=st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=5), st.none() | texts), max_size=8),
    value=st.none() | st.binary(max_size=8),
    timestamp_ms=st.integers(-(2**63), 2**63 - 1),
)
def test_arbitrary_messages_give_a_chunk_that_keeps_the_contract_or_a_chunk_error(
    key: bytes | None, headers: list[tuple[str, bytes | None]], value: bytes | None, timestamp_ms: int
) -> None:
    chunk, refusal = None, None
    try:
        chunk = parse_message(key, headers, value, POSITION, timestamp_ms, 3600.0)
    except ChunkError as error:
        refusal = error
    if refusal is not None:
        assert refusal.reason in REASONS
        assert str(POSITION) in str(refusal)
        assert str(refusal).isascii()
        assert len(str(refusal)) < 400
    if chunk is not None:
        assert is_stream_id(chunk.stream)
        assert chunk.content_type in CONTENT_TYPES
        assert 0 <= chunk.capture_us <= MAX_TIME_US
        assert chunk.payload == value


def test_only_the_content_type_is_demanded() -> None:
    assert fields(parse(TYPE)) == fields(a_chunk())


def test_without_capture_us_the_kafka_time_stamp_counts() -> None:
    assert parse(TYPE, timestamp_ms=1_700_000_000_123).capture_us == 1_700_000_000_123_000


def test_the_last_chunk_of_a_session_says_so() -> None:
    assert parse(TYPE, ("last", b"1")).is_last
    assert not parse(TYPE, ("last", b"0")).is_last


def test_headers_of_others_are_left_alone() -> None:
    assert parse(TYPE, ("traceparent", b"\xff\xfe"), ("traceparent", b"00-1")).stream == "dock-3"


def test_a_media_type_may_be_written_in_capitals_and_with_parameters() -> None:
    assert parse(("content-type", b"Audio/WAV; rate=16000")).content_type == "audio/wav"


def test_a_capture_time_at_the_limit_of_the_future_is_taken_and_one_past_it_is_not() -> None:
    limit_us = NOW_US + 10_000_000
    assert parse(TYPE, ("capture-us", str(limit_us).encode()), max_future_s=10.0).capture_us == limit_us
    with pytest.raises(ChunkError, match=r"more than 10 s ahead") as caught:
        parse(TYPE, ("capture-us", str(limit_us + 1).encode()), max_future_s=10.0)
    assert caught.value.reason == "time"


@pytest.mark.parametrize(
    ("header", "reason", "words"),
    [
        (("capture-us", b"-1"), "time", "before 1970"),
        (("capture-us", b"1e3"), "header", "whole number of microseconds"),
        (("capture-us", b""), "header", "whole number of microseconds"),
        (("capture-us", "١٢".encode()), "header", "whole number of microseconds"),
        (("duration-us", b"-1"), "header", "from 0 to"),
        (("duration-us", b"99999999999999"), "header", "from 0 to"),
        (("seq", b"9223372036854775808"), "header", "from 0 to"),
        (("seq", None), "header", "from 0 to"),
        (("session", b"two words"), "header", "without blanks"),
        (("session", b"x" * 65), "header", "at most 64"),
        (("last", b"yes"), "header", "0 or 1"),
        (("seq", b"\xff"), "header", "not UTF-8"),
        (("content-type", b"video/mp2t"), "header", "twice"),
    ],
)
def test_a_malformed_header_is_named_with_its_value_and_place(
    header: tuple[str, bytes | None], reason: str, words: str
) -> None:
    with pytest.raises(ChunkError, match=words) as caught:
        parse(TYPE, header)
    assert caught.value.reason == reason
    assert f"header {header[0]} = " in str(caught.value)
    assert "watchword.media[3]@481207" in str(caught.value)


@pytest.mark.parametrize("content_type", [b"video/x-matroska", b"application/vnd.apple.mpegurl", b"", b"mpegts"])
def test_a_type_outside_the_contract_is_refused_with_what_is_allowed(content_type: bytes) -> None:
    with pytest.raises(ChunkError, match="video/mp2t, video/mp4") as caught:
        parse(("content-type", content_type))
    assert caught.value.reason == "type"


def test_a_missing_type_is_refused() -> None:
    with pytest.raises(ChunkError, match="no header content-type") as caught:
        parse()
    assert caught.value.reason == "type"


@pytest.mark.parametrize("key", [None, b"", b"Dock", b"-dock", b"a" * 64, b"dock 3", b"dock\n", b"\xff"])
def test_a_key_that_is_no_stream_id_is_refused(key: bytes | None) -> None:
    with pytest.raises(ChunkError, match="key") as caught:
        parse(TYPE, key=key)
    assert caught.value.reason == "key"


@pytest.mark.parametrize("value", [None, b""])
def test_an_empty_value_is_refused(value: bytes | None) -> None:
    with pytest.raises(ChunkError, match="empty value") as caught:
        parse(TYPE, value=value)
    assert caught.value.reason == "empty"


def test_without_any_time_the_chunk_is_refused() -> None:
    with pytest.raises(ChunkError, match="no usable Kafka time stamp") as caught:
        parse(TYPE, timestamp_ms=-1)
    assert caught.value.reason == "time"


def test_a_long_value_is_cut_and_made_safe_for_a_terminal() -> None:
    with pytest.raises(ChunkError) as caught:
        parse(TYPE, ("last", b"\x1b[2J" + b"s" * 5000))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300
