"""Recordings as the heads hear them: every view of every recording encoded, and kept so that a run can go on."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.encoders import SoundEncoder
from models.train.heard_sounds import Recording, background_of, stretches, view
from models.train.heard_texts import KINDS

AT_ONCE = 200  # recordings that are encoded before they are kept: what a run that is cut off loses
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """``B`` heard views of recordings: bags of stretches, one label a bag.

    Attributes:
        tokens: float32 ``(W, U, D)``, all stretches.
        owner: int64 ``(W,)``, the bag of each, ascending.
        labels: float32 ``(B, K)``.
        groups: ``(B,)``.
        is_clip: bool ``(B,)``: of the manifest.
        is_plain: bool ``(B,)``: as it was recorded.
        is_scene: bool ``(B,)``: what a camera hears all day.
        seconds: float32 ``(B,)``.
    """

    tokens: torch.Tensor
    owner: torch.Tensor
    labels: torch.Tensor
    groups: NDArray[np.str_]
    is_clip: NDArray[np.bool_]
    is_plain: NDArray[np.bool_]
    is_scene: NDArray[np.bool_]
    seconds: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, chosen: NDArray[np.bool_]) -> "Bags":
        """Some of the bags."""
        keep = torch.from_numpy(chosen)
        place = torch.cumsum(keep, 0) - 1
        rows = keep[self.owner]
        return Bags(
            self.tokens[rows],
            place[self.owner[rows]],
            self.labels[keep],
            self.groups[chosen],
            self.is_clip[chosen],
            self.is_plain[chosen],
            self.is_scene[chosen],
            self.seconds[chosen],
        )


def hear(
    found: Sequence[Recording],
    counts: Sequence[int],
    encoder: SoundEncoder,
    seed: int,
    cache: Path,
    progress: Progress = lambda *_: None,
) -> Bags:
    """Encode every view of every recording, or take them from the cache.

    Args:
        found: The recordings.
        counts: In how many ways each is heard.
        encoder: Hears them.
        seed: Of the views.
        cache: Folder where what was encoded is kept, some recordings a file.
        progress: Told about each file.
    """
    cache.mkdir(parents=True, exist_ok=True)
    backgrounds = background_of(found)
    key = hashlib.sha256(f"2 {encoder.sha256} {seed}".encode())
    for recording, count in zip(found, counts, strict=True):  # any of them may lie under any other
        key.update(f"{recording.name} {len(recording.samples)} {count}".encode())
    tokens, sizes = [], []
    for first in range(0, len(found), AT_ONCE):
        kept = cache / f"heard-{key.hexdigest()[:16]}-{first:05d}.npz"
        part = slice(first, first + AT_ONCE)
        progress(found[first].name, first, len(found))
        if not kept.exists():
            made = _encode(found[part], counts[part], encoder, backgrounds, seed)
            draft = kept.with_suffix(".draft.npz")
            np.savez(draft, tokens=made[0], sizes=made[1])
            draft.replace(kept)
        with np.load(kept) as file:
            tokens.append(file["tokens"])
            sizes.append(file["sizes"])
    repeated = [recording for recording, count in zip(found, counts, strict=True) for _ in range(count)]
    lengths = np.concatenate(sizes)
    return Bags(
        torch.from_numpy(np.concatenate(tokens)).float(),
        torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
        torch.tensor([[float(kind in r.labels) for kind in KINDS] for r in repeated]),
        np.array([r.group for r in repeated]),
        np.array([r.is_clip for r in repeated]),
        np.array([number == 0 for count in counts for number in range(count)]),
        np.array([r.is_scene for r in repeated]),
        np.array([len(r.samples) / 16_000 for r in repeated], np.float32),
    )


def _encode(
    found: Sequence[Recording],
    counts: Sequence[int],
    encoder: SoundEncoder,
    backgrounds: Sequence[NDArray[np.float32]],
    seed: int,
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    tokens, sizes = [], []
    for recording, count in zip(found, counts, strict=True):
        for number in range(count):
            heard = encoder.encode(stretches(view(recording, number, backgrounds, seed))).tokens
            tokens.append(heard.cpu().numpy().astype(np.float16))
            sizes.append(len(heard))
    return np.concatenate(tokens), np.array(sizes)
