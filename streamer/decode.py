"""One chunk into frames at the encoder's size and sound at 16 kHz. A pure function of the chunk and its options."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.activity import choose_effort, keyframes_suffice
from streamer.demux import Deadline, Demuxed, Limits, PicturePacket, demux, is_still, open_chunk, refuse, time_us
from streamer.picture import Scaler, decode_image, decode_wanted, interval_us, on_grid
from streamer.settings import Decode
from streamer.sound import decode_sound
from streamer.types import SAMPLE_RATE_HZ, THUMB_SIDE, Decoded, Effort, MediaChunk, Polygon


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How a stream's chunks are decoded.

    Attributes:
        size: Side of the square that frames are stretched to, pixels.
        motion_rate_hz: Frames a second where something moves.
        quiet_rate_hz: Frames a second where nothing does: keyframes, where there are enough.
        effort: ``auto`` by activity, or one of the two always.
        activity_threshold: See `streamer.activity`.
        limits: What a chunk may cost.
        masks: Privacy masks of the stream.
    """

    size: int
    motion_rate_hz: float
    quiet_rate_hz: float
    effort: Literal["auto", "motion", "keyframes"]
    activity_threshold: float
    limits: Limits = field(default_factory=Limits)
    masks: tuple[Polygon, ...] = ()

    @classmethod
    def of(cls, settings: Decode, size: int, masks: tuple[Polygon, ...] = ()) -> Self:
        """The options that the settings say, for an encoder of this size and a stream with these masks."""
        limits = Limits(
            max_side_px=settings.max_side_px,
            max_streams=settings.max_streams,
            max_duration_s=settings.max_duration_s,
            max_frames=settings.max_frames,
            timeout_s=settings.timeout_s,
        )
        return cls(
            size=size,
            motion_rate_hz=settings.motion_rate_hz,
            quiet_rate_hz=settings.quiet_rate_hz,
            effort=settings.effort,
            activity_threshold=settings.activity_threshold,
            limits=limits,
            masks=masks,
        )


def decode_chunk(chunk: MediaChunk, options: DecodeOptions) -> Decoded:
    """Decode what a chunk holds, as much of it as its activity asks for.

    Raises:
        ChunkError: It cannot be used; ``reason`` is one of `streamer.demux.REASONS`.
    """
    if is_still(chunk.content_type):
        return _decode_image(chunk, options)
    deadline = Deadline.of(chunk, options.limits)
    with open_chunk(chunk, options.limits) as container:
        packets = demux(chunk, container, options.limits, deadline)
        return _decode_packets(chunk, packets, options, deadline)


def _decode_image(chunk: MediaChunk, options: DecodeOptions) -> Decoded:
    pixels = np.empty((1, options.size, options.size, 3), np.uint8)
    Scaler(options.masks).into(decode_image(chunk, options.limits), pixels[0])
    end_us = chunk.capture_us + max(1, _declared_us(chunk, options.limits))
    return Decoded(
        chunk=chunk,
        start_us=chunk.capture_us,
        end_us=end_us,
        picture_end_us=end_us,
        pixels=_fixed(pixels),
        times_us=_fixed(np.array([chunk.capture_us], np.int64)),
        thumbs=_fixed(_thumbs(pixels)),
        samples=_fixed(np.empty(0, np.float32)),
        samples_start_us=chunk.capture_us,
        effort=Effort.MOTION,
        source_frames=1,
        has_picture=True,
        has_sound=False,
    )


def _decode_packets(chunk: MediaChunk, packets: Demuxed, options: DecodeOptions, deadline: Deadline) -> Decoded:
    began_us = origin_us(packets)
    shift_us = chunk.capture_us - began_us
    picture_end_us = _picture_end_us(packets) + shift_us
    _check_duration(chunk, packets, picture_end_us, shift_us, options.limits)
    samples, samples_start_us = np.empty(0, np.float32), began_us
    if packets.sound is not None:
        samples, samples_start_us = decode_sound(chunk, packets.sound, packets.sound_packets, options.limits, deadline)
    effort, pixels, times_us = _pictures(chunk, packets, options, shift_us, deadline)
    if not times_us.size and not samples.size:
        refuse(chunk, "nothing in it decodes; a chunk must begin at a keyframe", "undecodable")
    declared_end_us = chunk.capture_us + _declared_us(chunk, options.limits)
    sound_end_us = samples_start_us + shift_us + len(samples) * 1_000_000 // SAMPLE_RATE_HZ
    picture_end_us = max(picture_end_us, declared_end_us) if packets.picture_packets else chunk.capture_us
    return Decoded(
        chunk=chunk,
        start_us=chunk.capture_us,
        end_us=max(picture_end_us, sound_end_us, declared_end_us, chunk.capture_us + 1),
        picture_end_us=picture_end_us,
        pixels=_fixed(pixels),
        times_us=_fixed(times_us),
        thumbs=_fixed(_thumbs(pixels)),
        samples=_fixed(samples),
        samples_start_us=samples_start_us + shift_us,
        effort=effort,
        source_frames=len(packets.picture_packets),
        has_picture=bool(packets.picture_packets),
        has_sound=bool(packets.sound_packets),
    )


