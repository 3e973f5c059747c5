"""Make training sounds: gathered ones and synthetic ones, mixed and spoilt as microphones spoil them.

Variety is what distillation from a teacher needs most; whether a mixture is plausible matters little, because the
teacher labels what it hears in it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models.logmel import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from models.train.sound_corpus import Piece

Sound = NDArray[np.float32]

CLIP_FRAMES = 192
CLIP_SAMPLES = (CLIP_FRAMES - 1) * HOP_SAMPLES + WINDOW_SAMPLES
MANIFEST_SHARE = 0.22  # of all draws: recorded in the open, unlike most sounds of games
SYNTHETIC_SHARE = 0.15
SILENT_SHARE = 0.02


def source_weights(pieces: Sequence[Piece]) -> NDArray[np.float64]:
    """Chance of each piece: sources count by the square root of their size, manifest clips by a share of their own."""
    counts: dict[str, int] = {}
    for piece in pieces:
        counts[piece.source] = counts.get(piece.source, 0) + 1
    weights = np.array([counts[piece.source] ** -0.5 for piece in pieces])
    labelled = np.array([piece.source == "manifest" for piece in pieces])
    if labelled.any() and not labelled.all():
        weights[labelled] *= MANIFEST_SHARE / weights[labelled].sum()
        weights[~labelled] *= (1 - MANIFEST_SHARE) / weights[~labelled].sum()
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


class Mixer:
    """Draws mixtures, one after the other, from its own random numbers."""

    def __init__(self, samples: NDArray[np.int16], pieces: Sequence[Piece], random: Generator) -> None:
        self._samples = samples
        self._pieces = pieces
        self._chances = np.cumsum(source_weights(pieces))
        self._random = random

    def draw(self) -> Sound:
        """Draw float32 ``(CLIP_SAMPLES,)``, -1..1."""
        random = self._random
        if random.random() < SILENT_SHARE:
            clip = np.zeros(CLIP_SAMPLES, np.float32)
        else:
            clip = self._one()
            for chance in (0.45, 0.2):
                if random.random() < chance:
                    clip = clip + self._one() * decibel(-random.uniform(0, 20))
        clip = room(clip, random) if random.random() < 0.2 else clip
        peak = float(np.abs(clip).max())
        clip = clip / max(peak, 1e-6) * decibel(-random.exponential(10)) if peak > 0 else clip
        if random.random() < 0.55:
            clip = clip + noise(CLIP_SAMPLES, random) * decibel(random.uniform(-75, -25))
        clip = band_limit(clip, random) if random.random() < 0.35 else clip
        if random.random() < 0.08:
            clip = np.tanh(clip * np.float32(random.uniform(2, 12)))  # an overdriven microphone
        if random.random() < 0.2:
            clip = (np.round(clip * 127) / 127).astype(np.float32)  # 8-bit recordings
        return np.clip(clip, -1, 1).astype(np.float32)

    def _one(self) -> Sound:
        if self._random.random() < SYNTHETIC_SHARE:
            sound = synthesise(self._random)
        else:
            sound = self._cut(self._pieces[int(np.searchsorted(self._chances, self._random.random()))])
        peak = float(np.abs(sound).max())
        return sound / peak if peak > 0 else sound

    def _cut(self, piece: Piece) -> Sound:
        random = self._random
        speed = float(np.exp(random.normal(0, 0.18))) if random.random() < 0.4 else 1.0
        wanted = int(CLIP_SAMPLES * speed)
        first = piece.start + int(random.integers(0, max(1, piece.length - wanted + 1)))
        raw = self._samples[first : min(first + wanted, piece.start + piece.length)].astype(np.float32) / 32768
        if speed != 1.0:
            raw = np.interp(np.arange(int(raw.size / speed)) * speed, np.arange(raw.size), raw).astype(np.float32)
        raw = raw[:CLIP_SAMPLES]
        clip = np.zeros(CLIP_SAMPLES, np.float32)
        start = int(random.integers(0, CLIP_SAMPLES - raw.size + 1))
        clip[start : start + raw.size] = raw
        if raw.size < CLIP_SAMPLES // 2 and random.random() < 0.4:  # a short sound may repeat
            again = int(random.integers(raw.size, CLIP_SAMPLES))
            clip[again : again + raw.size] += raw[: CLIP_SAMPLES - again]
        return clip


def decibel(level_db: float) -> float:
    """Amplitude ratio of a level."""
    return float(10 ** (level_db / 20))


def noise(samples: int, random: Generator) -> Sound:
    """White to brown noise of peak 1."""
    white = random.standard_normal(samples).astype(np.float32)
    spectrum = np.fft.rfft(white)
    spectrum /= np.maximum(np.arange(spectrum.size), 20) ** random.uniform(0, 1)
    coloured = np.fft.irfft(spectrum, samples)
    made: Sound = (coloured / np.abs(coloured).max()).astype(np.float32)
    return made


def band_limit(clip: Sound, random: Generator) -> Sound:
    """Cut what small loudspeakers, telephones and codecs cut."""
    spectrum = np.fft.rfft(clip)
    hertz = np.linspace(0, SAMPLE_RATE_HZ / 2, spectrum.size)
    low, high = random.uniform(0, 500) * (random.random() < 0.6), np.exp(random.uniform(np.log(1800), np.log(8000)))
    slope = random.uniform(4, 40)
    with np.errstate(over="ignore"):
        spectrum = spectrum / np.sqrt(1 + (hertz / high) ** slope)
    spectrum[hertz < low] *= 0.03
    return np.fft.irfft(spectrum, clip.size).astype(np.float32)


def room(clip: Sound, random: Generator) -> Sound:
    """Reverberate: noise that dies away, 0.1 to 1.5 s to -60 dB."""
    decay_s = random.uniform(0.1, 1.5)
    time = np.arange(int(decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tail = random.standard_normal(time.size) * 10 ** (-3 * time / decay_s)
    tail[0] = random.uniform(2, 20)
    size = clip.size + tail.size
    wet = np.fft.irfft(np.fft.rfft(clip, size) * np.fft.rfft(tail, size), size)[: clip.size]
    return wet.astype(np.float32)


def synthesise(random: Generator) -> Sound:
    """Make one of the sounds that free collections lack: sirens, alarms, bursts, breaking glass, cries."""
    made: Sound = SYNTHESISERS[int(random.integers(len(SYNTHESISERS)))](random)
    return made


def _time() -> NDArray[np.float64]:
    return np.arange(CLIP_SAMPLES) / SAMPLE_RATE_HZ


def _tone(hertz: NDArray[np.float64], random: Generator, harmonics: int) -> NDArray[np.float64]:
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE_HZ
    falloff = random.uniform(0.3, 1.5)
    parts = [np.sin(phase * n) * n**-falloff * (hertz * n < 7900) for n in range(1, harmonics + 1)]
    tone: NDArray[np.float64] = np.sum(parts, axis=0)
    return tone


def siren(random: Generator) -> Sound:
    """Wail, yelp or two-tone, with a horn's harmonics."""
    low = random.uniform(300, 900)
    high = low * random.uniform(1.2, 2.6)
    turns = _time() * np.exp(random.uniform(np.log(0.15), np.log(6))) + random.random()
    shapes = (0.5 - 0.5 * np.cos(2 * np.pi * turns), turns % 1, (turns % 1 > 0.5) * 1.0, np.abs(2 * (turns % 1) - 1))
    sweep = shapes[int(random.integers(4))]
    return _tone(low + (high - low) * sweep, random, int(random.integers(1, 9))).astype(np.float32)


