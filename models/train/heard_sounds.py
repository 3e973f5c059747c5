"""Recordings with and without the trained kinds of sound, and how microphones would have caught them.

Positive are the licensed clips of a manifest and, where the corpus of `models/train/sound_corpus.py` is at hand, those
sounds of games whose file names say what they are: other sources than the clips, so that a head cannot go by how one
collection was recorded. Negative are the licensed clips of anything else, the films' sound tracks, and the corpus's
speech, music, animals, drums and interface sounds.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models.logmel import SAMPLE_RATE_HZ
from models.train.sound_corpus import Piece, clips, load
from models.train.sound_mix import band_limit, decibel, noise, room

Sound = NDArray[np.float32]

LONGEST_S = 4.5  # of a recording, as of the clips
STRETCH_S = 2.0  # heard at once, a window's length
HOP_S = 1.0

# Of the corpus: file names that tell. Shots of weapons that do not exist are left out.
NAMED: dict[str, dict[str, str]] = {
    "gunshot": {
        "hedgewars-data": r"/(gun|minigun|shotgunfire)\.ogg$",
        "nexuiz-data": r"/(campingrifle_fire2?|shotgun_fire|uzi_fire)\.ogg$",
        "openarena-data": r"/(machgf\db|sshotf1b)\.wav$",
        "scorched3d-data": r"/(machinegun|shotgun)\.wav$",
        "ufoai-sound": r"/(combat-gun|bullet-(chaingun|hmg|pistol|rifle|shotgun|smg|sniper|bolter)[^/]*)\.ogg$",
        "warmux-data": r"/(gun|shotgun)\.ogg$",
        "wesnoth-1.16-data": r"/gunshot\.wav$",
    },
    "explosion": {
        "bzflag-data": r"/explosion\.wav$",
        "hedgewars-data": r"/explosion\.ogg$",
        "lmms-common": r"/explode01\.ogg$",
        "minetest-data": r"/tnt_explode\.ogg$",
        "nexuiz-data": r"/explode\.ogg$",
        "openarena-081-misc": r"/kam_explode\.wav$",
        "openarena-data": r"/(kam_explode|wstbexpl|rocklx1a)\.wav$",
        "scorched3d-data": r"explo.*/(exp|shockwave|small|medium|x?large)\.wav$",
        "supertux-data": r"/explosion\.wav$",
        "ufoai-sound": r"/(combat-)?explosion(-(fire|flashbang|grenade|plasma|rocket))?\.ogg$",
        "warmux-data": r"/explosion\d\.ogg$",
        "warzone2100-data": r"/(atnk|lrg|mpod|sml)expl\.ogg$",
        "wesnoth-1.16-data": r"/explosion\.ogg$",
    },
}
# Sources with none of the kinds, and how many of each are enough.
ORDINARY = {
    "asterisk-core-sounds-en-wav": 150,
    "colobot-common-sounds": 60,
    "frozen-bubble-data": 20,
    "gnome-control-center-data": 4,
    "hydrogen-drumkits": 300,
    "klettres-data": 150,
    "ktuberling-data": 250,
    "lmms-common": 100,
    "minetest-data": 90,
    "oxygen-sounds": 50,
    "pingus-data": 7,
    "sonic-pi-samples": 140,
    "sound-theme-freedesktop": 25,
    "speech": 120,
    "supertux-data": 60,
    "tuxpaint-stamps-default": 1200,
    "wesnoth-1.16-music": 40,
}
# Players and soldiers of games who shout, groan and scream: near a siren or a baby in pitch, and neither.
SHOUTS = re.compile(r"/voices/|/player/|pain|death|taunt|groan", re.IGNORECASE)
SHOUTERS = {
    "hedgewars-data": 300,
    "megaglest-data": 100,
    "nexuiz-data": 150,
    "openarena-data": 150,
    "wesnoth-1.16-data": 120,
}
DOUBTFUL = re.compile(
    "explo|gun|shot|siren|baby|cry|scream|alarm|police|ambul|bomb|thunder|blast|fire|cannon|boom|tnt|burst|horn|whistle"
    "|dead|die"
)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A labelled sound.

    Attributes:
        name: Source and file.
        samples: float32 ``(M,)``, 16 kHz, -1..1, `LONGEST_S` at most.
        labels: Kinds that are heard; of a corpus's sound only what its name says.
        group: Recordings that come from one another are in one.
        is_clip: Of the manifest rather than of the corpus.
        is_scene: Of what a camera hears all day.
    """

    name: str
    samples: Sound
    labels: frozenset[str]
    group: str
    is_clip: bool
    is_scene: bool = False


def recordings(manifest: Path, corpus: Path | None, random: Generator) -> list[Recording]:
    """Everything licensed that there is to learn from."""
    longest = int(LONGEST_S * SAMPLE_RATE_HZ)
    found = []
    for row, samples in clips(manifest):
        if samples.size:
            said = row["labels"] if row["kind"] == "audio" else ""  # a film's labels say what is seen
            labels = frozenset(filter(None, said.split(";")))
            found.append(Recording(row["path"], samples[:longest], labels, row["group"], is_clip=True))
    if corpus is None:
        return found
    samples16, pieces = load(corpus)
    taken: dict[str, int] = {}
    for place in random.permutation(len(pieces)):
        piece = pieces[int(place)]
        kind = named(piece)
        if kind is None and taken.get(piece.source, 0) >= ORDINARY.get(piece.source, 0):
            continue
        if kind is None:
            if DOUBTFUL.search(piece.path.lower()) and "desc_" not in piece.path:  # a description is read aloud
                continue
            taken[piece.source] = taken.get(piece.source, 0) + 1
        raw = samples16[piece.start : piece.start + min(piece.length, longest)]
        labels = frozenset({kind} if kind else ())
        found.append(
            Recording(f"{piece.source}/{piece.path}", _sound(raw / 32768), labels, piece.source, is_clip=False)
        )
    return found


