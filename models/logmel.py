"""Samples to log-mel frames: what the sound network hears.

The numbers are YAMNet's front end (github.com/tensorflow/models, research/audioset/yamnet/params.py), after Hershey et
al., "CNN Architectures for Large-Scale Audio Classification", 2017, so that its outputs can be learnt from. The
spectrum is two matrix products instead of an FFT: at this size they cost less than they look, and one graph runs
alike in torch and OpenVINO.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms
FFT_SAMPLES = 512
MEL_BANDS = 64
MEL_LOW_HZ = 125.0
MEL_HIGH_HZ = 7500.0
LOG_OFFSET = 0.001  # silence becomes log(0.001) = -6.9 instead of minus infinity


def hertz_to_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """HTK's mel scale, 1127 ln(1 + f / 700)."""
    mel: NDArray[np.float64] = 1127.0 * np.log1p(hertz / 700.0)
    return mel


def mel_weights() -> NDArray[np.float32]:
    """Triangles on the mel scale over the FFT's bins, float32 ``(257, 64)``; the 0 Hz bin weighs nothing."""
    bins = FFT_SAMPLES // 2 + 1
    spectrum = hertz_to_mel(np.linspace(0.0, SAMPLE_RATE_HZ / 2, bins))[:, None]
    low, high = hertz_to_mel(np.array([MEL_LOW_HZ, MEL_HIGH_HZ]))
    edges = np.linspace(low, high, MEL_BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((spectrum - lower) / (centre - lower), (upper - spectrum) / (upper - centre)))
    weights[0] = 0.0
    rounded: NDArray[np.float32] = weights.astype(np.float32)
    return rounded


def fourier_weights() -> NDArray[np.float32]:
    """Periodic Hann window times cosines and sines, float32 ``(2, 257, 400)``: the FFT of a zero-padded frame."""
    time = np.arange(WINDOW_SAMPLES)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / WINDOW_SAMPLES)
    angle = 2 * np.pi * np.arange(FFT_SAMPLES // 2 + 1)[:, None] * time / FFT_SAMPLES
    return np.stack((np.cos(angle) * hann, np.sin(angle) * hann)).astype(np.float32)


class LogMel(nn.Module):
    """Samples to log-mel frames."""

    fourier: torch.Tensor
    mel: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = fourier_weights()
        used = int(np.flatnonzero(mel_weights().any(axis=1)).max()) + 1  # nothing above 7500 Hz is ever looked at
        stacked = weights[:, :used].reshape(2 * used, WINDOW_SAMPLES)
        # Not part of the weights file: they are constants.
        self.register_buffer("fourier", torch.from_numpy(stacked)[:, None], persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel_weights()[:used]), persistent=False)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Turn float32 ``(N, M)``, 16 kHz, -1..1, into ``(N, frames, 64)``; ``frames = 1 + (M - 400) // 160``."""
        waves = functional.conv1d(samples[:, None], self.fourier, stride=HOP_SAMPLES)
        cosines, sines = waves.chunk(2, dim=1)
        magnitude = (cosines.square() + sines.square()).sqrt().transpose(1, 2)
        return (magnitude @ self.mel + LOG_OFFSET).log()
