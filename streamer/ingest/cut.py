"""Packets into pieces that decode alone: cut at keyframes, copied, not encoded again."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Protocol

import av
from av.stream import Stream

from streamer.ingest.timeline import Sample

_MICROSECONDS: Final = Fraction(1, 1_000_000)
_LEAD_US: Final = 10_000_000  # keeps the decoding times of a session's first packets positive
_EARLY: Final = 0.05  # a keyframe this part of a chunk early ends it: cameras jitter, and the next may be far
_TABLES_BYTES: Final = 4_096
_SILENT_PICTURE_US: Final = 10_000_000  # sound this far ahead of the picture is sent without it


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A chunk-to-be.

    Attributes:
        content_type: Of the contract.
        payload: Decodes alone.
        start_us: Media time of its first sample.
        end_us: Media time of its end (exclusive).
    """

    content_type: str
    payload: bytes
    start_us: int
    end_us: int


class Cutter(Protocol):
    """Takes samples of some streams and gives pieces."""

    def push(self, sample: Sample) -> list[Piece]:
        """Take the next sample, give what is complete."""

    def finish(self) -> list[Piece]:
        """Give what is left; nothing is pushed afterwards."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How pieces are cut.

    Attributes:
        chunk_us: A piece ends at the first keyframe after this.
        max_bytes: And is never larger.
    """

    chunk_us: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Form:
    """A container that streams are copied into."""

    content_type: str
    muxer: str
    options: dict[str, str]


MPEGTS: Final = Form("video/mp2t", "mpegts", {})
MP4: Final = Form("video/mp4", "mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof+delay_moov"})
WAV: Final = Form("audio/wav", "wav", {})

OnDrop = Callable[[str], None]


class RemuxCutter:
    """Copies packets into one container per piece.

    Args:
        form: The container.
        picture: Picture stream or None: then every packet is a place to cut.
        sound: Sound stream or None.
        limits: How long and how large pieces are.
        on_drop: Told of every group of pictures that is too large for a piece, or cannot be written.
    """

    def __init__(
        self, form: Form, picture: Stream | None, sound: Stream | None, limits: Limits, on_drop: OnDrop
    ) -> None:
        self._form = form
        self._has_picture = picture is not None
        self._streams = [stream for stream in (picture, sound) if stream is not None]
        self._limits = limits
        self._on_drop = on_drop
        self._done: list[Sample] = []  # whole groups of pictures
        self._group: list[Sample] = []  # the one that is growing
        self._done_bytes = 0
        self._group_bytes = 0
        self._group_start_us = 0
        self._newest_picture_us = 0

    def push(self, sample: Sample) -> list[Piece]:
        """Take the next sample, give the piece that it ends, if any."""
        pieces: list[Piece] = []
        if sample.is_picture:
            self._newest_picture_us = sample.pts_us
        if self._starts_group(sample):
            pieces += self._close_group()
            if self._is_long_enough(sample):
                pieces += self._emit()
            self._group_start_us = sample.pts_us
            self._add(sample)
        elif self._group and not (sample.is_picture and not self._group[0].is_picture):
            self._add(sample)
        if self._group_bytes > self._limits.max_bytes - _TABLES_BYTES:
            pieces += self._emit()
            self._drop_group()
        return pieces

    def finish(self) -> list[Piece]:
        """Give what is left."""
        return self._close_group() + self._emit()

    def _starts_group(self, sample: Sample) -> bool:
        if sample.is_picture:
            return bool(sample.packet.is_keyframe)
        if not self._has_picture:
            return True
        # The picture has stopped: do not hold the sound back for a keyframe that may never come.
        return sample.pts_us - self._newest_picture_us > _SILENT_PICTURE_US

    def _is_long_enough(self, start: Sample) -> bool:
        if not self._done:
            return False
        early_us = min(int(self._limits.chunk_us * _EARLY), (start.pts_us - self._group_start_us) // 2)
        return start.pts_us - self._done[0].pts_us + early_us >= self._limits.chunk_us

    def _add(self, sample: Sample) -> None:
        self._group.append(sample)
        self._group_bytes += _bound(sample)

    def _close_group(self) -> list[Piece]:
        pieces: list[Piece] = []
        if self._done_bytes + self._group_bytes > self._limits.max_bytes - _TABLES_BYTES:
            pieces = self._emit()
        self._done += self._group
        self._done_bytes += self._group_bytes
        self._group, self._group_bytes = [], 0
        return pieces

    def _emit(self) -> list[Piece]:
        samples, self._done, self._done_bytes = _without_leading(self._done), [], 0
        if not samples:
            return []
        try:
            payload = mux(self._form, self._streams, samples)
        except (av.FFmpegError, ValueError) as error:
            self._on_drop(
                f"{len(samples)} packets cannot be written as {self._form.content_type}: {type(error).__name__}"
            )
            return []
        if len(payload) > self._limits.max_bytes:
            self._on_drop(f"a piece of {len(payload)} bytes is over ingest.chunk_max_bytes = {self._limits.max_bytes}")
            return []
        start_us = min(sample.pts_us for sample in samples)
        return [Piece(self._form.content_type, payload, start_us, max(sample.end_us for sample in samples))]

    def _drop_group(self) -> None:
        span_s = (self._group[-1].end_us - self._group[0].pts_us) / 1e6
        self._group, self._group_bytes = [], 0
        self._on_drop(
            f"no keyframe in {span_s:.1f} s and ingest.chunk_max_bytes = {self._limits.max_bytes} is full: all up"
            " to the next keyframe is dropped; set a shorter keyframe interval or a lower bit rate at the camera"
        )


def _bound(sample: Sample) -> int:
    """More than a sample takes in any of the containers: headers, stuffing, tables that are repeated."""
    size: int = sample.packet.size
    return size * 188 // 184 + 400


def mux(form: Form, streams: Sequence[Stream], samples: Sequence[Sample]) -> bytes:
    """Write samples into a container of their own. Their packets are used up.

    Raises:
        FFmpegError: The muxer refuses them.
    """
    out = io.BytesIO()
    with av.open(out, "w", format=form.muxer, options=form.options) as container:
        targets: dict[int, Any] = {
            stream.index: container.add_stream_from_template(stream, opaque=True) for stream in streams
        }
        for sample in samples:
            packet = sample.packet
            packet.stream = targets[packet.stream_index]
            packet.time_base = _MICROSECONDS
            packet.pts = sample.pts_us + _LEAD_US
            packet.dts = sample.dts_us + _LEAD_US
            packet.duration = sample.duration_us
            container.mux_one(packet)
    return out.getvalue()


def _without_leading(samples: list[Sample]) -> list[Sample]:
    """Leave out pictures shown before the first keyframe: they need the group before, which is in another piece."""
    first = next((sample for sample in samples if sample.is_picture), None)
    if first is None:
        return samples
    kept = []
    in_first_group = True
    for sample in samples:
        if sample.is_picture and sample is not first:
            in_first_group = in_first_group and not sample.packet.is_keyframe
            if in_first_group and sample.pts_us < first.pts_us:
                continue
        kept.append(sample)
    return kept
