"""Whole files to pixels and samples, simply: the streaming path has its own, guarded decoder."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluate.manifest import EvaluationError
from models.logmel import FFT_SAMPLES, HOP_SAMPLES, LOG_OFFSET, WINDOW_SAMPLES, mel_weights

SAMPLE_RATE_HZ = 16_000


def stretch(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Scale RGB ``(H, W, 3)`` to ``(side_px, side_px, 3)``, averaging where it shrinks."""
    import cv2

    shrinks = max(pixels.shape[:2]) > side_px
    resized: NDArray[np.uint8] = cv2.resize(
        pixels, (side_px, side_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return resized


def read_picture(path: Path, side_px: int) -> NDArray[np.uint8]:
    """A photo as uint8 ``(1, side_px, side_px, 3)``.

    Raises:
        EvaluationError: It is not a picture.
    """
    import cv2

    decoded: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if decoded is None:
        raise EvaluationError(f"{path} is missing or not a picture")
    return stretch(np.ascontiguousarray(decoded[:, :, ::-1]), side_px)[None]


def read_frames(path: Path, side_px: int, rate_hz: float) -> NDArray[np.uint8]:
    """A video's frames at most ``rate_hz`` a second, uint8 ``(N, side_px, side_px, 3)``.

    Raises:
        EvaluationError: It is not a video.
    """
    import av

    frames, due_s = [], float("-inf")
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(container.streams.video[0]):
                at_s = frame.time or 0.0
                if at_s + 1e-3 >= due_s:
                    frames.append(stretch(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False), side_px))
                    due_s = at_s + 1 / rate_hz
    except (av.FFmpegError, IndexError) as error:
        raise EvaluationError(f"{path} cannot be decoded as video: {error}") from error
    if not frames:
        raise EvaluationError(f"{path} holds no frame")
    return np.stack(frames)


def read_sound(path: Path) -> NDArray[np.float32]:
    """A file's sound as float32 ``(M,)``, mono, 16 kHz.

    Raises:
        EvaluationError: It holds no sound.
    """
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    parts = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(container.streams.audio[0]):
                parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
            parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    except (av.FFmpegError, IndexError) as error:
        raise EvaluationError(f"{path} cannot be decoded as sound: {error}") from error
    if not parts:
        raise EvaluationError(f"{path} holds no sound")
    return np.concatenate(parts).astype(np.float32)


def spectrogram(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the sound network hears of ``(M,)``, mono, 16 kHz: log-mel, float32 ``(frames, bands)``, 100 frames a s."""
    padded = np.pad(samples, (0, max(0, WINDOW_SAMPLES - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    magnitude = np.abs(np.fft.rfft(frames * np.hanning(WINDOW_SAMPLES + 1)[:-1], FFT_SAMPLES))
    bands: NDArray[np.float32] = np.log(magnitude @ mel_weights() + LOG_OFFSET).astype(np.float32)
    return bands