def shouts(corpus: Path, random: Generator) -> list[Recording]:
    """People of games who shout, as recordings of no kind."""
    samples, pieces = load(corpus)
    taken: dict[str, int] = {}
    found = []
    for place in random.permutation(len(pieces)):
        piece = pieces[int(place)]
        if taken.get(piece.source, 0) < SHOUTERS.get(piece.source, 0) and SHOUTS.search(piece.path):
            taken[piece.source] = taken.get(piece.source, 0) + 1
            raw = samples[piece.start : piece.start + min(piece.length, int(LONGEST_S * SAMPLE_RATE_HZ))]
            name = f"{piece.source}/{piece.path}"
            found.append(Recording(name, _sound(raw / 32768), frozenset(), piece.source, is_clip=False))
    return found


def _sound(samples: NDArray[Any]) -> Sound:
    return np.asarray(samples, np.float32)


def named(piece: Piece) -> str | None:
    """The kind that a corpus's file is named for."""
    for kind, patterns in NAMED.items():
        if piece.source in patterns and re.search(patterns[piece.source], f"/{piece.path}"):
            return kind
    return None


def stretches(samples: Sound) -> Sound:
    """A sound as a worker hears it: ``(M,)`` to ``(N, 32000)``, half overlapping."""
    length, hop = int(STRETCH_S * SAMPLE_RATE_HZ), int(HOP_S * SAMPLE_RATE_HZ)
    parts = [samples[start : start + length] for start in range(0, max(1, len(samples) - length + hop), hop)]
    return np.stack([np.pad(part, (0, length - len(part))) for part in parts])


def background_of(found: Sequence[Recording]) -> list[Sound]:
    """What may lie under a recording: everything that is long enough and of no kind, clips of sound aside.

    Those stay apart because a fold that is held back must not be heard in training.
    """
    half_s = SAMPLE_RATE_HZ // 2
    plain = (r for r in found if not r.labels and not (r.is_clip and r.name.startswith("audio")))
    return [r.samples for r in plain if r.samples.size > half_s and float(np.abs(r.samples).max()) > 1e-3]


def view(recording: Recording, number: int, backgrounds: Sequence[Sound], seed: int) -> Sound:
    """One of many ways in which a recording may reach a microphone; number 0 is the recording itself."""
    if number == 0:
        return recording.samples
    random = np.random.default_rng([seed, zlib.crc32(recording.name.encode()), number])
    return spoil(recording.samples, backgrounds, random)


def spoil(samples: Sound, backgrounds: Sequence[Sound], random: Generator) -> Sound:
    """Shift, reverberate, mix with other sound, and record badly."""
    sound = _shift(_speed(samples, random), random)[: int(LONGEST_S * SAMPLE_RATE_HZ)]
    if random.random() < 0.2:
        sound = room(sound, random)
    sound = _sound(sound / max(float(np.abs(sound).max()), 1e-6))
    if backgrounds and random.random() < 0.5:
        sound = _mix(sound, backgrounds[int(random.integers(len(backgrounds)))], random.uniform(-3, 25), random)
    sound = _sound(sound * decibel(-random.exponential(10)))
    if random.random() < 0.55:
        sound = _sound(sound + noise(len(sound), random) * decibel(random.uniform(-75, -30)))
    if random.random() < 0.35:
        sound = band_limit(sound, random)
    if random.random() < 0.06:
        sound = _sound(np.tanh(sound * random.uniform(2, 8)))  # an overdriven microphone
    if random.random() < 0.35:
        sound = _sound(np.round(sound * 127) / 127)  # eight bits, as many of the clips have
    return _sound(np.clip(sound, -1, 1))


def _speed(sound: Sound, random: Generator) -> Sound:
    if random.random() >= 0.3:
        return sound
    speed = float(np.exp(random.normal(0, 0.12)))
    return _sound(np.interp(np.arange(int(len(sound) / speed)) * speed, np.arange(len(sound)), sound))


def _shift(sound: Sound, random: Generator) -> Sound:
    """Begin up to a second earlier or later; of a short sound nothing is cut."""
    if random.random() >= 0.5:
        return sound
    lead = int(random.uniform(-1, 1) * SAMPLE_RATE_HZ)
    if lead > 0:
        return np.pad(sound, (lead, 0))
    return sound[-lead:] if len(sound) + lead > 1.5 * SAMPLE_RATE_HZ else sound


def _mix(sound: Sound, background: Sound, ratio_db: float, random: Generator) -> Sound:
    """Lay a background under a sound, at a ratio of their effective levels."""
    long = np.tile(background, -(-len(sound) // len(background)))
    first = int(random.integers(0, len(long) - len(sound) + 1))
    under = long[first : first + len(sound)]
    gain = _level(sound) / _level(under) * decibel(-ratio_db)
    mixed = sound + under * np.float32(gain)
    return _sound(mixed / max(float(np.abs(mixed).max()), 1e-6))


def _level(sound: Sound) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) + 1e-6
