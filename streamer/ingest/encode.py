"""The way out for what no container of the contract carries: decoded, and encoded piece by piece."""

import contextlib
import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamer.ingest.cut import Limits, OnDrop, Piece
from streamer.ingest.timeline import Sample

_GAP_US: Final = 100_000  # sound missing for longer ends a piece: within one, samples follow each other
_TICKS: Final = 90_000


class SoundEncoder:
    """Sound into FLAC: nothing is lost, and there is no click where pieces meet, as there would be in cut MP3.

    Args:
        stream: What the samples belong to.
        limits: How long and how large pieces are.
        on_drop: Told of packets that cannot be decoded and pieces that are too large.
    """

    def __init__(self, stream: AudioStream, limits: Limits, on_drop: OnDrop) -> None:
        self._stream = stream
        self._limits = limits
        self._on_drop = on_drop
        context = stream.codec_context
        self._rate_hz = context.sample_rate
        self._layout = "mono" if context.channels == 1 else "stereo"
        self._resampler = AudioResampler(format="s16", layout=self._layout, rate=self._rate_hz)
        self._frames: list[AudioFrame] = []
        self._start_us = 0
        self._samples = 0
        self._newest: Sample | None = None

    def push(self, sample: Sample) -> list[Piece]:
        """Take the next packet, give the piece that it ends, if any."""
        try:
            decoded: Sequence[Any] = sample.packet.decode()
        except av.FFmpegError as error:
            self._on_drop(f"a packet of sound cannot be decoded: {type(error).__name__}")
            return []
        self._newest = sample
        return self._take(decoded, sample)

    def finish(self) -> list[Piece]:
        """Give what is left, in the decoder too."""
        pieces: list[Piece] = []
        if self._newest is not None:
            with contextlib.suppress(av.FFmpegError):
                pieces += self._take(self._stream.codec_context.decode(None), self._newest)
        return pieces + self._flush()

    def _take(self, decoded: Sequence[AudioFrame], sample: Sample) -> list[Piece]:
        pieces: list[Piece] = []
        for frame in decoded:
            at_us = _place(frame, self._stream, sample)
            if self._frames and (self._is_full() or abs(at_us - self._end_us()) > _GAP_US):
                pieces += self._flush()
            if not self._frames:
                self._start_us, self._samples = at_us, 0
            for resampled in self._resampler.resample(frame):
                resampled.pts = None
                self._frames.append(resampled)
                self._samples += resampled.samples
        return pieces

    def _flush(self) -> list[Piece]:
        frames, self._frames = self._frames, []
        if not frames:
            return []
        out = io.BytesIO()
        with av.open(out, "w", format="flac") as container:
            target = container.add_stream("flac", rate=self._rate_hz, layout=self._layout, format="s16")
            written = 0
            for frame in frames:
                frame.pts, frame.time_base = written, Fraction(1, self._rate_hz)
                written += frame.samples
                container.mux(target.encode(frame))
            container.mux(target.encode(None))
        piece = Piece("audio/flac", out.getvalue(), self._start_us, self._end_us())
        return _within(piece, self._limits, self._on_drop)

    def _is_full(self) -> bool:
        return self._end_us() - self._start_us >= self._limits.chunk_us

    def _end_us(self) -> int:
        return self._start_us + self._samples * 1_000_000 // self._rate_hz


class PictureEncoder:
    """Pictures into H.264: raw webcams, GIF, WMV and the like.

    Args:
        stream: What the samples belong to.
        limits: How long and how large pieces are.
        on_drop: Told of packets that cannot be decoded and pieces that are too large.
    """

    def __init__(self, stream: VideoStream, limits: Limits, on_drop: OnDrop) -> None:
        self._stream = stream
        self._limits = limits
        self._on_drop = on_drop
        self._out: io.BytesIO | None = None
        self._container: Any = None
        self._target: Any = None
        self._start_us = 0
        self._end_us = 0
        self._newest: Sample | None = None

    def push(self, sample: Sample) -> list[Piece]:
        """Take the next packet, give the piece that it ends, if any."""
        try:
            decoded: Sequence[Any] = sample.packet.decode()
        except av.FFmpegError as error:
            self._on_drop(f"a picture cannot be decoded: {type(error).__name__}")
            return []
        self._newest = sample
        return self._take(decoded, sample)

    def finish(self) -> list[Piece]:
        """Give what is left, in the decoder too."""
        pieces: list[Piece] = []
        if self._newest is not None:
            with contextlib.suppress(av.FFmpegError):
                pieces += self._take(self._stream.codec_context.decode(None), self._newest)
        return pieces + self._flush()

    def _take(self, decoded: Sequence[VideoFrame], sample: Sample) -> list[Piece]:
        pieces: list[Piece] = []
        for frame in decoded:
            at_us = _place(frame, self._stream, sample)
            if self._out is not None and not 0 <= at_us - self._start_us < self._limits.chunk_us:
                pieces += self._flush()
            if self._out is None:
                self._open(frame, at_us)
            self._encode(frame, at_us)
            self._end_us = at_us + sample.duration_us
        return pieces

    def _flush(self) -> list[Piece]:
        if self._out is None:
            return []
        self._container.mux(self._target.encode(None))
        self._container.close()
        piece = Piece("video/mp2t", self._out.getvalue(), self._start_us, self._end_us)
        self._out = None
        return _within(piece, self._limits, self._on_drop)

    def _open(self, frame: VideoFrame, at_us: int) -> None:
        self._out = io.BytesIO()
        self._container = av.open(self._out, "w", format="mpegts")
        options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20", "threads": "1"}
        self._target = self._container.add_stream("libx264", rate=25, options=options)
        self._target.width, self._target.height = _even(frame.width), _even(frame.height)
        self._target.pix_fmt = "yuv420p"
        self._target.codec_context.time_base = Fraction(1, _TICKS)
        self._start_us = at_us

    def _encode(self, frame: VideoFrame, at_us: int) -> None:
        ready = frame.reformat(width=self._target.width, height=self._target.height, format="yuv420p")
        ready.pts, ready.time_base = (at_us - self._start_us) * _TICKS // 1_000_000, Fraction(1, _TICKS)
        self._container.mux(self._target.encode(ready))


def _place(frame: VideoFrame | AudioFrame, stream: VideoStream | AudioStream, sample: Sample) -> int:
    """Media time of a frame; the packet's where the decoder says nothing."""
    if frame.pts is None or stream.time_base is None:
        return sample.pts_us
    return int(frame.pts * stream.time_base * 1_000_000) + sample.shift_us


def _even(side_px: int) -> int:
    return max(2, side_px - side_px % 2)


def _within(piece: Piece, limits: Limits, on_drop: OnDrop) -> list[Piece]:
    if len(piece.payload) <= limits.max_bytes:
        return [piece]
    on_drop(f"a piece of {len(piece.payload)} bytes is over ingest.chunk_max_bytes = {limits.max_bytes}")
    return []
