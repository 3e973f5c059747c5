"""One connection to a source: from opening it to its end, as chunks of the contract."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import av

from streamer.errors import SourceError
from streamer.ingest.cut import Cutter, Limits, OnDrop, Piece
from streamer.ingest.images import list_pictures, picture_pieces
from streamer.ingest.opening import Opened, explain, open_source
from streamer.ingest.plan import plan_cutters
from streamer.ingest.spec import STDIN, SourceSpec
from streamer.ingest.timeline import CaptureClock, Timeline
from streamer.settings import Settings
from streamer.types import MediaChunk, Position

_READ_ERRORS: Final = (av.FFmpegError, OSError, ValueError)


class Session:
    """Reads a source once.

    Args:
        name: Stream id.
        spec: The source.
        settings: How it is cut.
        stop: Set to end early; what was read is still given.
        on_drop: Told of what is left out and why.
        now_us: Wall clock, microseconds since 1970 UTC.
    """

    def __init__(
        self,
        name: str,
        spec: SourceSpec,
        settings: Settings,
        stop: threading.Event,
        on_drop: OnDrop,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._name = name
        self._spec = spec
        self._settings = settings
        self._limits = Limits(round(settings.ingest.chunk_s * 1e6), settings.ingest.chunk_max_bytes)
        self._stop = stop
        self._on_drop = on_drop
        self._now_us = now_us
        self._position = Position(settings.kafka.topics[0], -1, -1)
        self._timeline = Timeline()
        self._clock = CaptureClock(None)
        self._cutters: dict[int, Cutter] = {}
        self._failure: SourceError | None = None
        self._id = uuid.uuid4().hex[:16]
        self._seq = 0
        self._end_us = 0  # media time
        self._began_s = 0.0
        self.is_finite: bool | None = None  # known once it is open

    def chunks(self) -> Iterator[MediaChunk]:
        """Every chunk, at the pace that the source or its rate sets. The last one says so.

        Raises:
            SourceError: It cannot be opened, broke off, or is a live source that ended.
        """
        folder = Path(self._spec.url)
        if not self._spec.scheme and folder.is_dir():
            self.is_finite = True
            pictures = list_pictures(folder)
            rate_hz = self._spec.image_rate_hz
            self._set_clock(round(len(pictures) * 1e6 / rate_hz))
            yield from self._finite(
                lambda: picture_pieces(pictures, self._end_us, rate_hz, self._limits.max_bytes, self._on_drop)
            )
            return
        opened = self._open()
        try:
            self.is_finite = not opened.is_live
            if opened.is_live:
                self._timeline = Timeline(by_arrival=not opened.has_clock)
                yield from self._live(opened)
                return
            self._set_clock(opened.duration_us)
            again: Iterator[Opened] = self._passes(opened)
            yield from self._finite(lambda: self._pass(next(again)))
        finally:
            opened.container.close()

    @property
    def _repeats(self) -> bool:
        return self._spec.loop and self._spec.url != STDIN

    def _open(self) -> Opened:
        return open_source(self._spec, self._settings.ingest.open_timeout_s)

    def _set_clock(self, duration_us: int | None) -> None:
        start_us = self._spec.start_us
        if start_us is None:
            start_us = self._now_us()
            if self._spec.rate is None and not self._spec.loop:
                # Read at once, a long recording would reach so far into the future that it is refused.
                allowed_us = round(self._settings.decode.max_future_s * 1e6) // 2
                start_us -= max(0, (duration_us or 0) - allowed_us)
        self._clock = CaptureClock(start_us)
        self._began_s = time.monotonic()

    def _live(self, opened: Opened) -> Iterator[MediaChunk]:
        self._timeline.begin(0, None)
        for piece in self._read(opened):
            yield self._stamp(piece)
        tail = [self._stamp(piece) for piece in self._finish()]
        yield from tail[:-1]
        if tail:
            yield replace(tail[-1], is_last=True)
        if not self._stop.is_set():
            raise self._failure or SourceError(f"source {self._spec.shown} ended; it is opened again")

    def _finite(self, one_pass: Callable[[], Iterator[Piece]]) -> Iterator[MediaChunk]:
        held: tuple[MediaChunk, int] | None = None
        while True:
            before_us = self._end_us
            for piece in one_pass():
                if held is not None:
                    self._pace(held[1])
                    yield held[0]
                held = self._stamp(piece), piece.end_us
                self._end_us = max(self._end_us, piece.end_us)
                if self._stop.is_set():
                    break
            if self._end_us == before_us and self._failure is None and not self._stop.is_set():
                self._failure = SourceError(
                    f"source {self._spec.shown} gave no usable picture or sound; check the file"
                )
            if not self._repeats or self._failure is not None or self._stop.is_set():
                break
        if held is not None:
            self._pace(held[1])
            yield replace(held[0], is_last=True)
        if self._failure is not None:
            raise self._failure

    def _passes(self, first: Opened) -> Iterator[Opened]:
        yield first
        while True:
            opened = self._open()
            with contextlib.closing(opened.container):
                yield opened

    def _pass(self, opened: Opened) -> Iterator[Piece]:
        self._timeline.begin(self._end_us, opened.start_us)
        yield from self._read(opened)
        yield from self._finish()

    def _read(self, opened: Opened) -> Iterator[Piece]:
        self._cutters = plan_cutters(opened, self._limits, self._on_drop)
        streams = [stream for stream in (opened.picture, opened.sound) if stream is not None]
        picture_index = opened.picture.index if opened.picture is not None else None
        try:
            for packet in opened.container.demux(streams):
                is_picture = packet.stream_index == picture_index
                sample = self._timeline.place(packet, is_picture=is_picture, arrival_us=self._now_us())
                if sample is not None:
                    self._clock.observe(sample)
                    yield from self._cutters[packet.stream_index].push(sample)
                if self._stop.is_set():
                    return
        except _READ_ERRORS as error:
            said = explain(error, self._spec.url)
            self._failure = SourceError(f"source {self._spec.shown} broke off: {said}")

    def _finish(self) -> list[Piece]:
        return [piece for cutter in dict.fromkeys(self._cutters.values()) for piece in cutter.finish()]

    def _stamp(self, piece: Piece) -> MediaChunk:
        if self._clock.set_again():
            self._id, self._seq = uuid.uuid4().hex[:16], 0
        self._seq += 1
        return MediaChunk(
            self._name,
            piece.content_type,
            piece.payload,
            self._clock.capture_us(piece.start_us),
            self._position,
            duration_us=piece.end_us - piece.start_us,
            session=self._id,
            seq=self._seq - 1,
        )

    def _pace(self, end_us: int) -> None:
        """Wait until a chunk would be complete at the camera."""
        if self._spec.rate is not None:
            self._stop.wait(max(0.0, self._began_s + end_us / 1e6 / self._spec.rate - time.monotonic()))