def _pictures(
    chunk: MediaChunk, packets: Demuxed, options: DecodeOptions, shift_us: int, deadline: Deadline
) -> tuple[Effort, NDArray[np.uint8], NDArray[np.int64]]:
    """The frames that are wanted: effort, uint8 ``(N, size, size, 3)``, int64 ``(N,)``."""
    size = options.size
    none = np.empty((0, size, size, 3), np.uint8), np.empty(0, np.int64)
    if packets.picture is None or not packets.picture_packets:
        return Effort.NONE, *none
    # What comes before the first keyframe has lost what it refers to.
    keys = [place for place, packet in enumerate(packets.picture_packets) if packet.is_keyframe]
    if not keys:
        return Effort.NONE, *none
    usable = packets.picture_packets[keys[0] :]
    times_us = [at_us + shift_us for at_us in packets.picture_times_us[keys[0] :]]
    step_us = interval_us(times_us)
    effort = choose_effort(usable, 1_000_000 / (step_us or 1_000_000), options.effort, options.activity_threshold)
    only_keys = effort is Effort.KEYFRAMES and (
        options.effort == "keyframes" or keyframes_suffice(usable, times_us, options.quiet_rate_hz)
    )
    wanted = _wanted(usable, times_us, step_us, options, effort, only_keys=only_keys)
    pixels = np.empty((len(wanted), size, size, 3), np.uint8)
    times: list[int] = []
    scaler = Scaler(options.masks)
    frames = decode_wanted(chunk, packets.picture, usable, wanted, options.limits, deadline, only_keys=only_keys)
    for frame in frames:
        scaler.into(frame, pixels[len(times)])
        times.append(wanted[frame.pts or 0])
    pixels = pixels[: len(times)]
    if times != sorted(times):
        order = np.argsort(times, kind="stable")
        pixels, times = pixels[order], sorted(times)
    return effort, pixels, np.array(times, np.int64)


def _wanted(
    usable: Sequence[PicturePacket],
    times_us: Sequence[int],
    step_us: int,
    options: DecodeOptions,
    effort: Effort,
    *,
    only_keys: bool,
) -> dict[int, int]:
    """Time stamps of the frames on the grid, with their capture times."""
    by_time = {
        at_us: packet.pts
        for at_us, packet in zip(times_us, usable, strict=True)
        if packet.pts is not None and (packet.is_keyframe or not only_keys)
    }
    ascending = sorted(by_time)
    rate_hz = options.motion_rate_hz if effort is Effort.MOTION else options.quiet_rate_hz
    if only_keys:
        step_us = interval_us(ascending) or round(1_000_000 / rate_hz)
    chosen = on_grid(ascending, rate_hz, step_us)
    if not chosen and effort is Effort.KEYFRAMES:
        chosen = ascending[:1]
    return {by_time[at_us]: at_us for at_us in chosen}


def origin_us(packets: Demuxed) -> int:
    """The container's time of the first sample of either modality, microseconds."""
    times = [
        at_us
        for at_us, packet in zip(packets.picture_times_us, packets.picture_packets, strict=True)
        if not packet.is_discard
    ]
    if packets.sound_packets and packets.sound is not None:
        first = packets.sound_packets[0]
        skipped = 0  # samples that only fill the decoder
        if first.has_sidedata("skip_samples"):
            skipped = int.from_bytes(bytes(first.get_sidedata("skip_samples"))[:4], "little")
        rate = packets.sound.codec_context.sample_rate or SAMPLE_RATE_HZ
        times.append(time_us(first.pts, packets.sound) + skipped * 1_000_000 // rate)
    return min(times, default=0)


def _picture_end_us(packets: Demuxed) -> int:
    """The container's time at which the last picture ends, microseconds."""
    times_us = packets.picture_times_us
    return max(times_us) + max(1, interval_us(times_us)) if times_us else origin_us(packets)


def _check_duration(chunk: MediaChunk, packets: Demuxed, picture_end_us: int, shift_us: int, limits: Limits) -> None:
    ends_us = [picture_end_us]
    if packets.sound is not None and packets.sound_packets:
        latest = max(packet.pts or 0 for packet in packets.sound_packets)
        ends_us.append(time_us(latest, packets.sound) + shift_us)
    longest_us = max(ends_us) - chunk.capture_us
    if longest_us > limits.max_duration_s * 1_000_000:
        text = f"{longest_us / 1e6:.1f} s long, at most {limits.max_duration_s:g} s (decode.max_duration_s)"
        refuse(chunk, text, "duration")


def _declared_us(chunk: MediaChunk, limits: Limits) -> int:
    return min(chunk.duration_us or 0, round(limits.max_duration_s * 1_000_000))


def _fixed(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def _thumbs(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of frames: uint8 ``(N, THUMB_SIDE, THUMB_SIDE)``."""
    thumbs = np.empty((len(pixels), THUMB_SIDE, THUMB_SIDE), np.uint8)
    for frame, thumb in zip(pixels, thumbs, strict=True):
        small = cv2.resize(frame, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA)
        cv2.cvtColor(small, cv2.COLOR_RGB2GRAY, dst=thumb)
    return thumbs
