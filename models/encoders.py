"""What every encoder is to its callers: pixels or samples in, unit-length tokens in a text encoder's space out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PictureTokens:
    """A batch of pictures, as a grid of tokens each.

    Attributes:
        cells: float32 ``(N, S, D)``, row by row over the grid, unit length along ``D``, on the encoder's device.
        whole: float32 ``(N, D)``, the whole picture, unit length.
        features: float32 ``(N, F)``, what the whole is made from, if it says more than the whole.
        classes: float32 ``(N, S + 1, K)``, whole numbers: of encoders whose tokens are mixtures of few known vectors,
            which ones, of the cells and then of the whole.
        shares: float32 ``(N, S + 1, K)``, how much of each.
    """

    cells: torch.Tensor
    whole: torch.Tensor
    features: torch.Tensor | None = None
    classes: torch.Tensor | None = None
    shares: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SoundTokens:
    """A batch of sounds, as a row of tokens each.

    Attributes:
        tokens: float32 ``(N, U, D)``, in order of time, unit length along ``D``, on the encoder's device.
        whole: float32 ``(N, D)``, the whole sound, unit length.
    """

    tokens: torch.Tensor
    whole: torch.Tensor


class PictureEncoder(Protocol):
    """Pictures to tokens.

    Attributes:
        name: What events call it.
        sha256: Of its weights, lower-case hex.
        size: Side in pixels. Pictures are stretched to ``(size, size)``: cells cover the whole picture.
        grid: Rows and columns of cells.
        dim: Length of a token.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def grid(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102

    def encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
        """Encode uint8 ``(N, size, size, 3)`` RGB, ``N >= 1``."""
        ...


class SoundEncoder(Protocol):
    """Sound to tokens.

    Attributes:
        name: What events call it.
        sha256: Of its weights, lower-case hex.
        token_s: Seconds that one token spans.
        dim: Length of a token.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def token_s(self) -> float: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102

    def encode(self, samples: NDArray[np.float32]) -> SoundTokens:
        """Encode float32 ``(N, M)``, 16 kHz mono, -1..1, equal lengths in a batch."""
        ...


class TextEncoder(Protocol):
    """Texts to unit vectors in the space of the tokens that they are compared with."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode ``K`` texts to float32 ``(K, D)``, unit length."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Encoders:
    """The four encoders of a worker. A picture and its text share a space, and so do a sound and its text."""

    picture: PictureEncoder
    picture_text: TextEncoder
    sound: SoundEncoder
    sound_text: TextEncoder
