"""Prompt texts to queries: each embedded once per version, phrasings averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.encoders import Encoders, TextEncoder
from models.queries import Queries

if TYPE_CHECKING:
    from models.prototypes import Looks

Modality = Literal["video", "audio", "any", "both"]


@dataclass(frozen=True, slots=True)
class PromptText:
    """What the models need of a prompt.

    Attributes:
        text: What to look or listen for.
        phrasings: Other ways to say it; the query is the mean of all.
        contrast: What it is not to be mistaken for.
        modality: Which senses may answer.
    """

    text: str
    phrasings: tuple[str, ...] = ()
    contrast: tuple[str, ...] = ()
    modality: Modality = "any"


def with_queries(queries: Queries, drawn: Mapping[int, bytes]) -> Queries:
    """Replace some prompts' queries.

    Args:
        queries: ``P`` prompts.
        drawn: Row to a query as signed bytes, of any length but 0; one of another dimension is left out.
    """
    vectors = queries.vectors.clone()
    for row, packed in drawn.items():
        query = torch.from_numpy(np.frombuffer(packed, np.int8).astype(np.float32)).to(vectors.device)
        if len(query) == vectors.shape[1] and query.any():
            vectors[row] = query / query.norm()
    return Queries(vectors, queries.contrast, queries.contrast_of)


@dataclass(frozen=True, slots=True, eq=False)
class PromptEmbeddings:
    """``P`` prompts as queries of both senses.

    Attributes:
        picture: Against `PictureTokens`, all ``P`` of them.
        sound: Against `SoundTokens`, all ``P`` of them.
        modality: ``(P,)`` of `Modality`, for `fuse`.
        looks: Of those with examples, what frames are compared with besides; None: there is none.
    """

    picture: Queries
    sound: Queries
    modality: NDArray[np.str_]
    looks: "Looks | None" = None


def embed_prompts(
    prompts: Sequence[PromptText], encoders: Encoders, device: torch.device | str = "cpu"
) -> PromptEmbeddings:
    """Embed prompts for both senses. A text that several prompts share is embedded once."""
    picture = embed_texts(prompts, encoders.picture_text)
    shares_text = encoders.sound_text is encoders.picture_text
    sound = picture if shares_text else embed_texts(prompts, encoders.sound_text)
    modality = np.array([prompt.modality for prompt in prompts], dtype="U5")
    return PromptEmbeddings(picture.to(device), sound.to(device), modality)


def embed_texts(prompts: Sequence[PromptText], encoder: TextEncoder) -> Queries:
    """Embed prompts with one encoder.

    No template ("a photo of ...") is put around a text: sentence encoders are trained on plain text, and templates
    measured worse here (models/weights/README.md).
    """
    texts = [text for prompt in prompts for text in (prompt.text, *prompt.phrasings, *prompt.contrast)]
    different = list(dict.fromkeys(texts))
    place = {text: row for row, text in enumerate(different)}
    known = encoder.encode(different) if different else np.zeros((0, encoder.dim), np.float32)
    vectors = np.zeros((len(prompts), encoder.dim), np.float32)
    for row, prompt in enumerate(prompts):
        mean = known[[place[text] for text in (prompt.text, *prompt.phrasings)]].mean(0)
        vectors[row] = mean / np.linalg.norm(mean)
    contrast = [place[text] for prompt in prompts for text in prompt.contrast]
    owner = [row for row, prompt in enumerate(prompts) for _ in prompt.contrast]
    return Queries(
        vectors=torch.from_numpy(vectors),
        contrast=torch.from_numpy(known[contrast] if contrast else known[:0].copy()),
        contrast_of=torch.tensor(owner, dtype=torch.int64),
    )
