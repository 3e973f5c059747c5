"""What cameras do to a picture: one draw is one camera, the same for every frame of a clip."""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera, its mounting, light and compression.

    Attributes:
        mirror: Left for right.
        corner: Of the crop, shares of what may be cut away, ``x`` and ``y``.
        zoom: Share of the side that is kept by the crop.
        scale: To which the picture is shrunk before it is stretched back: a small sensor or a far subject.
        gain: Of the light; under 1 is dark.
        gamma: Of the response.
        is_grey: Infra-red or a black-and-white camera.
        tint: Gains of red, green and blue.
        blur: Deviation of the lens's blur, pixels of the shrunk picture; 0: none.
        noise: Deviation of the sensor's noise, levels.
        rain: Streaks in a picture.
        quality: Of JPEG, 1 to 100.
        seed: Of noise and rain.
    """

    mirror: bool
    corner: tuple[float, float]
    zoom: float
    scale: float
    gain: float
    gamma: float
    is_grey: bool
    tint: tuple[float, float, float]
    blur: float
    noise: float
    rain: int
    quality: int
    seed: int

    @classmethod
    def draw(cls, random: np.random.Generator) -> Self:
        """One at random."""
        is_dark = random.random() < 0.25
        return cls(
            mirror=bool(random.random() < 0.5),
            corner=(float(random.random()), float(random.random())),
            zoom=float(random.uniform(0.7, 1.0)),
            scale=float(random.uniform(0.35, 1.0)),
            gain=float(random.uniform(0.25, 0.6) if is_dark else random.uniform(0.75, 1.25)),
            gamma=float(random.uniform(0.75, 1.35)),
            is_grey=bool(random.random() < 0.15),
            tint=tuple(float(value) for value in random.uniform(0.88, 1.12, 3)),  # type: ignore[arg-type]  # three
            blur=float(random.uniform(0.4, 1.2) if random.random() < 0.3 else 0.0),
            noise=float(random.uniform(4, 14) if is_dark or random.random() < 0.25 else 0.0),
            rain=int(random.integers(40, 150)) if random.random() < 0.1 else 0,
            quality=int(random.integers(18, 80)),
            seed=int(random.integers(2**31)),
        )

    def film(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What it makes of frames: uint8 ``(T, H, W, 3)`` RGB to the same."""
        random = np.random.default_rng(self.seed)
        return np.stack([self._shoot(frame, random) for frame in frames])

    def _shoot(self, frame: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
        height, width = frame.shape[:2]
        high, wide = round(height * self.zoom), round(width * self.zoom)
        top, left = round((height - high) * self.corner[1]), round((width - wide) * self.corner[0])
        seen = frame[top : top + high, left : left + wide, ::1]
        if self.mirror:
            seen = seen[:, ::-1]
        size = max(48, round(wide * self.scale)), max(48, round(high * self.scale))
        small = cv2.resize(np.ascontiguousarray(seen), size, interpolation=cv2.INTER_AREA)
        if self.blur:
            small = cv2.GaussianBlur(small, (0, 0), self.blur)
        light = np.power(small.astype(np.float32) / 255, self.gamma) * self.gain * np.array(self.tint, np.float32)
        light *= 255
        if self.is_grey:
            light = np.repeat(light @ np.array((0.299, 0.587, 0.114), np.float32)[:, None], 3, axis=2)
        if self.noise:
            light += random.normal(0, self.noise, light.shape).astype(np.float32)
        levels = light.clip(0, 255).astype(np.uint8)
        if self.rain:
            levels = _rain(levels, self.rain, random)
        _, packed = cv2.imencode(".jpg", levels, (cv2.IMWRITE_JPEG_QUALITY, self.quality))
        unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)
        stretched = cv2.resize(unpacked, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(stretched, np.uint8)


def _rain(frame: NDArray[np.uint8], streaks: int, random: np.random.Generator) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for x, y in random.integers((0, 0), (width, height), (streaks, 2)).tolist():
        cv2.line(layer, (x, y), (x + width // 60, y + height // 12), 110, 1)
    wet = frame.astype(np.int16) + layer[..., None]
    return wet.clip(0, 255).astype(np.uint8)
