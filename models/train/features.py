"""What a picture encoder and the optical flow make of labelled files, kept between runs.

A file is filmed by several cameras (`models.train.augment`): number 0 is the file as it is.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.encoders import PictureEncoder
from models.errors import ModelError
from models.evaluate.media import read_picture, stretch
from models.motion import FEWEST_FRAMES, RATE_HZ, see_motion
from models.train.augment import Camera

STRETCH_FRAMES = 8
AT_ONCE = 32
VERSION = 1
_PARTS = {"cells", "whole", "moved"}


@dataclass(frozen=True, slots=True, eq=False)
class Filmed:
    """A file through one camera.

    Attributes:
        cells: float16 ``(T, S, D)``, of each frame.
        whole: float16 ``(T, D)``.
    """

    cells: NDArray[np.float16]
    whole: NDArray[np.float16]


class FeatureCache:
    """Features by file and camera, made when first asked for.

    Args:
        root: Folder that paths are relative to.
        folder: Where features are kept.
        encoder: Of pictures.
        seed: Of the cameras.
    """

    def __init__(self, root: Path, folder: Path, encoder: PictureEncoder, seed: int = 0) -> None:
        self._root = root
        self._encoder = encoder
        self._seed = seed
        digest = hashlib.sha256(f"{VERSION} {encoder.sha256}".encode()).hexdigest()[:12]
        self.folder = folder / digest
        self.folder.mkdir(parents=True, exist_ok=True)

    def seen(self, path: str, kind: str, camera: int = 0) -> Filmed:
        """Tokens of one file's frames through one camera.

        Raises:
            EvaluationError: The file cannot be read.
            ModelError: Likewise.
        """
        arrays = self._kept(f"{camera} {kind} {path}", lambda: self._see(path, kind, camera))
        return Filmed(arrays["cells"], arrays["whole"])

    def moved(self, path: str, camera: int = 0) -> NDArray[np.float32]:
        """Motion tokens of a video's stretches through one camera: float32 ``(N, M)``, ``N`` is 0 in a short one."""
        return self._kept(f"{camera} change {path}", lambda: self._move(path, camera))["moved"]

    def _kept(self, key: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        name = hashlib.sha256(f"{self._seed} {key}".encode()).hexdigest()[:24]
        kept = self.folder / f"{name}.npz"
        if not kept.exists():
            draft = kept.with_suffix(f".{os.getpid()}.npz")
            np.savez(draft, allow_pickle=False, **make())
            draft.replace(kept)
        with np.load(kept) as arrays:
            return {part: arrays[part] for part in arrays.files if part in _PARTS}

    def _frames(self, path: str, kind: str, camera: int) -> NDArray[np.uint8]:
        side_px = self._encoder.size
        file = self._root / path
        frames = read_picture(file, side_px) if kind == "image" else frames_on_grid(file, side_px)
        if camera:
            digest = hashlib.sha256(f"{self._seed} {camera} {path}".encode()).digest()
            frames = Camera.draw(np.random.default_rng(int.from_bytes(digest[:8], "little"))).film(frames)
        return frames

    def _see(self, path: str, kind: str, camera: int) -> dict[str, NDArray[Any]]:
        frames = self._frames(path, kind, camera)
        made = [self._encoder.encode(frames[start : start + AT_ONCE]) for start in range(0, len(frames), AT_ONCE)]
        cells = torch.cat([part.cells for part in made]).cpu().numpy().astype(np.float16)
        return {"cells": cells, "whole": torch.cat([part.whole for part in made]).cpu().numpy().astype(np.float16)}

    def _move(self, path: str, camera: int) -> dict[str, NDArray[Any]]:
        parts = stretches(self._frames(path, "video", camera))
        tokens = [see_motion(part, 1 / RATE_HZ, self._encoder)[0].cpu().numpy() for part in parts]
        return {"moved": np.stack(tokens) if tokens else np.zeros((0, 0), np.float32)}


def stretches(frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Frames in stretches of a second, as the worker cuts them."""
    parts = [frames[start : start + STRETCH_FRAMES] for start in range(0, len(frames), STRETCH_FRAMES)]
    return [part for part in parts if len(part) >= FEWEST_FRAMES]


def frames_on_grid(path: Path, side_px: int) -> NDArray[np.uint8]:
    """A video's first frame in each eighth of a second, uint8 ``(T, side_px, side_px, 3)``.

    Raises:
        ModelError: It is not a video.
    """
    import av

    frames, before = [], -1
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(container.streams.video[0]):
                here = int(((frame.time or 0.0) + 1e-3) * RATE_HZ)
                if here > before:
                    frames.append(stretch(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False), side_px))
                before = here
    except (av.FFmpegError, IndexError) as error:
        raise ModelError(f"{path} cannot be decoded as video: {error}") from error
    if not frames:
        raise ModelError(f"{path} holds no frame")
    return np.stack(frames)
