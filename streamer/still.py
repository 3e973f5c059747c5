"""Single frames of a chunk, for people to look at."""

from collections.abc import Iterator, Sequence

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from streamer.decode import origin_us
from streamer.demux import Deadline, Demuxed, Limits, demux, is_still, open_chunk, refuse
from streamer.picture import Scaler, decode_image, decode_wanted, upright_size
from streamer.types import MediaChunk, Polygon


def decode_still(
    chunk: MediaChunk, at_us: int, max_side_px: int, masks: Sequence[Polygon], limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Decode the one frame nearest to a time; see `decode_stills`.

    Returns:
        uint8 ``(H, W, 3)``, RGB.
    """
    return next(decode_stills(chunk, (at_us,), max_side_px, masks, limits))[1]


def decode_stills(
    chunk: MediaChunk,
    times_us: Sequence[int],
    max_side_px: int,
    masks: Sequence[Polygon],
    limits: Limits | None = None,
) -> Iterator[tuple[tuple[int, ...], NDArray[np.uint8]]]:
    """Decode the frames nearest to some times, each once, in one pass over the chunk.

    Args:
        chunk: The chunk that holds them.
        times_us: Capture times, microseconds since 1970 UTC; at least one.
        max_side_px: The longer side is at most this; never enlarged.
        masks: Privacy masks of the stream.
        limits: What the chunk may cost; None: the defaults.

    Yields:
        The places in ``times_us`` that a frame is nearest to, and the frame: uint8 ``(H, W, 3)``, RGB, upright, masks
        blacked out.

    Raises:
        ChunkError: It holds no picture, or one that was asked for does not decode.
    """
    limits = limits or Limits()
    if is_still(chunk.content_type):
        yield tuple(range(len(times_us))), _drawn(decode_image(chunk, limits), max_side_px, masks)
        return
    deadline = Deadline.of(chunk, limits)
    with open_chunk(chunk, limits) as container:
        for places, frame in _nearest(chunk, demux(chunk, container, limits, deadline), times_us, limits, deadline):
            yield places, _drawn(frame, max_side_px, masks)


def _drawn(frame: VideoFrame, max_side_px: int, masks: Sequence[Polygon]) -> NDArray[np.uint8]:
    width, height = upright_size(frame)
    shrink = min(1.0, max_side_px / max(width, height))
    still = np.empty((max(1, round(height * shrink)), max(1, round(width * shrink)), 3), np.uint8)
    Scaler(masks).into(frame, still)
    return still


def _nearest(
    chunk: MediaChunk, packets: Demuxed, times_us: Sequence[int], limits: Limits, deadline: Deadline
) -> Iterator[tuple[tuple[int, ...], VideoFrame]]:
    shift_us = chunk.capture_us - origin_us(packets)
    keys = [place for place, packet in enumerate(packets.picture_packets) if packet.is_keyframe]
    if packets.picture is None or not keys:
        refuse(chunk, "holds no picture that decodes", "undecodable")
    usable = packets.picture_packets[keys[0] :]
    shown_us = np.asarray(packets.picture_times_us[keys[0] :], np.int64) + shift_us
    aims = [int(np.abs(shown_us - at_us).argmin()) for at_us in times_us]
    key = max(place for place, packet in enumerate(usable[: min(aims) + 1]) if packet.is_keyframe)
    askers: dict[int, list[int]] = {}
    for place, aim in enumerate(aims):
        if (pts := usable[aim].pts) is not None:
            askers.setdefault(pts, []).append(place)
    for frame in decode_wanted(chunk, packets.picture, usable[key:], [*askers], limits, deadline, only_keys=False):
        if frame.pts is not None:
            yield tuple(askers.pop(frame.pts)), frame
    if askers:
        refuse(chunk, "a frame that was asked for does not decode", "undecodable")
