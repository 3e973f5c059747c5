"""Values for tests, with every field that the test does not care about filled in."""

import numpy as np
from numpy.typing import NDArray

from streamer.types import SAMPLE_RATE_HZ, THUMB_SIDE, MediaChunk, Position, Window

SECOND_US = 1_000_000


def a_chunk(
    *,
    stream: str = "cam",
    capture_us: int = 0,
    payload: bytes = b"media",
    offset: int = 0,
    partition: int = 0,
    topic: str = "media",
    content_type: str = "video/mp2t",
    session: str = "",
    seq: int | None = None,
    is_last: bool = False,
) -> MediaChunk:
    return MediaChunk(
        stream=stream,
        content_type=content_type,
        payload=payload,
        capture_us=capture_us,
        position=Position(topic, partition, offset),
        session=session,
        seq=seq,
        is_last=is_last,
    )


def a_window(
    *,
    stream: str = "cam",
    partition: int = 0,
    start_us: int = 0,
    span_us: int = 2 * SECOND_US,
    frames: NDArray[np.uint8] | None = None,
    times_us: tuple[int, ...] | None = None,
    has_sound: bool = False,
) -> Window:
    """A window with four black frames of 224 x 224 unless given; silent sound where asked for."""
    if frames is None:
        frames = np.zeros((4, 224, 224, 3), np.uint8)
    if times_us is None:
        times_us = tuple(start_us + i * span_us // max(1, len(frames)) for i in range(len(frames)))
    thumbs = frames[:, :: frames.shape[1] // THUMB_SIDE, :: frames.shape[2] // THUMB_SIDE, 1][
        :, :THUMB_SIDE, :THUMB_SIDE
    ]
    samples = np.zeros(span_us * SAMPLE_RATE_HZ // SECOND_US if has_sound else 0, np.float32)
    return Window(
        stream=stream,
        partition=partition,
        start_us=start_us,
        end_us=start_us + span_us,
        pixels=tuple(frames),
        times_us=np.array(times_us, np.int64),
        thumbs=np.ascontiguousarray(thumbs),
        samples=samples,
        chunks=(),
        has_picture=bool(len(frames)),
        has_sound=has_sound,
    )
