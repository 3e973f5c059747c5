"""The text side of a family. Float32 whatever the pictures run in: prompts are embedded once per version."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.errors import ModelError
from models.families.checkpoint import Checkpoint, load_part

BATCH_TEXTS = 64
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


class Features(Protocol):
    """Token ids to embeddings."""

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """``(K, L)`` to float32 ``(K, D)``."""
        ...


class FamilyText:
    """A `TextEncoder` over a family's own tokenizer and text tower.

    Args:
        checkpoint: Names it.
        tokenizer: Of transformers.
        features: Token ids to embeddings.
        dim: Length of an embedding.
        device: Where the tower lies.
        max_tokens: Longer texts are cut.
        is_fixed_length: Pad every text to ``max_tokens``, as the tower was trained, instead of to the longest.
        is_lowered: Lower the case first, as the tower was trained.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Any,  # transformers has no types
        features: Features,
        *,
        dim: int,
        device: torch.device,
        max_tokens: int,
        is_fixed_length: bool = False,
        is_lowered: bool = False,
    ) -> None:
        self.name = checkpoint.name
        self.sha256 = checkpoint.sha256
        self.dim = dim
        self._tokenizer = tokenizer
        self._features = features
        self._device = device
        self._max_tokens = max_tokens
        self._padding = "max_length" if is_fixed_length else "longest"
        self._is_lowered = is_lowered

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode ``K`` texts to float32 ``(K, D)``, unit length. Texts of like length share a batch."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(by_length), BATCH_TEXTS):
            rows = by_length[start : start + BATCH_TEXTS]
            vectors[rows] = self._encode([texts[row] for row in rows])
        return vectors

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        made = self._tokenizer(
            [text.lower() for text in texts] if self._is_lowered else texts,
            padding=self._padding,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        tokens = {key: made[key].to(self._device) for key in ("input_ids", "attention_mask") if key in made}
        vectors: NDArray[np.float32] = functional.normalize(self._features(**tokens), dim=-1).cpu().numpy()
        return vectors


def load_tokenizer(checkpoint: Checkpoint, vocabulary: int) -> Any:
    """Read a checkpoint's tokenizer.

    Args:
        checkpoint: Where from.
        vocabulary: Words that the text tower knows.

    Raises:
        ModelError: There is none, it is unreadable, or it belongs to another network.
    """
    from transformers import AutoTokenizer  # models import with torch and numpy alone

    # transformers makes an empty tokenizer where it finds no vocabulary, and every text the same.
    if not any((checkpoint.folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"{checkpoint.name} has no vocabulary ({', '.join(VOCABULARIES)}); "
            "the folder needs the tokenizer files beside the weights"
        )
    tokenizer = load_part(checkpoint, AutoTokenizer)
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"{checkpoint.name}: its tokenizer has {len(tokenizer)} words, its network {vocabulary}; "
            "they do not belong together, fetch both again"
        )
    return tokenizer


def longest_text(tokenizer: Any, positions: int) -> int:  # transformers has no types
    """Tokens of the longest text: the tokenizer's limit, where it states one, and the tower's."""
    return min(int(tokenizer.model_max_length), positions)
