"""What a camera hears all day and none of the kinds is: streets, markets, machines, crowds, wind.

Recordings come from the packages that `models/train/sound_corpus.py` names for it; crowds, wind and engines are made
here, because free collections hold few of them and they are what passes for an explosion or a siren.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models.logmel import SAMPLE_RATE_HZ
from models.train.heard_sounds import LONGEST_S, Recording, Sound
from models.train.sound_corpus import load
from models.train.sound_mix import band_limit, hiss, hum, noise, room

# File names that may hold a kind, or something that people would call one.
DOUBTFUL = re.compile(
    "explo|gun|shot|shoot|siren|baby|cry|scream|alarm|police|ambul|health|hospital|bomb|blast|fire|cannon|boom|rocket|raze|"
    "missile|weapon|laser|grenade|death|dead|die|sniper|bang|crash_",
    re.IGNORECASE,
)
MOST_OF_A_SOURCE, CUTS = 160, 3  # a long recording is cut so often
VOICES = re.compile(
    r"^(asterisk|klettres|ktuberling|speech|megaglest|wesnoth-1.16-data|hedgewars|nexuiz|openarena-data)"
)


def scenes(corpus: Path, random: Generator) -> list[Recording]:
    """What was recorded: of each source so many files, of long ones several stretches."""
    samples, pieces = load(corpus)
    length = int(LONGEST_S * SAMPLE_RATE_HZ)
    taken: dict[str, int] = {}
    found = []
    for place in random.permutation(len(pieces)):
        piece = pieces[int(place)]
        if DOUBTFUL.search(f"/{piece.path}") or taken.get(piece.source, 0) >= MOST_OF_A_SOURCE:
            continue
        taken[piece.source] = taken.get(piece.source, 0) + 1
        room_for = max(1, min(CUTS, piece.length // length))
        for cut in range(room_for):
            first = piece.start + cut * (piece.length // room_for)
            raw = samples[first : min(first + length, piece.start + piece.length)]
            name = f"{piece.source}/{piece.path}#{cut}"
            found.append(Recording(name, _sound(raw / 32768), frozenset(), piece.source, is_clip=False, is_scene=True))
    return found


def made(voices: Sequence[Sound], count: int, random: Generator) -> list[Recording]:
    """Crowds of many voices, wind, engines, and all of them at once; each a quarter.

    Args:
        voices: People who speak, shout or laugh.
        count: Of recordings.
        random: Draws them.
    """
    makers = (
        lambda: crowd(voices, random),
        lambda: wind(random),
        lambda: engine(random),
        lambda: street(voices, random),
    )
    return [
        Recording(
            f"made/{number}",
            _level(makers[number % 4]()),
            frozenset(),
            f"made-{number // 20}",
            is_clip=False,
            is_scene=True,
        )
        for number in range(count)
    ]


def crowd(voices: Sequence[Sound], random: Generator) -> Sound:
    """Many voices at once, near and far: talk, cheers, a roar. The more there are, the more it is one noise."""
    total = _silence()
    for _ in range(int(np.exp(random.uniform(np.log(4), np.log(60))))):
        voice = voices[int(random.integers(len(voices)))]
        speed = float(np.exp(random.normal(0, 0.15)))
        heard = np.interp(np.arange(int(len(voice) / speed)) * speed, np.arange(len(voice)), voice)[: len(total)]
        first = int(random.integers(0, max(1, len(total) - len(heard) // 2)))
        part = heard[: len(total) - first]
        total[first : first + len(part)] += _level(_sound(part)) * np.float32(10 ** random.uniform(-1.2, 0))
    swell = np.interp(np.arange(len(total)), np.linspace(0, len(total), 7), random.uniform(0.3, 1, 7))
    return room(_sound(total * swell), random) if random.random() < 0.7 else _sound(total * swell)


def wind(random: Generator) -> Sound:
    """Gusts on a microphone: deep noise whose level wanders, now and then too loud."""
    total = _silence()
    for first in range(0, len(total), SAMPLE_RATE_HZ):
        gust = hiss(random)[: len(total) - first]
        total[first : first + len(gust)] += gust * np.hanning(len(gust)).astype(np.float32)
    spectrum = np.fft.rfft(total)
    spectrum /= np.maximum(np.arange(spectrum.size), 40) ** random.uniform(0.3, 1.2)
    gusts = _level(_sound(np.fft.irfft(spectrum, len(total))))
    return _sound(np.tanh(gusts * random.uniform(1, 6)))


def engine(random: Generator) -> Sound:
    """A vehicle that idles, comes and goes."""
    once = hum(random)
    total = np.resize(once, len(_silence()))
    nearness = np.interp(np.arange(len(total)), np.linspace(0, len(total), 5), random.uniform(0.05, 1, 5) ** 2)
    heard = _sound(total * nearness + noise(len(total), random) * 10 ** random.uniform(-2.5, -0.5))
    return band_limit(heard, random)


def street(voices: Sequence[Sound], random: Generator) -> Sound:
    """All of it."""
    parts = (crowd(voices, random), wind(random), engine(random))
    return _sound(np.sum([_level(part) * 10 ** random.uniform(-1.5, 0) for part in parts], axis=0))


def voices_of(corpus: Path, random: Generator, most: int = 600) -> list[Sound]:
    """People's voices of the corpus, for crowds."""
    samples, pieces = load(corpus)
    spoken = [piece for piece in pieces if VOICES.match(piece.source) and piece.length > SAMPLE_RATE_HZ // 3]
    chosen = random.permutation(len(spoken))[:most]
    return [
        _level(_sound(samples[p.start : p.start + min(p.length, int(LONGEST_S * SAMPLE_RATE_HZ))] / 32768))
        for p in (spoken[int(place)] for place in chosen)
    ]


def _silence() -> Sound:
    return np.zeros(int(LONGEST_S * SAMPLE_RATE_HZ), np.float32)


def _level(sound: Sound) -> Sound:
    return _sound(sound / max(float(np.abs(sound).max()), 1e-6))


def _sound(samples: NDArray[Any]) -> Sound:
    return np.asarray(samples, np.float32)
