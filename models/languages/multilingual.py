"""The text encoder that takes prompts of many languages."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.encoders import TextEncoder
from models.languages.reading import read_prompt
from models.languages.sentences import load_foreign


class MultilingualText:
    """A `TextEncoder` that takes every language it can to one that takes English. English texts come out bit for bit.

    Args:
        text: MiniLM, whose name and digest it bears: weights that were trained on English prompts fit.
    """

    def __init__(self, text: TextEncoder) -> None:
        self.name, self.sha256, self.dim = text.name, text.sha256, text.dim
        self._text = text

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode ``K`` texts to float32 ``(K, D)``, unit length.

        Raises:
            ModelError: A text needs the multilingual encoder, and it is not installed or altered.
        """
        readings = [read_prompt(text) for text in texts]
        vectors = self._text.encode([reading.english for reading in readings])
        foreign = [row for row, reading in enumerate(readings) if reading.way == "sentence"]
        if foreign:
            vectors[foreign] = load_foreign().encode([texts[row] for row in foreign])
        return vectors


def doubt_about(text: str, encoder: TextEncoder) -> str | None:
    """What a prompt's author should know of how an encoder reads it; None: nothing, or nobody knows."""
    return read_prompt(text).warning if isinstance(encoder, MultilingualText) else None
