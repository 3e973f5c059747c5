"""Clips put together, and what is measured on them, with encoders whose evidence is known to be true."""

import csv
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from models.evaluate import EvaluationError
from models.evaluate.media import read_sound
from streamer.evaluate.clips import Clip
from streamer.evaluate.compose import accompany, plant, without
from streamer.evaluate.evidence import measure_evidence
from streamer.evaluate.fusion import measure_fusion
from streamer.evaluate.questions import ask_texts
from streamer.evaluate.replay import prompt_set, show
from streamer.settings import load_settings
from streamer.stages import Stages, open_stages
from tests.colours import colour_encoders, make_film

RED = (10, 10, 230)  # OpenCV's order: blue, green, red


@pytest.fixture
def stages() -> Stages:
    return open_stages(load_settings(flags={"encode.device": "cpu"}), colour_encoders())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An ordinary film, a red one, a red photo, a loud sound and a quiet one."""
    make_film(tmp_path / "grey.mp4", [("grey", 3.0)])
    make_film(tmp_path / "red.mp4", [("red", 3.0)])
    make_film(tmp_path / "loud.mp4", [("grey", 3.0)], tones=[(0.0, 3.0)])
    make_film(tmp_path / "quiet.mp4", [("grey", 3.0)], tones=[(2.9, 3.0)])
    cv2.imwrite(str(tmp_path / "red.png"), np.full((96, 160, 3), RED, np.uint8))
    return tmp_path


@pytest.fixture
def manifest(root: Path) -> Path:
    rows = (
        ("grey.mp4", "video", "", "dev"),
        ("red.mp4", "video", "red", "dev"),
        ("red.png", "image", "red", "dev"),
        ("loud.mp4", "audio", "loud", "dev"),
        ("quiet.mp4", "audio", "", "dev"),
    )
    path = root / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "kind", "labels", "split"), *rows])
    return path


def pixels_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(film.streams.video[0])]


def test_a_photo_is_planted_in_its_box_and_nowhere_else(root: Path) -> None:
    made = plant(root / "grey.mp4", root / "red.png", (0.5, 0.25, 0.9, 0.75), root / "planted.mp4")
    assert made.note == "composed: red.png planted into grey.mp4"
    frames = pixels_of(made.path)
    assert len(frames) == 3 * 12
    before = pixels_of(root / "grey.mp4")[0]
    for frame in frames:
        height, width = frame.shape[:2]
        centre = frame[height // 2, round(0.7 * width)]
        assert centre[0] > 180
        assert centre[1] < 60
        left = np.abs(frame[:, : round(0.45 * width)].astype(int).mean(axis=(0, 1)) - before.mean(axis=(0, 1)))
        assert left.max() < 25  # the block that wanders is there, too


def test_a_film_gets_another_sound_or_silence_as_long_as_itself(root: Path) -> None:
    loud = accompany(root / "grey.mp4", root / "loud.mp4", root / "one.mp4")
    silent = accompany(root / "grey.mp4", None, root / "two.mp4")
    heard = {one.path.name: read_sound(one.path) for one in (loud, silent)}
    assert heard["one.mp4"].std() > 0.2
    assert np.abs(heard["two.mp4"]).max() < 1e-3
    for samples in heard.values():
        assert len(samples) == pytest.approx(3 * 16_000, abs=2_048)
    assert (loud.note, silent.note) == ("composed: loud.mp4 under grey.mp4", "composed: silence under grey.mp4")


def test_what_is_left_of_a_clip_stays_as_it_was(root: Path) -> None:
    both = accompany(root / "red.mp4", root / "loud.mp4", root / "both.mp4")
    blind = without(both, "picture", root / "blind.mp4")
    deaf = without(both, "sound", root / "deaf.mp4")
    assert np.array_equal(read_sound(blind.path), read_sound(both.path))
    assert all(np.array_equal(*pair) for pair in zip(pixels_of(deaf.path), pixels_of(both.path), strict=True))
    with av.open(str(blind.path)) as one, av.open(str(deaf.path)) as other:
        assert (len(one.streams.video), len(other.streams.audio)) == (0, 0)


def test_evidence_points_at_what_was_planted(stages: Stages, root: Path) -> None:
    box = (0.1, 0.1, 0.4, 0.5)
    made = plant(root / "grey.mp4", root / "red.png", box, root / "planted.mp4")
    clip = Clip("planted", made.path)
    shown = show(stages, {clip: ("seen", (0,))}, prompt_set(stages, ask_texts(["red"])))["planted", 0]
    assert shown.evidence.region is not None
    left, top, right, bottom = shown.evidence.region
    assert box[0] <= (left + right) / 2 <= box[2]
    assert box[1] <= (top + bottom) / 2 <= box[3]
    assert shown.heard is None


def test_true_evidence_is_measured_as_true(stages: Stages, manifest: Path, root: Path) -> None:
    folder = root / "made"
    folder.mkdir()
    found = measure_evidence(stages, manifest, root, folder, count=8, seen="red", heard=("loud",))
    assert found["composed"]
    pointing, senses = found["pointing"], found["senses"]
    assert pointing["clips"] == 8
    assert pointing["hits"] == 1
    assert pointing["region_centre_hits"] == 1
    assert 0 < pointing["chance"] < 0.25
    assert (senses["clips"], senses["right"]) == (8, 1)
    assert found["again"]["windows"] == 8
    assert found["again"]["largest_difference"] < 1e-6
    assert set(senses["by_prompt"]) == {"red", "loud"}


def test_two_senses_find_what_each_alone_misses(stages: Stages, manifest: Path, root: Path) -> None:
    folder = root / "made"
    folder.mkdir()
    found = measure_fusion(stages, manifest, root, folder, count=4, seen="red", heard=("loud",))
    assert found["clips"] == 12
    assert found["fused_ap"] == 1
    assert found["seen_ap"] < 1
    assert found["heard_ap"] < 1
    assert found["gain"] == pytest.approx(1 - max(found["seen_ap"], found["heard_ap"]))
    for lost in found["lost"].values():
        assert lost["alone"] == lost["fused_without_it"] == 1


def test_a_manifest_that_lacks_what_clips_are_made_of_is_refused(stages: Stages, manifest: Path, root: Path) -> None:
    with pytest.raises(EvaluationError, match="no image or video with label 'fire'"):
        measure_evidence(stages, manifest, root, root)
    with pytest.raises(EvaluationError, match="no video with label 'fire'"):
        measure_fusion(stages, manifest, root, root)
