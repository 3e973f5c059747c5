"""Encoders that see colours and hear loudness, exactly and fast, and films to go with them."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from models.encoders import Encoders, PictureTokens, SoundTokens

DIM = 8  # red, green, blue, ordinary, loud, and room for words that mean nothing here
RATE_HZ = 25
_CHROMA = {"red": (2, -1, -1), "green": (-1, 2, -1), "blue": (-1, -1, 2)}
_COLOURS = {
    "red": (230, 10, 10),
    "green": (10, 200, 10),
    "blue": (10, 10, 230),
    "grey": (110, 110, 110),
    "black": (0, 0, 0),
}


class ColourPictures:
    """A cell's token is its mean colour, the grey taken out."""

    name, sha256, size, grid, dim = "colours", "c" * 64, 224, (7, 7), DIM

    def encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
        count = len(pixels)
        cells = pixels.reshape(count, 7, 32, 7, 32, 3).mean(axis=(2, 4)).reshape(count, 49, 3) / 255
        tokens = np.zeros((count, 49, DIM), np.float32)
        tokens[..., :3] = cells - cells.mean(-1, keepdims=True)
        tokens[..., 3] = 0.2
        made = torch.nn.functional.normalize(torch.from_numpy(tokens), dim=-1)
        return PictureTokens(made, torch.nn.functional.normalize(made.mean(1), dim=-1))


class Loudness:
    """A token is how loud it is."""

    name, sha256, token_s, dim = "loudness", "d" * 64, 0.5, DIM

    def encode(self, samples: NDArray[np.float32]) -> SoundTokens:
        count = len(samples)
        loud = np.sqrt((samples.reshape(count, 2, -1) ** 2).mean(-1))
        tokens = np.zeros((count, 2, DIM), np.float32)
        tokens[..., 3], tokens[..., 4] = 0.05, loud
        made = torch.nn.functional.normalize(torch.from_numpy(tokens), dim=-1)
        return SoundTokens(made, torch.nn.functional.normalize(made.mean(1), dim=-1))


class Words:
    """Colours and "loud" mean what they say; other words mean nothing."""

    name, sha256, dim = "words", "e" * 64, DIM

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), DIM), np.float32)
        for row, text in zip(rows, texts, strict=True):
            if text in _CHROMA:
                row[:3] = _CHROMA[text]
            elif text == "loud":
                row[4] = 1
            else:
                row[5:] = np.frombuffer(hashlib.sha256(text.encode()).digest()[:3], np.uint8) + 1.0
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def colour_encoders() -> Encoders:
    words = Words()
    return Encoders(ColourPictures(), words, Loudness(), words)


def make_film(
    path: Path,
    scenes: Sequence[tuple[str, float]],
    *,
    is_moving: bool = True,
    tones: Sequence[tuple[float, float]] = (),
    side_px: tuple[int, int] = (160, 96),
) -> Path:
    """Scenes of one colour each, a grey block wandering over them; a tone from each start to each end, if any."""
    width, height = side_px
    with av.open(str(path), "w") as target:
        options = {"g": str(RATE_HZ), "sc_threshold": "0", "threads": "1", "preset": "ultrafast"}
        picture: Any = target.add_stream("libx264", rate=RATE_HZ, options=options)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        sound: Any = target.add_stream("aac", rate=48_000, layout="mono") if tones else None
        colours = [colour for colour, seconds in scenes for _ in range(round(seconds * RATE_HZ))]
        for number, colour in enumerate(colours):
            pixels = np.full((height, width, 3), _COLOURS[colour], np.uint8)
            if is_moving:
                left = number * 3 % (width - 24)
                pixels[8:32, left : left + 24] = 60 + number * 7 % 120
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE_HZ)
            target.mux(picture.encode(frame))
            if sound is not None:
                target.mux(sound.encode(_tone(number, tones)))
        target.mux(picture.encode(None))
        if sound is not None:
            target.mux(sound.encode(None))
    return path


def _tone(number: int, tones: Sequence[tuple[float, float]]) -> av.AudioFrame:
    count = 48_000 // RATE_HZ
    at_s = np.arange(number * count, (number + 1) * count) / 48_000
    is_on = np.any([(start <= at_s) & (at_s < end) for start, end in tones], axis=0)
    wave = (0.5 * is_on * np.sin(2 * np.pi * 440 * at_s)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(wave[None, :], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, number * count, Fraction(1, 48_000)
    return frame
