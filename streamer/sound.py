"""Packets into mono samples at 16 kHz, placed by their time stamps."""

from collections.abc import Sequence
from typing import Any, Final

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from streamer.demux import Deadline, Limits, SoundPacket, refuse, time_us
from streamer.types import SAMPLE_RATE_HZ, MediaChunk

_RATES_HZ: Final = (4_000, 384_000)
_JITTER_S: Final = 0.02  # time stamps that are off by less continue where the last packet ended
_MAX_VALUES_PER_S: Final = 8 * 48_000  # samples times channels that a second may take in memory
_FULL_SCALE: Final = {"u1": 128.0, "i2": 32_768.0, "i4": 2_147_483_648.0, "f4": 1.0, "f8": 1.0}


def decode_sound(
    chunk: MediaChunk,
    stream: AudioStream,
    packets: Sequence[SoundPacket],
    limits: Limits,
    deadline: Deadline,
) -> tuple[NDArray[np.float32], int]:
    """Decode the packets of one stream.

    Returns:
        float32 ``(M,)``, mono, 16 kHz, -1..1, with silence where packets are missing, and the container's time of its
        first sample, microseconds. Both empty and 0 if nothing decodes.

    Raises:
        ChunkError: It is longer than it may be, changes its form, or takes too long.
    """
    frames = _frames(chunk, stream, packets, limits, deadline)
    if not frames:
        return np.empty(0, np.float32), 0
    first = frames[0]
    start_us = time_us(first.pts, first)
    mono = _joined(chunk, frames, limits)
    np.clip(mono, -1.0, 1.0, out=mono)
    return _at_16_khz(mono, first.sample_rate), start_us


def _frames(
    chunk: MediaChunk,
    stream: AudioStream,
    packets: Sequence[SoundPacket],
    limits: Limits,
    deadline: Deadline,
) -> list[AudioFrame]:
    context: Any = stream.codec_context
    context.thread_count = 1
    frames: list[AudioFrame] = []
    values = 0
    form = None
    for packet in (*packets, None):
        deadline.check()
        try:
            decoded = [frame for frame in context.decode(packet) if frame.pts is not None and frame.samples]
        except (av.FFmpegError, ValueError, MemoryError):
            continue  # a damaged packet; the next ones may still be good
        for frame in decoded:
            if form is None:
                form = _form(frame)
                _check_rate(chunk, frame.sample_rate)
            elif _form(frame) != form:
                refuse(chunk, "its sound changes rate or channels midway; cut the chunk there", "malformed")
            values += frame.samples * len(frame.layout.channels)
        frames += decoded
        if values > limits.max_duration_s * _MAX_VALUES_PER_S:
            refuse(chunk, f"more sound than {limits.max_duration_s:g} s may hold (decode.max_duration_s)", "duration")
    return frames


def _form(frame: AudioFrame) -> tuple[str, int, str]:
    return frame.format.name, frame.sample_rate, frame.layout.name


def _check_rate(chunk: MediaChunk, rate_hz: int) -> None:
    low, high = _RATES_HZ
    if not low <= rate_hz <= high:
        refuse(chunk, f"sound at {rate_hz} Hz; {low} to {high} Hz are decoded", "malformed")


def _joined(chunk: MediaChunk, frames: Sequence[AudioFrame], limits: Limits) -> NDArray[np.float32]:
    """Put frames at the place that their time stamps say: float32 ``(M,)`` at their own rate."""
    rate = frames[0].sample_rate
    zero_us = time_us(frames[0].pts, frames[0])
    places = [round((time_us(frame.pts, frame) - zero_us) * rate / 1_000_000) for frame in frames]
    if max(place + frame.samples for place, frame in zip(places, frames, strict=True)) > limits.max_duration_s * rate:
        refuse(chunk, f"sound longer than {limits.max_duration_s:g} s (decode.max_duration_s)", "duration")
    runs = _runs(frames, places, round(_JITTER_S * rate))
    pieces = [(place, _mono(_channels(whole))) for place, fifo in runs if (whole := fifo.read()) is not None]
    if len(pieces) == 1:
        return pieces[0][1]
    joined = np.zeros(max((place + len(piece) for place, piece in pieces), default=0), np.float32)
    for place, piece in pieces:
        joined[place : place + len(piece)] = piece
    return joined


def _runs(frames: Sequence[AudioFrame], places: Sequence[int], jitter: int) -> list[tuple[int, AudioFifo]]:
    """Frames that follow each other without a hole: one array a run, instead of one a packet."""
    runs: list[tuple[int, AudioFifo]] = []
    cursor = 0
    for place, frame in zip(places, frames, strict=True):
        if runs and place < cursor - jitter:
            continue  # a repeat
        if not runs or place > cursor + jitter:
            runs.append((place, AudioFifo()))
            cursor = place
        frame.pts = None
        runs[-1][1].write(frame)
        cursor += frame.samples
    return runs


def _channels(frame: AudioFrame) -> NDArray[Any]:
    """Samples as decoded, ``(C, M)``."""
    values: NDArray[Any] = frame.to_ndarray()
    return values if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels)).T


def _mono(values: NDArray[Any]) -> NDArray[np.float32]:
    """The mean of the channels, -1..1: float32 ``(M,)``."""
    mean: NDArray[np.float32] = values.mean(axis=0, dtype=np.float32)
    if values.dtype == np.uint8:
        mean -= 128.0
    scale = _FULL_SCALE[values.dtype.str[1:]]
    if scale != 1.0:
        mean /= scale
    return mean


def _at_16_khz(mono: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    if rate_hz == SAMPLE_RATE_HZ:
        return mono
    # One call for all of the chunk: a call per packet costs three times as much.
    whole = AudioFrame.from_ndarray(mono.reshape(1, -1), "flt", "mono")
    whole.sample_rate = rate_hz
    resampler = AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
    parts = [part.to_ndarray()[0] for frame in (whole, None) for part in resampler.resample(frame)]
    return np.concatenate(parts).astype(np.float32, copy=False) if parts else np.empty(0, np.float32)