def alarm(random: Generator) -> Sound:
    """Beeps: smoke detectors, watches, reversing lorries."""
    hertz = np.full(CLIP_SAMPLES, np.exp(random.uniform(np.log(400), np.log(4200))))
    period, duty = random.uniform(0.1, 1.2), random.uniform(0.2, 0.8)
    gate = ((_time() + random.random()) % period < period * duty) * 1.0
    return (_tone(hertz, random, int(random.integers(1, 5))) * gate).astype(np.float32)


def burst(random: Generator) -> Sound:
    """Shots and blasts: noise that dies away, one or many, bright or dull."""
    clip = np.zeros(CLIP_SAMPLES)
    decay = np.exp(random.uniform(np.log(0.02), np.log(0.8)))
    colour = random.uniform(0, 1.2)
    gap = random.uniform(0.08, 0.6)
    at = random.uniform(0, 1.2)
    for _ in range(int(random.integers(1, 9)) if random.random() < 0.5 else 1):
        first = int(at * SAMPLE_RATE_HZ)
        if first >= CLIP_SAMPLES:
            break
        length = CLIP_SAMPLES - first
        spectrum = np.fft.rfft(random.standard_normal(length))
        spectrum /= np.maximum(np.arange(spectrum.size) * CLIP_SAMPLES / length, 30) ** colour
        sound = np.fft.irfft(spectrum, length) * np.exp(-np.arange(length) / SAMPLE_RATE_HZ / decay)
        clip[first:] += sound / max(np.abs(sound).max(), 1e-9)
        at += gap * random.uniform(0.9, 1.1)
    return clip.astype(np.float32)


