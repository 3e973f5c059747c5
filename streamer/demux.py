"""Hostile bytes into packets: the demuxer is the one that the content type names, and it can reach nothing else."""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from streamer.errors import ChunkError
from streamer.types import MediaChunk

PicturePacket: TypeAlias = "Packet[VideoStream]"  # av.Packet takes a parameter in its stub only
SoundPacket: TypeAlias = "Packet[AudioStream]"
AnyPacket: TypeAlias = "Packet[Any]"

REASONS: Final = frozenset(
    {
        "type",  # a content type without a demuxer
        "malformed",  # not what the content type says
        "codec",  # a codec outside the list
        "streams",  # too many elementary streams
        "size",  # a picture with too long a side
        "duration",  # too long
        "frames",  # too many pictures
        "slow",  # took too long to decode
        "undecodable",  # nothing in it decodes
    }
)  # of every ChunkError raised while decoding

_PICTURE_CODECS: Final = frozenset({"h264", "hevc", "mpeg2video", "mpeg4", "mjpeg", "vp9", "av1"})
_PCM_CODECS: Final = frozenset(
    f"pcm_{form}" for form in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "alaw", "mulaw")
)
_SOUND_CODECS: Final = frozenset(
    {"aac", "aac_latm", "mp2", "mp3", "mp3float", "ac3", "eac3", "opus", "vorbis", "flac"} | _PCM_CODECS
)
_DECODERS: Final = _PICTURE_CODECS | _SOUND_CODECS | {"libdav1d", "libvpx-vp9"}  # as decoders are called, for probing


@dataclass(frozen=True, slots=True)
class _Form:
    """What a content type may hold."""

    demuxer: str
    picture: frozenset[str]
    sound: frozenset[str]


_FORMS: Final = {
    "video/mp2t": _Form("mpegts", _PICTURE_CODECS, _SOUND_CODECS),
    "video/mp4": _Form("mp4", _PICTURE_CODECS, _SOUND_CODECS),
    "audio/wav": _Form("wav", frozenset(), _PCM_CODECS),
    "audio/flac": _Form("flac", frozenset(), frozenset({"flac"})),
    "audio/ogg": _Form("ogg", frozenset(), frozenset({"opus", "vorbis", "flac"})),
    "audio/aac": _Form("aac", frozenset(), frozenset({"aac"})),
}

