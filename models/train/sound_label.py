"""Let the teacher hear mixtures and write down what it says, for the student to learn from.

The teacher is YAMNet as an int8 LiteRT file that takes one patch of log-mel frames; `ai-edge-litert` runs it. Neither
is part of the product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]  # types-tqdm is not worth a dependency

from models.logmel import MEL_BANDS, LogMel
from models.sound_net import CELL_FRAMES, CLASSES
from models.train.sound_corpus import load
from models.train.sound_mix import CLIP_FRAMES, Mixer

PATCH_FRAMES = 96
EMBEDDING = 1024
CHUNK_CLIPS = 1000
PATCHES = 2  # labelled per clip, of the four that the student's tokens stand for
LOGIT_TENSOR, EMBEDDING_TENSOR = 91, 90  # indices within the teacher's graph
LOGIT_SCALE, LOGIT_ZERO = 0.3081279695034027, 100
EMBEDDING_SCALE, EMBEDDING_ZERO = 0.023313090205192566, -128


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Labelled clips.

    Attributes:
        frames: float16 ``(K, 192, 64)``, log-mel.
        tokens: uint8 ``(K, 2)``, which of the student's tokens each label belongs to.
        logits: int8 ``(K, 2, 521)``, the teacher's, `LOGIT_SCALE` a step.
        embeddings: int8 ``(K, 2, 1024)``, the teacher's, `EMBEDDING_SCALE` a step.
    """

    frames: NDArray[np.float16]
    tokens: NDArray[np.uint8]
    logits: NDArray[np.int8]
    embeddings: NDArray[np.int8]

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all."""
        part = path.with_suffix(".part.npz")
        np.savez(part, frames=self.frames, tokens=self.tokens, logits=self.logits, embeddings=self.embeddings)
        part.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Chunk":
        """Read what `save` wrote."""
        with np.load(path) as file:
            return cls(file["frames"], file["tokens"], file["logits"], file["embeddings"])


class Teacher:
    """The teacher's raw outputs for one patch at a time."""

    def __init__(self, file: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter  # training only, not a dependency

        self._model: Any = Interpreter(str(file), num_threads=1, experimental_preserve_all_tensors=True)
        self._model.allocate_tensors()

    def __call__(self, patch: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
        """Label float32 ``(96, 64)``: int8 logits ``(521,)`` and embedding ``(1024,)``."""
        self._model.set_tensor(0, patch[None])
        self._model.invoke()
        return self._model.get_tensor(LOGIT_TENSOR)[0], self._model.get_tensor(EMBEDDING_TENSOR).reshape(EMBEDDING)


def teacher_logits(raw: NDArray[np.int8]) -> NDArray[np.float32]:
    """Raw outputs as logits."""
    logits: NDArray[np.float32] = (raw.astype(np.float32) - LOGIT_ZERO) * np.float32(LOGIT_SCALE)
    return logits


def label_chunk(number: int, corpus: Path, teacher_file: Path, out: Path) -> None:
    """Mix and label one chunk; its number is its seed."""
    torch.set_num_threads(1)
    samples, pieces = load(corpus)
    random = np.random.default_rng([2026, number])
    mixer, teacher = Mixer(samples, pieces, random), Teacher(teacher_file)
    front_end = LogMel()
    frames = np.zeros((CHUNK_CLIPS, CLIP_FRAMES, MEL_BANDS), np.float16)
    tokens = np.zeros((CHUNK_CLIPS, PATCHES), np.uint8)
    logits = np.zeros((CHUNK_CLIPS, PATCHES, CLASSES), np.int8)
    embeddings = np.zeros((CHUNK_CLIPS, PATCHES, EMBEDDING), np.int8)
    possible = (CLIP_FRAMES - PATCH_FRAMES) // CELL_FRAMES + 1
    for clip in range(CHUNK_CLIPS):
        with torch.inference_mode():
            heard = front_end(torch.from_numpy(mixer.draw())[None])[0].numpy()
        frames[clip] = heard
        for slot, token in enumerate(sorted(random.choice(possible, PATCHES, replace=False))):
            tokens[clip, slot] = token
            start = int(token) * CELL_FRAMES
            logits[clip, slot], embeddings[clip, slot] = teacher(heard[start : start + PATCH_FRAMES])
    Chunk(frames, tokens, logits, embeddings).save(out / f"mix-{number:04d}.npz")


def _job(job: tuple[int, Path, Path, Path]) -> None:
    label_chunk(*job)


def label(numbers: Sequence[int], corpus: Path, teacher_file: Path, out: Path, processes: int) -> None:
    """Write the chunks that are missing."""
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(n, corpus, teacher_file, out) for n in numbers if not (out / f"mix-{n:04d}.npz").exists()]
    with get_context("spawn").Pool(processes) as pool:
        for _ in tqdm(pool.imap_unordered(_job, jobs), total=len(jobs), desc="label"):
            pass
