"""Labelled files to tables: with encoders that see colours, and once with the shipped ones on real media."""

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import load
from models.calibrate import PRIOR
from models.evaluate import EvaluationError, evaluate, read_manifest
from models.evaluate.manifest import Item
from models.evaluate.media import read_frames, read_sound
from models.train.prior import PREVALENCE, fit_prior, licensed
from streamer.cli.evaluate import evaluate as command
from tests.colours import colour_encoders, make_film

DATA = Path(__file__).parent / "data"
COLUMNS = ("path", "prompt", "score")


def write_rows(path: Path, header: Sequence[str], *rows: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def a_manifest(folder: Path, *rows: Sequence[str]) -> Path:
    return write_rows(folder / "manifest.csv", ("path", "kind", "labels", "split"), *rows)


def table(path: Path) -> dict[tuple[str, str], float]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        rows = list(reader)
    found = {(row["path"], row["prompt"]): float(row["score"]) for row in rows}
    assert len(found) == len(rows), "a file has a prompt twice"
    assert all(0 <= score <= 1 for score in found.values())
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A red and a blue film, the red one with a tone, and a photo of each colour."""
    folder = tmp_path / "media"
    folder.mkdir()
    make_film(folder / "red.mp4", [("red", 1.0)], tones=[(0.0, 1.0)])
    make_film(folder / "blue.mp4", [("blue", 1.0)])
    for name, colour in (("red", (10, 10, 230)), ("green", (10, 200, 10))):  # OpenCV's order: blue, green, red
        cv2.imwrite(str(folder / f"{name}.png"), np.full((96, 160, 3), colour, np.uint8))
    return folder


def test_every_file_is_scored_on_every_prompt_of_its_kind_and_on_no_other(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(
        tmp_path,
        ("red.mp4", "video", "red", "dev"),
        ("blue.mp4", "video", "blue; cold", "dev"),
        ("red.png", "image", "red", "dev"),
        ("green.png", "image", "", "dev"),
        ("red.mp4", "audio", "loud", "other"),
    )
    written = evaluate(manifest, root, tmp_path / "out", encoders=colour_encoders())
    assert set(written) == {"predictions"}
    scores = table(written["predictions"])
    films = {(film, prompt) for film in ("red.mp4", "blue.mp4") for prompt in ("red", "blue", "cold")}
    assert set(scores) == films | {("red.png", "red"), ("green.png", "red")}
    assert scores["red.mp4", "red"] > scores["red.mp4", "blue"]
    assert scores["blue.mp4", "blue"] > scores["blue.mp4", "red"]
    assert scores["red.png", "red"] > scores["green.png", "red"]


def test_without_a_split_all_are_scored_sound_too(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, ("blue.mp4", "video", "blue", "dev"), ("red.mp4", "audio", "loud", "test"))
    scores = table(evaluate(manifest, root, tmp_path / "out", encoders=colour_encoders(), split=None)["predictions"])
    assert set(scores) == {("blue.mp4", "blue"), ("red.mp4", "loud")}
    assert scores["red.mp4", "loud"] > 0.5


def test_names_and_captions_are_scored_on_every_photo(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "load_encoders", lambda **_: colour_encoders())
    out = tmp_path / "deep" / "out"
    command(
        manifest=a_manifest(tmp_path, ("red.png", "image", "red", "dev")),
        root=root,
        out=out,
        open_vocab=write_rows(root / "names.csv", ("path", "name"), ("red.png", "red"), ("green.png", "green")),
        captions=write_rows(root / "captions.csv", ("path", "caption"), ("red.png", "a wall"), ("red.png", "red")),
    )
    assert capsys.readouterr().out.split() == [
        str(out / name) for name in ("predictions.csv", "open_vocab.csv", "captions.csv")
    ]
    names = table(out / "open_vocab.csv")
    assert set(names) == {(photo, name) for photo in ("red.png", "green.png") for name in ("red", "green")}
    assert names["red.png", "red"] > names["red.png", "green"]
    assert names["green.png", "green"] > names["green.png", "red"]
    assert set(table(out / "captions.csv")) == {("red.png", "a wall"), ("red.png", "red")}


def test_a_file_that_is_not_there_is_named_and_no_half_table_is_left(root: Path, tmp_path: Path) -> None:
    for kind in ("video", "image", "audio"):
        manifest = a_manifest(tmp_path, ("red.mp4", "video", "red", "dev"), (f"no.{kind}", kind, "red", "dev"))
        with pytest.raises(EvaluationError, match=rf"no\.{kind}"):
            evaluate(manifest, root, tmp_path / "out", encoders=colour_encoders())
        assert not (tmp_path / "out" / "predictions.csv").exists()


@pytest.mark.parametrize(
    ("rows", "split", "says"),
    [
        ([("a.mp4", "vidoe", "red", "dev")], "dev", "a.mp4 is of kind 'vidoe'; video, image, audio are read"),
        ([("a.mp4", "video", "red", "train")], "dev", "no item of split 'dev'"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(
    rows: list[tuple[str, ...]], split: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=says):
        read_manifest(a_manifest(tmp_path, *rows), split)


def test_a_list_without_its_columns_is_refused_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"lacks column\(s\) kind, labels, split; it has \['path'\]"):
        read_manifest(write_rows(tmp_path / "manifest.csv", ("path",), ("a.mp4",)))
    with pytest.raises(EvaluationError, match="cannot be read as CSV"):
        read_manifest(DATA / "ingest_cars.mp4")


def test_frames_are_taken_at_the_rate_and_sound_at_16_khz() -> None:
    frames = read_frames(DATA / "ingest_cars.mp4", 64, 2.0)
    assert frames.shape[1:] == (64, 64, 3)
    assert len(frames) == pytest.approx(16, abs=1)  # eight seconds
    sound = read_sound(DATA / "ingest_siren.ogg")
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(4.5 * 16_000, rel=0.05)
    with pytest.raises(EvaluationError, match="cannot be decoded as video"):
        read_frames(DATA / "ingest_siren.ogg", 64, 2.0)


@pytest.mark.slow
def test_the_shipped_encoders_rank_real_media_the_same_each_time(tmp_path: Path) -> None:
    manifest = a_manifest(
        tmp_path,
        ("ingest_cars.mp4", "video", "car;dog", "dev"),
        ("ingest_siren.ogg", "audio", "siren", "dev"),
        ("sound_baby.ogg", "audio", "crying baby", "dev"),
        ("sound_gunshot.ogg", "audio", "gunshot", "dev"),
    )
    encoders = load.load_encoders(device="cpu")
    tables = [evaluate(manifest, DATA, tmp_path / out, encoders=encoders)["predictions"] for out in ("one", "two")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    scores = table(tables[0])
    assert len(scores) == 2 + 3 * 3
    assert scores["ingest_cars.mp4", "car"] > scores["ingest_cars.mp4", "dog"]
    for file, label in (("ingest_siren.ogg", "siren"), ("sound_baby.ogg", "crying baby")):
        assert max(("siren", "crying baby", "gunshot"), key=lambda prompt: scores[file, prompt]) == label


def test_the_prior_is_fitted_as_if_one_in_ten_held() -> None:
    """Scores from a curve whose labels hold half of the time: at that share the fit's mean must be a tenth's."""
    rng = np.random.default_rng(3)
    scored = []
    for number in range(4000):
        is_there = number % 2 == 0
        score = rng.normal(0.7 if is_there else 0.4, 0.1, 1).astype(np.float32)
        scored.append((Item(f"{number}.jpg", "image", ("fire",) if is_there else (), "train"), ["fire"], score))
    curve = fit_prior(scored)
    # Two normal distributions of one width: the logit is a line, (0.7 - 0.4) / 0.1**2 steep, and level at the middle
    # but for the prevalence.
    slope = 0.3 / 0.1**2
    bias = -slope * 0.55 + np.log(PREVALENCE / (1 - PREVALENCE))
    assert curve.slope == pytest.approx(slope, rel=0.06)
    assert curve.bias == pytest.approx(bias, rel=0.06)
    assert not curve.trained


def test_the_prior_counts_every_pair_of_a_file_and_a_prompt() -> None:
    one = Item("a.jpg", "image", ("fire",), "train")
    scored = [(one, ["fire", "smoke"], np.array([0.8, 0.2], np.float32))] * 50
    curve = fit_prior([*scored, (one, ["fire", "smoke"], np.array([0.3, 0.6], np.float32))])
    assert curve.slope > 0
    probability = curve.probability(np.array([0.2, 0.8], np.float32))
    assert probability[0] < 0.1 < probability[1]


def test_only_licensed_rows_of_train_are_fitted(tmp_path: Path) -> None:
    manifest = write_rows(
        tmp_path / "manifest.csv",
        ("path", "kind", "labels", "split", "train_ok"),
        ("a.jpg", "image", "fire;smoke", "train", "yes"),
        ("b.jpg", "image", "fire", "train", "no"),
        ("c.jpg", "image", "fire", "dev", "yes"),
        ("d.ogg", "audio", "", "train", "yes"),
    )
    assert licensed(manifest) == [
        Item("a.jpg", "image", ("fire", "smoke"), "train"),
        Item("d.ogg", "audio", (), "train"),
    ]


def test_scores_are_told_as_probabilities(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, ("red.png", "image", "red", "dev"))
    scores = table(evaluate(manifest, root, tmp_path / "out", encoders=colour_encoders())["predictions"])
    raw = PRIOR.seen.score(np.array([scores["red.png", "red"]], np.float32))
    assert 0.8 < float(raw[0]) <= 1.01  # the photo is that colour: a similarity near 1