# Guessing the frame rate and decoding a picture to learn its form made opening a 1 s chunk of 720p25 cost 16 ms; both
# are switched off here, which leaves 0.9 ms. The parsers tell all that is needed.
_PROBE: Final = {"fpsprobesize": "0", "skip_frame": "all", "threads": "1"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a chunk may cost.

    Attributes:
        max_side_px: Longest side of a picture.
        max_streams: Elementary streams.
        max_duration_s: From the first to the last sample.
        max_frames: Pictures, decoded or not.
        timeout_s: Time to decode it, looked at between packets.
    """

    max_side_px: int = 8192
    max_streams: int = 16
    max_duration_s: float = 120.0
    max_frames: int = 7200
    timeout_s: float = 20.0

    @property
    def max_pixels(self) -> int:
        """Area that a decoder may allocate: the longest side at 4:3."""
        return self.max_side_px * self.max_side_px * 3 // 4


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a chunk has had its time."""

    chunk: MediaChunk
    limits: Limits
    at_s: float

    @classmethod
    def of(cls, chunk: MediaChunk, limits: Limits) -> "Deadline":
        """The clock starts now."""
        return cls(chunk, limits, time.monotonic() + limits.timeout_s)

    def check(self) -> None:
        """Raise `ChunkError` once the time is up."""
        if time.monotonic() > self.at_s:
            text = (
                f"decoding takes longer than {self.limits.timeout_s:g} s; send shorter chunks or raise decode.timeout_s"
            )
            refuse(self.chunk, text, "slow")


@dataclass(frozen=True, slots=True, eq=False)
class Demuxed:
    """The packets of a chunk, nothing decoded yet.

    Attributes:
        picture: The first usable picture stream, or None.
        sound: The first usable sound stream, or None.
        picture_packets: In decoding order, time stamps on all of them.
        picture_times_us: The time stamps of these, in the container's own time, microseconds.
        sound_packets: In order, time stamps on all of them.
    """

    picture: VideoStream | None
    sound: AudioStream | None
    picture_packets: list[PicturePacket]
    picture_times_us: list[int]
    sound_packets: list[SoundPacket]


def refuse(chunk: MediaChunk, text: str, reason: str) -> NoReturn:
    """Raise the `ChunkError` that names the chunk."""
    message = f"chunk refused: {text} (stream={chunk.stream!r}, {chunk.content_type}, {chunk.position})"
    raise ChunkError(message, reason=reason)


def time_us(pts: int | None, timed: Stream | AudioFrame) -> int:
    """A time stamp in microseconds, in the container's own time; none counts as 0."""
    base = timed.time_base
    if pts is None or base is None:
        return 0
    return (pts * int(base.numerator) * 2_000_000 + int(base.denominator)) // (2 * int(base.denominator))


def is_still(content_type: str) -> bool:
    """Whether the content type is a single picture, without a container."""
    return content_type in ("image/jpeg", "image/png")


def open_chunk(chunk: MediaChunk, limits: Limits) -> InputContainer:
    """Open a chunk's container; the caller closes it.

    Raises:
        ChunkError: It is not what its content type says, or holds too many streams.
    """
    form = _FORMS.get(chunk.content_type)
    if form is None:
        refuse(chunk, "no demuxer for this content type", "type")
    if chunk.content_type == "audio/aac" and not _begins_as_aac(chunk.payload):
        refuse(chunk, "does not begin with an ADTS frame", "malformed")  # the demuxer would search for one anywhere
    options = {
        **_PROBE,
        "format_whitelist": form.demuxer,
        "codec_whitelist": ",".join(sorted(_DECODERS)),
        "protocol_whitelist": "none",
        "max_streams": str(limits.max_streams),
        "max_pixels": str(limits.max_pixels),
    }
    try:
        container = av.open(
            io.BytesIO(chunk.payload), mode="r", format=form.demuxer, options=options, io_open=_open_nothing
        )
    except (av.FFmpegError, ValueError, OverflowError, UnicodeError, MemoryError) as error:
        refuse(chunk, f"cannot be read as {form.demuxer}: {_why(error)}", "malformed")
    if len(container.streams) > limits.max_streams:
        count = len(container.streams)
        container.close()
        refuse(chunk, f"{count} streams, at most {limits.max_streams} are allowed (decode.max_streams)", "streams")
    return container


def demux(chunk: MediaChunk, container: InputContainer, limits: Limits, deadline: Deadline) -> Demuxed:
    """Read every packet of the chosen streams.

    Raises:
        ChunkError: No usable stream, or a limit is passed.
    """
    picture, sound = _choose(chunk, container)
    if picture is not None:
        check_side(chunk, picture.codec_context.width, picture.codec_context.height, limits)
    found = Demuxed(picture, sound, [], [], [])
    chosen = [stream for stream in (picture, sound) if stream is not None]
    for packet in _packets(chunk, container, chosen):
        deadline.check()
        if packet.size == 0 or packet.pts is None:
            continue
        if picture is not None and packet.stream_index == picture.index:
            found.picture_packets.append(packet)
            found.picture_times_us.append(time_us(packet.pts, picture))
            if len(found.picture_packets) > limits.max_frames:
                refuse(
                    chunk, f"more than {limits.max_frames} pictures (decode.max_frames); send shorter chunks", "frames"
                )
        else:
            found.sound_packets.append(packet)
    if not found.picture_packets and not found.sound_packets:
        refuse(chunk, "no packet with a time stamp in it", "malformed")
    return found


def check_side(chunk: MediaChunk, width: int, height: int, limits: Limits) -> None:
    """Raise `ChunkError` if a picture of this size is too large."""
    if max(width, height) > limits.max_side_px or width * height > limits.max_pixels:
        refuse(chunk, f"a picture of {width} x {height}; sides up to {limits.max_side_px} are allowed", "size")


def _choose(chunk: MediaChunk, container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    form = _FORMS[chunk.content_type]
    picture = sound = None
    seen = []
    for stream in container.streams:
        if stream.type not in ("video", "audio") or stream.disposition & Disposition.attached_pic:
            continue
        codec = _codec_name(stream)
        seen.append(codec)
        if picture is None and isinstance(stream, VideoStream) and codec in form.picture:
            picture = stream
        elif sound is None and isinstance(stream, AudioStream) and codec in form.sound:
            sound = stream
    if picture is None and sound is None:
        if not seen:
            refuse(chunk, "neither picture nor sound in it", "malformed")
        allowed = ", ".join(sorted(form.picture | form.sound))
        refuse(chunk, f"holds {', '.join(sorted(set(seen)))}; decoded are {allowed}", "codec")
    return picture, sound


def _codec_name(stream: Stream) -> str:
    context: Any = stream.codec_context  # None where FFmpeg has no decoder, whatever the stub says
    return "an unknown codec" if context is None else str(context.codec.canonical_name)


def _packets(chunk: MediaChunk, container: InputContainer, streams: list[Any]) -> Iterator[AnyPacket]:
    try:
        yield from container.demux(streams)
    except (av.FFmpegError, ValueError, OverflowError) as error:
        refuse(chunk, f"its container breaks off: {_why(error)}", "malformed")


def _begins_as_aac(payload: bytes) -> bool:
    return payload.startswith(b"ID3") or (payload[:1] == b"\xff" and payload[1:2] != b"" and payload[1] & 0xF6 == 0xF0)


def _open_nothing(*_: object) -> NoReturn:
    raise PermissionError("a chunk may not open anything")


def _why(error: BaseException) -> str:
    """FFmpeg's own words, never a name or bytes from the chunk."""
    text = getattr(error, "strerror", None)
    return str(text) if text else type(error).__name__
