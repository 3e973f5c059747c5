"""A generated scene for the demonstration: a yard at night, then a fire, then a smoke alarm. Nothing in it is real."""

from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 12
WIDTH, HEIGHT = 640, 360
SOUND_RATE_HZ = 16_000
ALARM_HZ = 3_100  # where piezo sounders of smoke alarms peak
_FIRE_GRID = (90, 120)  # rows, columns of the fire's automaton
_LABEL = "GENERATED SCENE"

_PALETTE_STOPS = np.array(
    [[0, 0, 0], [60, 8, 4], [160, 30, 8], [230, 90, 16], [250, 160, 40], [255, 220, 110], [255, 250, 225]], np.float32
)


def write_scene(path: Path, *, duration_s: float = 24.0, fire_from_s: float = 6.0, alarm_from_s: float = 9.0) -> None:
    """Write the scene as MP4 (H.264, AAC), a keyframe a second, the words GENERATED SCENE in every picture."""
    rng = np.random.default_rng(7)
    frames = round(duration_s * RATE_HZ)
    with av.open(str(path), "w", format="mp4") as container:
        options = {"crf": "24", "g": str(RATE_HZ), "bf": "0", "sc_threshold": "0"}
        video = container.add_stream("libx264", rate=RATE_HZ, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono")
        yard = _yard()
        heat = np.zeros(_FIRE_GRID, np.float32)
        for index in range(frames):
            at_s = index / RATE_HZ
            strength = float(np.clip((at_s - fire_from_s) / 3.0, 0.0, 1.0))
            heat = _burn(heat, strength, rng)
            picture = _compose(yard, heat, rng)
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        sound = _alarm(duration_s, alarm_from_s, rng)
        for start in range(0, sound.size, 1024):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts = SOUND_RATE_HZ, start
            for packet in audio.encode(block):
                container.mux(packet)
        for stream in (video, audio):
            for packet in stream.encode(None):
                container.mux(packet)


def _yard() -> NDArray[np.float32]:
    """A dark yard: sky, ground, a shed and a fence, float32 ``(HEIGHT, WIDTH, 3)``, 0..255."""
    rows = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    picture = (np.array([18, 24, 40], np.float32) * (1 - rows) + np.array([52, 50, 46], np.float32) * rows) * np.ones(
        (1, WIDTH, 1), np.float32
    )
    cv2.rectangle(picture, (40, 110), (230, 300), (58, 46, 40), -1)
    cv2.rectangle(picture, (100, 200), (150, 300), (30, 26, 24), -1)
    for x in range(0, WIDTH, 26):
        cv2.rectangle(picture, (x, 235), (x + 8, 300), (44, 40, 36), -1)
    return picture


def _burn(heat: NDArray[np.float32], strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """One step of a cellular fire: heat rises, drifts and cools. ``heat`` is 0..1, row 0 on top."""
    for _ in range(3):
        columns = heat.shape[1]
        centre = np.abs(np.linspace(-1, 1, columns, dtype=np.float32))
        seed = np.clip(1.25 - centre * 1.35, 0, 1) * strength
        drift = int(rng.integers(-1, 2))
        risen = np.empty_like(heat)
        risen[:-1] = np.roll(heat[1:], drift, axis=1)
        risen[-1] = seed * rng.uniform(0.75, 1.0, (columns,)).astype(np.float32)
        cooled = risen - rng.uniform(0.0, 0.034, heat.shape).astype(np.float32)
        heat = np.asarray(cv2.blur(np.clip(cooled, 0, 1), (3, 1)), np.float32)
    return heat


def _compose(yard: NDArray[np.float32], heat: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    flame = cv2.resize(heat, (330, 280), interpolation=cv2.INTER_CUBIC)
    flame = np.clip(flame, 0, 1)
    position = flame * (len(_PALETTE_STOPS) - 1)
    low = np.minimum(position.astype(np.intp), len(_PALETTE_STOPS) - 2)
    part = (position - low)[..., None]
    colour = _PALETTE_STOPS[low] * (1 - part) + _PALETTE_STOPS[low + 1] * part
    picture = yard * (1 + 0.9 * float(heat.mean()) * np.array([2.4, 1.3, 0.7], np.float32))
    box = picture[40:320, 270:600]
    opacity = np.clip(flame * 2.2, 0, 1)[..., None]
    box[:] = box * (1 - opacity) + colour * opacity
    picture += rng.normal(0, 2.0, picture.shape[:2]).astype(np.float32)[..., None]
    shown = np.clip(picture, 0, 255).astype(np.uint8)
    cv2.putText(shown, _LABEL, (12, HEIGHT - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (150, 150, 150), 1, cv2.LINE_AA)
    return shown


def _alarm(duration_s: float, from_s: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Quiet hiss, then the temporal-three pattern of ISO 8201: three half-second tones, then a pause of 1.5 s."""
    at_s = np.arange(round(duration_s * SOUND_RATE_HZ), dtype=np.float32) / SOUND_RATE_HZ
    phase_s = np.mod(at_s - from_s, 4.0)
    is_on = (at_s >= from_s) & (phase_s < 3.0) & (np.mod(phase_s, 1.0) < 0.5)
    tone = np.sign(np.sin(2 * np.pi * ALARM_HZ * at_s)) * 0.25 + np.sin(2 * np.pi * ALARM_HZ * at_s) * 0.2
    hiss = rng.normal(0, 0.002, at_s.size)
    return (tone * is_on + hiss).astype(np.float32)
