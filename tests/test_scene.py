"""The generated yard: what it shows and when it sounds."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.scene import ALARM_HZ, HEIGHT, RATE_HZ, SOUND_RATE_HZ, WIDTH, write_scene

DURATION_S, FIRE_FROM_S, ALARM_FROM_S = 5.0, 1.0, 2.5


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "yard.mp4"
    write_scene(path, duration_s=DURATION_S, fire_from_s=FIRE_FROM_S, alarm_from_s=ALARM_FROM_S)
    return path


@pytest.fixture(scope="module")
def pictures(film: Path) -> NDArray[np.uint8]:
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.uint8)


@pytest.fixture(scope="module")
def sound(film: Path) -> NDArray[np.float32]:
    with av.open(str(film)) as container:
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.concatenate(blocks).astype(np.float32)


def test_it_has_the_pictures_of_its_length_and_a_keyframe_a_second(film: Path, pictures: NDArray[np.uint8]) -> None:
    assert pictures.shape == (DURATION_S * RATE_HZ, HEIGHT, WIDTH, 3)
    with av.open(str(film)) as container:
        at_s = [
            float(packet.pts * packet.time_base)
            for packet in container.demux(video=0)
            if packet.is_keyframe and packet.pts is not None
        ]
    assert at_s == pytest.approx(list(range(int(DURATION_S))))


def test_every_picture_says_that_it_is_generated(pictures: NDArray[np.uint8]) -> None:
    """The words are lighter than the dark ground around them, in each picture at the same place."""
    words = pictures[:, HEIGHT - 26 : HEIGHT - 8, 10:170].max(axis=3)
    beside = pictures[:, HEIGHT - 26 : HEIGHT - 8, WIDTH - 170 : WIDTH - 10].max(axis=3)
    lit = (words > 110).mean(axis=(1, 2))
    assert lit.min() > 0.08
    assert (beside > 110).mean() < 0.01


def test_it_burns_from_when_it_was_told_and_not_before(pictures: NDArray[np.uint8]) -> None:
    place = pictures[:, 40:320, 270:600].astype(np.float32)
    redness = (place[..., 0] - place[..., 2]).mean(axis=(1, 2))
    before = redness[: int(FIRE_FROM_S * RATE_HZ)]
    assert np.ptp(before) < 2
    assert redness[-1] > before.max() + 20


def test_the_alarm_sounds_from_when_it_was_told_and_not_before(sound: NDArray[np.float32]) -> None:
    first = int((ALARM_FROM_S - 0.1) * SOUND_RATE_HZ)  # the codec rings a little ahead
    assert np.abs(sound[:first]).max() < 0.05
    tone = sound[int((ALARM_FROM_S + 0.1) * SOUND_RATE_HZ) : int((ALARM_FROM_S + 0.4) * SOUND_RATE_HZ)]
    pause = sound[int((ALARM_FROM_S + 0.6) * SOUND_RATE_HZ) : int((ALARM_FROM_S + 0.9) * SOUND_RATE_HZ)]
    assert tone.std() > 0.2
    assert pause.std() < 0.02
    spectrum = np.abs(np.fft.rfft(tone))
    assert np.fft.rfftfreq(tone.size, 1 / SOUND_RATE_HZ)[spectrum.argmax()] == pytest.approx(ALARM_HZ, abs=10)