def shatter(random: Generator) -> Sound:
    """Breaking glass: a crack, then shards that ring high and briefly."""
    clip = burst(random) * random.uniform(0, 0.6)
    time = _time()
    begin = random.uniform(0, 0.8)
    for _ in range(int(random.integers(8, 60))):
        at = begin + random.exponential(random.uniform(0.05, 0.4))
        first = int(at * SAMPLE_RATE_HZ)
        if first >= CLIP_SAMPLES:
            continue
        rest = time[: CLIP_SAMPLES - first]
        ring = np.sin(2 * np.pi * random.uniform(1800, 7800) * rest) * np.exp(-rest / random.uniform(0.005, 0.08))
        clip[first:] += (ring * random.uniform(0.05, 1)).astype(np.float32)
    return clip


def cry(random: Generator) -> Sound:
    """A voice without words: cries, screams, howls; harmonics through two formants, breath added."""
    time = _time()
    base = np.exp(random.uniform(np.log(180), np.log(1300)))
    slow = np.interp(time, np.linspace(0, 2, 6), random.uniform(0.75, 1.3, 6))
    trill = 1 + random.uniform(0, 0.06) * np.sin(2 * np.pi * random.uniform(4, 30) * time)
    sound = _tone(base * slow * trill, random, 24)
    spectrum = np.fft.rfft(sound + random.uniform(0, 0.4) * random.standard_normal(time.size))
    hertz = np.linspace(0, SAMPLE_RATE_HZ / 2, spectrum.size)
    formants = (random.uniform(500, 1400), random.uniform(1400, 3800))
    spectrum *= 0.05 + sum(np.exp(-(((hertz - f) / random.uniform(150, 700)) ** 2)) for f in formants)
    gate = np.interp(time, np.linspace(0, 2, 9), np.clip(random.uniform(-0.5, 1.5, 9), 0, 1))
    voiced: Sound = (np.fft.irfft(spectrum, time.size) * gate).astype(np.float32)
    return voiced


def hum(random: Generator) -> Sound:
    """Engines, fans, mains: low harmonics, modulated."""
    base = random.uniform(25, 260)
    time = _time()
    speed = np.interp(time, np.linspace(0, 2, 4), random.uniform(0.9, 1.15, 4))
    tone = _tone(base * speed, random, 20) * (1 + random.uniform(0, 0.7) * np.sin(2 * np.pi * base / 2 * time))
    machine: Sound = (tone / np.abs(tone).max() + random.uniform(0, 1) * noise(time.size, random)).astype(np.float32)
    return machine


def hiss(random: Generator) -> Sound:
    """Rain, wind, crowds from afar: noise whose level wanders."""
    level = np.interp(_time(), np.linspace(0, 2, 12), random.uniform(0.1, 1, 12) ** random.uniform(0, 3))
    return (noise(CLIP_SAMPLES, random) * level).astype(np.float32)


SYNTHESISERS = (siren, siren, alarm, burst, burst, shatter, cry, cry, hum, hiss)
