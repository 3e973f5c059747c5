"""Sources opened so that they reach what they name and nothing else."""

import contextlib
import io
import itertools
import sys
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from streamer.errors import SourceError
from streamer.ingest.redact import redact
from streamer.ingest.spec import STDIN, SourceSpec

# An address must never make FFmpeg open a file of this machine, or a file an address.
_PROTOCOLS: Final = {
    "rtsp": "rtsp,rtp,tcp,udp",
    "rtsps": "rtsp,rtsps,rtp,tcp,udp,tls,crypto",
    "http": "http,https,tcp,tls,crypto",
    "https": "https,http,tcp,tls,crypto",
    "": "file",
}
_LISTS: Final = frozenset({"concat", "sdp", "hls", "dash", "applehttp", "image2", "lavfi", "imf", "webm_dash_manifest"})
_RAW: Final = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "m4v"})  # no clock in them: FFmpeg would guess 25 Hz
_OPEN_ERRORS: Final = (av.FFmpegError, OSError, ValueError, UnicodeError)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A source that can be read.

    Attributes:
        container: To be closed by whoever asked for it.
        picture: The picture stream, or None.
        sound: The sound stream, or None.
        is_live: It has no end of its own and sets the pace.
        has_clock: Its time stamps mean something.
        is_rotated: A telephone's film that players turn upright.
    """

    container: InputContainer
    picture: VideoStream | None
    sound: AudioStream | None
    is_live: bool
    has_clock: bool
    is_rotated: bool

    @property
    def start_us(self) -> int | None:
        """The source's own time of its first sample."""
        start: int | None = self.container.start_time
        return start

    @property
    def duration_us(self) -> int | None:
        """How long it is, where it says so."""
        return self.container.duration


def open_source(spec: SourceSpec, timeout_s: float) -> Opened:
    """Open a file, device or address.

    Args:
        spec: The source.
        timeout_s: For opening, and for each read from a network.

    Raises:
        SourceError: It cannot be opened, or holds neither picture nor sound. No credentials in it.
    """
    try:
        container = _open(spec, timeout_s)
    except _OPEN_ERRORS as error:
        raise SourceError(
            f"source {spec.shown} cannot be opened: {explain(error, spec.url)}; {_advice(spec)}"
        ) from None
    picture = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
    sound = next(iter(container.streams.audio), None)
    picture = picture if picture is not None and picture.codec_context is not None else None
    sound = sound if sound is not None and sound.codec_context is not None else None
    if picture is None and sound is None:
        container.close()
        raise SourceError(f"source {spec.shown} holds neither picture nor sound that can be read; {_advice(spec)}")
    is_live = spec.is_device or spec.scheme.startswith("rtsp") or (bool(spec.scheme) and not _has_end(container))
    has_clock = not (is_live and container.format.name in _RAW)
    is_rotated = picture is not None and not is_live and not spec.scheme and _is_rotated(spec, container)
    return Opened(container, picture, sound, is_live, has_clock, is_rotated)


def explain(error: BaseException, url: str) -> str:
    """What FFmpeg or the system says, without the secrets of ``url``."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    log = getattr(error, "log", None)
    with contextlib.suppress(TypeError, IndexError, KeyError):
        said = f"{said} ({log[2].strip()})" if log and log[2] and log[2].strip() else said
    return redact(" ".join(str(said).split()), url)


def _open(spec: SourceSpec, timeout_s: float) -> InputContainer:
    threads = {"threads": "1"}
    if spec.url == STDIN:
        return av.open(
            _Pipe(sys.stdin.buffer), mode="r", format="mpegts", options={"format_whitelist": "mpegts", **threads}
        )
    if spec.is_device:
        return _open_device(spec.url, threads)
    options = _file_options(spec.scheme)
    if spec.scheme:
        options["fpsprobesize"] = "2"  # a web camera is opened at once, not after five seconds of counting pictures
    if spec.scheme.startswith("rtsp"):
        # Over TCP: a lost UDP packet would spoil a whole group of pictures.
        options |= {"rtsp_transport": "tcp", "timeout": str(round(timeout_s * 1e6))}
        return av.open(spec.dialled, mode="r", format="rtsp", options=options, timeout=(timeout_s, timeout_s))
    if spec.address:
        options |= _pinned(spec)
    if spec.scheme:
        return av.open(spec.dialled, mode="r", options=options, timeout=(timeout_s, timeout_s))
    return av.open(f"file:{spec.url}", mode="r", options=options)


def _file_options(scheme: str) -> dict[str, str]:
    return {"protocol_whitelist": _PROTOCOLS[scheme], "format_whitelist": _formats(scheme), "threads": "1"}


def _open_device(path: str, threads: dict[str, str]) -> InputContainer:
    # Compressed by the camera where it can: raw pictures have to be encoded here.
    for form in ("h264", "mjpeg"):
        with contextlib.suppress(*_OPEN_ERRORS):
            return av.open(path, mode="r", format="v4l2", options={"input_format": form, **threads})
    return av.open(path, mode="r", format="v4l2", options=threads)


def _is_rotated(spec: SourceSpec, container: InputContainer) -> bool:
    """Only a decoded picture tells; the file is opened once more for it."""
    if not container.format.name.startswith("mov"):
        return False
    with contextlib.suppress(*_OPEN_ERRORS), av.open(f"file:{spec.url}", mode="r", options=_file_options("")) as again:
        return any(frame.rotation for frame in itertools.islice(again.decode(video=0), 1))
    return False


def _has_end(container: InputContainer) -> bool:
    """Whether a web server says how long or how large the thing is."""
    return container.duration is not None or (container.format.name != "hls" and container.size > 0)


def _formats(scheme: str) -> str:
    allowed = av.formats_available - _LISTS
    return ",".join(sorted(allowed | {"hls"} if scheme.startswith("http") else allowed))


def _pinned(spec: SourceSpec) -> dict[str, str]:
    """For a web address that was checked: its name for the server's sake, and no way to another place."""
    host = urlsplit(spec.url).netloc.rpartition("@")[2]
    return {"headers": f"Host: {host}\r\n", "max_redirects": "0", "format_whitelist": _formats("")}


def _advice(spec: SourceSpec) -> str:
    if spec.url == STDIN:
        return "MPEG-TS is expected on standard input"
    if spec.is_device:
        return "check that the camera is plugged in, free and readable by this user"
    if spec.scheme:
        return "check the address, the user and password, and that the camera can be reached from here"
    return "check the path, and that it is a video, sound or picture file"


class _Pipe:
    """Standard input, read as it comes: a full buffer would be a delay."""

    def __init__(self, stream: Any) -> None:
        self._stream: io.BufferedReader = stream

    def read(self, size_bytes: int) -> bytes:
        return self._stream.read1(size_bytes)
