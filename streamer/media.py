"""The contract of the media topic: Kafka key, headers and value to a `MediaChunk`, and back."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

from streamer.errors import ChunkError
from streamer.types import MediaChunk, Position

CONTENT_TYPES: Final = (
    "video/mp2t",
    "video/mp4",
    "image/jpeg",
    "image/png",
    "audio/wav",
    "audio/flac",
    "audio/ogg",
    "audio/aac",
)
REASONS: Final = frozenset({"key", "header", "type", "time", "empty"})  # of every ChunkError raised here

MAX_TIME_US: Final = 253_402_300_799_999_999  # the end of the year 9999, the last that RFC 3339 can write
MAX_DURATION_US: Final = 86_400_000_000
MAX_SEQ: Final = 2**63 - 1

_STREAM: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SESSION: Final = re.compile(r"[!-~]{0,64}")
_DIGITS: Final = re.compile(r"-?[0-9]{1,19}")
_KNOWN: Final = frozenset({"content-type", "capture-us", "duration-us", "seq", "session", "last"})
_SHOWN_CHARACTERS: Final = 40


def is_stream_id(text: str) -> bool:
    """Whether ``text`` may name a stream: ``[a-z0-9][a-z0-9._-]{0,62}``."""
    return _STREAM.fullmatch(text) is not None


def parse_message(
    key: bytes | None,
    headers: Iterable[tuple[str, bytes | None]],
    value: bytes | None,
    position: Position,
    timestamp_ms: int,
    max_future_s: float,
) -> MediaChunk:
    """Check a Kafka message against the contract. Headers that the contract does not name are left alone.

    Args:
        key: Kafka key, the stream id.
        headers: Kafka headers.
        value: The media itself; looked at by nobody here.
        position: Where the message lay.
        timestamp_ms: Kafka time stamp, milliseconds since 1970 UTC; negative where the broker has none.
        max_future_s: How far a capture time may lie ahead of ``timestamp_ms``.

    Raises:
        ChunkError: The message breaks the contract; ``reason`` is one of `REASONS`.
    """
    stream = _stream(key, position)
    known = _decode_headers(headers, position)
    content_type = _content_type(known, position)
    capture_us = _capture_us(known, position, timestamp_ms, max_future_s)
    if not value:
        raise ChunkError(f"chunk refused: empty value ({position}); send the media's bytes", reason="empty")
    return MediaChunk(
        stream=stream,
        content_type=content_type,
        payload=value,
        capture_us=capture_us,
        position=position,
        duration_us=_whole_number(known, "duration-us", position, MAX_DURATION_US),
        session=_session(known, position),
        seq=_whole_number(known, "seq", position, MAX_SEQ),
        is_last=_is_last(known, position),
    )


def headers_of(chunk: MediaChunk) -> list[tuple[str, bytes]]:
    """The Kafka headers of a chunk; `parse_message` gives the same chunk back."""
    headers = {"content-type": chunk.content_type, "capture-us": str(chunk.capture_us)}
    if chunk.duration_us is not None:
        headers["duration-us"] = str(chunk.duration_us)
    if chunk.seq is not None:
        headers["seq"] = str(chunk.seq)
    if chunk.session:
        headers["session"] = chunk.session
    if chunk.is_last:
        headers["last"] = "1"
    return [(name, text.encode()) for name, text in headers.items()]


def _stream(key: bytes | None, position: Position) -> str:
    if key is None:
        raise ChunkError(f"chunk refused: no key ({position}); send the stream id as the key", reason="key")
    stream = key.decode(errors="replace")
    if not is_stream_id(stream):
        raise ChunkError(
            f"chunk refused: key {_shown(stream)} is not a stream id ({position}); {_STREAM.pattern} is allowed",
            reason="key",
        )
    return stream


def _decode_headers(headers: Iterable[tuple[str, bytes | None]], position: Position) -> dict[str, str]:
    known: dict[str, str] = {}
    for name, raw in headers:
        if name not in _KNOWN:
            continue
        if name in known:
            _refuse(name, known[name], position, "it stands twice; send it once")
        try:
            known[name] = (raw or b"").decode()
        except UnicodeDecodeError:
            _refuse(name, (raw or b"").decode(errors="replace"), position, "it is not UTF-8 text")
    return known


def _content_type(known: Mapping[str, str], position: Position) -> str:
    allowed = f"one of {', '.join(CONTENT_TYPES)} is allowed"
    if "content-type" not in known:
        raise ChunkError(f"chunk refused: no header content-type ({position}); {allowed}", reason="type")
    content_type = known["content-type"].partition(";")[0].strip().lower()
    if content_type not in CONTENT_TYPES:
        _refuse("content-type", known["content-type"], position, allowed, reason="type")
    return content_type


def _capture_us(known: Mapping[str, str], position: Position, timestamp_ms: int, max_future_s: float) -> int:
    latest_us = MAX_TIME_US
    if timestamp_ms >= 0:
        latest_us = min(latest_us, timestamp_ms * 1000 + int(max_future_s * 1e6))
    if "capture-us" not in known:
        capture_us = timestamp_ms * 1000
        if not 0 <= capture_us <= MAX_TIME_US:
            raise ChunkError(
                f"chunk refused: no header capture-us and no usable Kafka time stamp, {timestamp_ms} ms ({position}); "
                "send one of them",
                reason="time",
            )
        return capture_us
    text = known["capture-us"]
    if not _DIGITS.fullmatch(text):
        _refuse("capture-us", text, position, "a whole number of microseconds since 1970 is expected")
    capture_us = int(text)
    if capture_us < 0:
        _refuse("capture-us", text, position, "it lies before 1970; check the camera's clock", reason="time")
    if capture_us > latest_us:
        ahead = f"it lies more than {max_future_s:g} s ahead of the broker's clock; check the unit and the clock"
        _refuse("capture-us", text, position, ahead, reason="time")
    return capture_us


def _whole_number(known: Mapping[str, str], name: str, position: Position, most: int) -> int | None:
    text = known.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text) or not 0 <= int(text) <= most:
        _refuse(name, text, position, f"a whole number from 0 to {most} is expected")
    return int(text)


def _session(known: Mapping[str, str], position: Position) -> str:
    session = known.get("session", "")
    if not _SESSION.fullmatch(session):
        _refuse("session", session, position, "at most 64 printable ASCII characters without blanks are allowed")
    return session


def _is_last(known: Mapping[str, str], position: Position) -> bool:
    text = known.get("last", "0")
    if text not in {"0", "1"}:
        _refuse("last", text, position, "0 or 1 is expected")
    return text == "1"


def _refuse(name: str, text: str, position: Position, what: str, *, reason: str = "header") -> NoReturn:
    raise ChunkError(f"chunk refused: header {name} = {_shown(text)} ({position}); {what}", reason=reason)


def _shown(text: str) -> str:
    """ASCII, quoted, short: a header is as hostile as the payload, and log lines are read in terminals."""
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")
