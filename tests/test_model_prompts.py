from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from models.prompts import PromptText, embed_texts


@dataclass
class LetterText:
    """A text encoder whose vectors can be worked out by hand: one axis for each first letter."""

    name: str = "letters"
    sha256: str = "0" * 64
    dim: int = 26
    asked: list[str] = field(default_factory=list)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        vectors = np.zeros((len(texts), 26), np.float32)
        for row, text in enumerate(texts):
            vectors[row, ord(text[0]) - ord("a")] = 1
        return vectors


def test_phrasings_are_averaged_to_unit_length() -> None:
    queries = embed_texts([PromptText("ab", phrasings=("b",)), PromptText("c")], LetterText())
    half = 0.5**0.5
    assert torch.allclose(queries.vectors[0, :3], torch.tensor([half, half, 0]))
    assert torch.allclose(queries.vectors[1, :3], torch.tensor([0, 0, 1.0]))


def test_contrasts_know_their_prompt() -> None:
    prompts = [PromptText("a", contrast=("x", "y")), PromptText("b"), PromptText("c", contrast=("x",))]
    queries = embed_texts(prompts, LetterText())
    assert queries.contrast_of.tolist() == [0, 0, 2]
    assert queries.contrast.argmax(1).tolist() == [23, 24, 23]


def test_a_text_that_prompts_share_is_embedded_once() -> None:
    encoder = LetterText()
    embed_texts([PromptText("a", contrast=("x",)), PromptText("a", contrast=("x",))], encoder)
    assert encoder.asked == ["a", "x"]


def test_no_prompts_are_no_queries() -> None:
    queries = embed_texts([], LetterText())
    assert len(queries) == 0
    assert queries.vectors.shape == (0, 26)


def test_some_of_the_prompts_keep_their_contrasts() -> None:
    prompts = [PromptText("a", contrast=("x",)), PromptText("b"), PromptText("c", contrast=("y", "z"))]
    some = embed_texts(prompts, LetterText()).of(torch.tensor([1, 2]))
    assert some.vectors.argmax(1).tolist() == [1, 2]
    assert some.contrast_of.tolist() == [1, 1]
    assert some.contrast.argmax(1).tolist() == [24, 25]
