"""Packets into pictures at the encoder's size: the wanted ones alone, straight from the decoder's own colour space."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import av
import numpy as np
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from streamer.demux import AnyPacket, Deadline, Limits, PicturePacket, check_side, refuse
from streamer.masks import black_out, scaling_margin_px
from streamer.types import MediaChunk, Polygon

_EARLY_US: Final = 1_000  # a frame this much before a point of the grid still counts as on it: time stamps are rounded
_LEAVE_LOOP_FILTER_FRAMES: Final = 60  # the drift without it is bounded by the distance of keyframes
_STILL_CODECS: Final = {"image/jpeg": "mjpeg", "image/png": "png"}
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers
_JPEG_BARE: Final = frozenset(range(0xD0, 0xD9)) | {0x01}  # markers without a length


def interval_us(times_us: Sequence[int]) -> int:
    """The usual distance of two pictures, microseconds; 0 where there is one only."""
    steps = sorted(after - before for before, after in pairwise(sorted(set(times_us))))
    return steps[len(steps) // 2] if steps else 0


def on_grid(times_us: Sequence[int], rate_hz: float, first_step_us: int) -> list[int]:
    """The first time at or after each multiple of ``1 / rate_hz``, whatever piece of the stream this is.

    Args:
        times_us: Capture times, ascending.
        rate_hz: Points of the grid in a second.
        first_step_us: How long before the first time its predecessor, in another chunk, probably was.
    """
    chosen = []
    before = _point(times_us[0] - max(first_step_us, 1), rate_hz) if times_us else 0
    for at_us in times_us:
        here = _point(at_us, rate_hz)
        if here > before:
            chosen.append(at_us)
        before = here
    return chosen


def decode_wanted(
    chunk: MediaChunk,
    stream: VideoStream,
    packets: Sequence[PicturePacket],
    wanted_pts: Iterable[int],
    limits: Limits,
    deadline: Deadline,
    *,
    only_keys: bool,
) -> Iterator[VideoFrame]:
    """Decode the pictures with these time stamps, in the decoder's order, and of the others only what they need.

    ``only_keys`` says that all of them are keyframes, which refer to nothing.

    Raises:
        ChunkError: A picture is too large, or decoding takes too long.
    """
    open_wanted = set(wanted_pts)
    context = stream.codec_context
    _prepare(context, packets, limits, only_keys=only_keys)
    for packet in packets:
        if not open_wanted:
            return
        is_wanted = packet.pts in open_wanted
        if only_keys:
            if not is_wanted:
                continue
            frames = _decode(context, packet) + _decode(context, None)
            context.flush_buffers()
        else:
            context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            frames = _decode(context, packet)
        yield from _take(chunk, frames, open_wanted, limits)
        deadline.check()
    yield from _take(chunk, _decode(context, None), open_wanted, limits)


def decode_image(chunk: MediaChunk, limits: Limits) -> VideoFrame:
    """Decode a lone PNG or JPEG.

    Raises:
        ChunkError: It is not one, is cut off, or is too large; that is told from its header, before any pixel.
    """
    size = _png_size(chunk.payload) if chunk.content_type == "image/png" else _jpeg_size(chunk.payload)
    if size is None:
        refuse(chunk, "no picture of this type", "malformed")
    check_side(chunk, *size, limits)
    context = CodecContext.create(_STILL_CODECS[chunk.content_type], "r")
    context.thread_count = 1
    context.options = {"err_detect": "crccheck+explode", "max_pixels": str(limits.max_pixels)}
    frames = _decode(context, Packet(chunk.payload)) + _decode(context, None)
    if not frames or frames[0].is_corrupt:
        refuse(chunk, "the picture is damaged or cut off", "undecodable")
    check_side(chunk, frames[0].width, frames[0].height, limits)
    return frames[0]


class Scaler:
    """Turns decoded pictures into RGB of one size, upright, with the masks applied."""

    def __init__(self, masks: Sequence[Polygon]) -> None:
        self._masks = masks
        self._reformatter = VideoReformatter()

    def into(self, frame: VideoFrame, target: NDArray[np.uint8]) -> None:
        """Fill ``target``, uint8 ``(H, W, 3)``, with the whole picture, stretched to it."""
        quarters = round(frame.rotation / 90) % 4
        height, width = target.shape[:2] if quarters % 2 == 0 else target.shape[1::-1]
        # By measurement on 720p to 224: area 0.5 ms and 43.8 dB to exact averaging, bilinear 0.7 ms and 43.2 dB,
        # fast bilinear 0.4 ms and 30 dB. Area repeats pixels where it enlarges, so there bilinear.
        shrinks = frame.width >= width and frame.height >= height
        how = Interpolation.AREA if shrinks else Interpolation.BILINEAR
        scaled = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=how, threads=1)
        plane = scaled.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)[:, : width * 3]
        target[...] = np.rot90(rows.reshape(height, width, 3), quarters)
        if self._masks:
            margin = max(scaling_margin_px(frame.width, width), scaling_margin_px(frame.height, height))
            black_out(target, self._masks, margin)


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height of a picture after its rotation."""
    return (frame.height, frame.width) if round(frame.rotation / 90) % 2 else (frame.width, frame.height)


def _point(at_us: int, rate_hz: float) -> int:
    return math.floor((at_us + _EARLY_US) * rate_hz / 1e6)


def _prepare(context: VideoCodecContext, packets: Sequence[PicturePacket], limits: Limits, *, only_keys: bool) -> None:
    """Set what the decoder may leave out.

    Deblocking is a fifth of the time. Without it a lone keyframe at 224 px is off by 0.2 of 255 levels; pictures that
    follow drift until the next keyframe, by 1.6 levels (41 dB) after 24 of a busy street: let it go where keyframes
    are near.
    """
    keys = max(1, sum(packet.is_keyframe for packet in packets))
    near = "nokey" if len(packets) / keys <= _LEAVE_LOOP_FILTER_FRAMES else "default"
    context.thread_count = 1
    context.options = {"skip_loop_filter": "all" if only_keys else near, "max_pixels": str(limits.max_pixels)}


def _decode(context: Any, packet: "AnyPacket | None") -> list[VideoFrame]:
    """Decode one packet; a damaged one gives nothing, and the next ones may still be good."""
    try:
        return [frame for frame in context.decode(packet) if isinstance(frame, VideoFrame)]
    except (av.FFmpegError, ValueError, MemoryError):
        return []


def _take(
    chunk: MediaChunk, frames: Iterable[VideoFrame], open_wanted: set[int], limits: Limits
) -> Iterator[VideoFrame]:
    for frame in frames:
        if frame.pts in open_wanted and not frame.is_corrupt:
            check_side(chunk, frame.width, frame.height, limits)
            open_wanted.discard(frame.pts)
            yield frame


def _png_size(payload: bytes) -> tuple[int, int] | None:
    """Width and height from the first block of a PNG."""
    if len(payload) < 33 or not payload.startswith(_PNG_SIGNATURE) or payload[12:16] != b"IHDR":
        return None
    return int.from_bytes(payload[16:20], "big"), int.from_bytes(payload[20:24], "big")


def _jpeg_size(payload: bytes) -> tuple[int, int] | None:
    """Width and height from the first start-of-frame segment of a JPEG."""
    if not payload.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(payload) and payload[at] == 0xFF:
        marker = payload[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker in _JPEG_SIZES:
            return int.from_bytes(payload[at + 7 : at + 9], "big"), int.from_bytes(payload[at + 5 : at + 7], "big")
        else:
            at += 2 + int.from_bytes(payload[at + 2 : at + 4], "big")
    return None
