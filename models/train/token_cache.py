"""Tokens of labelled files, kept between runs: encoding takes minutes, experiments on tokens take seconds."""

import csv
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.encoders import Encoders
from models.errors import ModelError
from models.evaluate.media import read_frames, read_picture, read_sound
from models.prototypes import pictures_of, sound_of

RATE_HZ = 4.0  # frames a second of video


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled file.

    Attributes:
        path: Relative to the manifest's root.
        kind: ``video``, ``image`` or ``audio``.
        labels: The prompts that hold.
        group: Camera, scene or recording.
        split: ``train``, ``dev``, ...
        is_licensed: What ships may be fitted on it.
    """

    path: str
    kind: str
    labels: frozenset[str]
    group: str
    split: str
    is_licensed: bool


@dataclass(frozen=True, slots=True, eq=False)
class CaseTokens:
    """What the encoders make of a file.

    Attributes:
        tokens: float32 ``(N, S, D)``: a frame's cells each, or a stretch of sound's times.
        whole: float32 ``(N, D)``.
    """

    tokens: torch.Tensor
    whole: torch.Tensor


def read_cases(manifest: Path) -> list[Case]:
    """All rows of a manifest."""
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        return [
            Case(
                row["path"],
                row["kind"],
                frozenset(filter(None, row["labels"].split(";"))),
                row["group"],
                row["split"],
                row["train_ok"] == "yes",
            )
            for row in csv.DictReader(file)
        ]


def licensed(manifest: Path) -> list[Case]:
    """What may train that ships.

    Raises:
        ModelError: Nothing may.
    """
    found = [case for case in read_cases(manifest) if case.split == "train" and case.is_licensed]
    if not found:
        raise ModelError(f"{manifest} has no row with split train and train_ok yes; nothing may be trained on")
    return found


class TokenCache:
    """Tokens by file, encoded when first asked for.

    Args:
        root: Folder of the files.
        folder: Where tokens are kept, half precision; one subfolder for each pair of encoders.
        encoders: Gives the encoders once they are needed.
        rate_hz: Frames a second of video.
    """

    def __init__(self, root: Path, folder: Path, encoders: Encoders, rate_hz: float = RATE_HZ) -> None:
        self._root = root
        self._encoders = encoders
        self._rate_hz = rate_hz
        key = f"{encoders.picture.sha256} {encoders.sound.sha256} {rate_hz}"
        self._folder = folder / hashlib.sha256(key.encode()).hexdigest()[:12]
        self._folder.mkdir(parents=True, exist_ok=True)

    def of(self, path: str, kind: str) -> CaseTokens:
        """Tokens of one file; of a video, those of its pictures."""
        name = hashlib.sha256(f"{kind} {path}".encode()).hexdigest()[:24]
        kept = self._folder / f"{name}.npz"
        if not kept.exists():
            tokens, whole = self._encode(self._root / path, kind)
            draft = kept.with_suffix(f".{os.getpid()}.npz")
            np.savez(draft, tokens=tokens.astype(np.float16), whole=whole.astype(np.float16))
            draft.replace(kept)
        with np.load(kept) as arrays:
            tokens, whole = arrays["tokens"].astype(np.float32), arrays["whole"].astype(np.float32)
        return CaseTokens(torch.from_numpy(tokens), torch.from_numpy(whole))

    def features(self, path: str, kind: str) -> torch.Tensor:
        """What the wholes of a file's frames were made from: float32 ``(N, F)``.

        Raises:
            ModelError: The encoder gives none.
        """
        name = hashlib.sha256(f"{kind} {path}".encode()).hexdigest()[:24]
        kept = self._folder / f"{name}.features.npy"
        if not kept.exists():
            features = pictures_of(self._pixels(self._root / path, kind), self._encoders.picture).features
            if features is None:
                raise ModelError(f"the picture encoder {self._encoders.picture.name} gives no features")
            draft = kept.with_suffix(f".{os.getpid()}.npy")
            np.save(draft, features.numpy().astype(np.float16))
            draft.replace(kept)
        return torch.from_numpy(np.load(kept).astype(np.float32))

    def _pixels(self, path: Path, kind: str) -> NDArray[np.uint8]:
        side_px = self._encoders.picture.size
        return read_picture(path, side_px) if kind == "image" else read_frames(path, side_px, self._rate_hz)

    def all_of(self, cases: Sequence[Case], progress: Callable[[str], None] = lambda _: None) -> list[CaseTokens]:
        """Tokens of each."""
        found = []
        for case in cases:
            progress(case.path)
            found.append(self.of(case.path, case.kind))
        return found

    def _encode(self, path: Path, kind: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if kind == "audio":
            found = sound_of(read_sound(path), self._encoders.sound)
        else:
            found = pictures_of(self._pixels(path, kind), self._encoders.picture)
        return found.tokens.numpy(), found.whole.numpy()
