"""Sound from one sampling rate to another, on the device."""

from math import gcd

import torch
from torch.nn import functional

HALF_WIDTH = 32  # samples of the slower rate on each side of the centre
KAISER_BETA = 10.0  # stop band near -100 dB (Kaiser 1974)
ROLL_OFF = 0.95  # half amplitude at this part of the slower rate's Nyquist frequency


class Resampler:
    """Band-limited interpolation with a windowed sinc, one phase of the kernel per output sample of a period.

    Nothing is invented above the slower rate's Nyquist frequency: sound raised from 16 to 48 kHz stays empty over
    8 kHz. See Smith, "Digital Audio Resampling", ccrma.stanford.edu/~jos/resample.
    """

    def __init__(self, source_hz: int, target_hz: int, device: torch.device) -> None:
        """Make the kernel for a pair of rates."""
        common = gcd(source_hz, target_hz)
        self._up, self._down = target_hz // common, source_hz // common
        slower = min(1.0, target_hz / source_hz)
        self._width = round(HALF_WIDTH / slower)
        offsets = torch.arange(-self._width, self._width + self._down, dtype=torch.float64)
        phases = torch.arange(self._up, dtype=torch.float64) * self._down / self._up
        time = offsets - phases[:, None]
        beta = torch.tensor(KAISER_BETA, dtype=torch.float64)
        window = torch.special.i0(beta * (1 - (time / self._width).square()).clamp(min=0).sqrt()) / torch.special.i0(
            beta
        )
        window = window * (time.abs() <= self._width)
        cutoff = slower * ROLL_OFF
        self._kernel = (cutoff * torch.sinc(cutoff * time) * window).unsqueeze(1).to(device)

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """Resample ``(N, M)`` to float64 ``(N, ceil(M * target / source))``; silence is assumed around it.

        In double precision, because a logarithm follows: rounding noise is loud in a band that should be empty.
        """
        if self._up == self._down:
            return samples.double()
        count = -(-samples.shape[1] * self._up // self._down)
        padded = functional.pad(samples.double().unsqueeze(1), (self._width, self._width + self._down))
        made = functional.conv1d(padded, self._kernel, stride=self._down)  # (N, up, steps)
        return made.transpose(1, 2).flatten(1)[:, :count]
