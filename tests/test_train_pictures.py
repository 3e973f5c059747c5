"""Training of what is seen and what moves, on pictures made here."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import ModelError
from models.evaluate.media import read_picture
from models.learned import load_learned_file
from models.load import load_picture
from models.motion import busiest_square, crop, speeds
from models.train.augment import Camera
from models.train.collage import cells_inside, paste
from models.train.features import FeatureCache, stretches
from models.train.folds import area_under_roc, average_precision, grouped_folds
from models.train.linear import fit_linear
from models.train.pictures import SEEN, Sources, train_pictures
from models.train.token_cache import licensed
from tests.checkpoints import write_clip
from tests.colours import ColourPictures, Words, make_film

SHORT = replace(SEEN, net={"width": 8, "heads": 2, "layers": 0}, epochs=6, batch=8, rate=0.02)
GREY = (110, 110, 110)


class _FireWords(Words):
    """Everything that speaks of fire or flames is red, everything of fights is green."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        found = super().encode(texts)
        for number, text in enumerate(texts):
            words = set(text.replace(",", "").split())
            axis = 0 if words & {"fire", "flame", "burning"} else 1 if words & {"fight", "fighting"} else None
            if axis is not None:
                found[number] = 0.02 * found[number]
                found[number, axis] = 1
                found[number] /= np.linalg.norm(found[number])
        return found


def a_manifest(folder: Path) -> Path:
    """Red photos are fire; in some films a block wanders, and those are fights."""
    rows = []
    for number in range(20):
        picture = np.full((64, 96, 3), GREY, np.uint8)
        is_fire = number % 2 == 0
        picture[10:50, 20:70] = (10, 10, 230) if is_fire else (200, 80 + 5 * number, 10)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        rows.append((f"{number}.png", "image", "fire" if is_fire else "", f"photo-{number}", "train", "yes"))
    for number in range(10):
        moves = number % 2 == 0
        make_film(folder / f"{number}.mp4", [("grey", 2.0)], is_moving=moves)
        rows.append((f"{number}.mp4", "video", "fight" if moves else "", f"camera-{number}", "train", "yes"))
    rows.append(("secret.png", "image", "fire", "secret", "train", "no"))
    rows.append(("later.png", "image", "fire", "later", "dev", "yes"))
    path = folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "kind", "labels", "group", "split", "train_ok"))
        writer.writerows(rows)
    return path


def test_training_learns_from_licensed_rows_alone_and_the_same_each_time(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    cases = licensed(manifest)
    assert not {"secret.png", "later.png"} & {case.path for case in cases}
    weights = []
    for run in ("first", "second"):
        cache = FeatureCache(tmp_path, tmp_path / run, ColourPictures())
        sources = Sources(cases, tmp_path, cache, ColourPictures(), _FireWords(), 0, collages=8, seen=SHORT)
        figures = train_pictures(sources, tmp_path / f"{run}.safetensors")
        assert set(figures) == {"seen", "moved"}
        assert (cache.folder / "curves.csv").is_file()
        assert (cache.folder / "curves.png").is_file()
        weights.append((tmp_path / f"{run}.safetensors").read_bytes())
    assert weights[0] == weights[1]
    learned = load_learned_file(tmp_path / "first.safetensors")
    assert learned.seen is not None
    assert learned.moved is not None
    fire = torch.from_numpy(_FireWords().encode(["fire"]))
    assert float(learned.seen.route(fire)) > 0
    logits = []
    for name in ("0.png", "1.png"):
        made = ColourPictures().encode(read_picture(tmp_path / name, 224))
        logits.append(float(learned.seen.logits(made.cells, made.whole, fire)))
    assert logits[0] > logits[1] + 1


def test_the_same_trains_on_the_tokens_of_another_family(tmp_path: Path) -> None:
    cases = licensed(a_manifest(tmp_path))
    (tmp_path / "clip").mkdir()
    encoder, text = load_picture("clip", str(write_clip(tmp_path / "clip")))
    cache = FeatureCache(tmp_path, tmp_path / "features", encoder)
    train_pictures(
        Sources(cases, tmp_path, cache, encoder, text, 0, collages=4, seen=SHORT), tmp_path / "clip.safetensors"
    )
    learned = load_learned_file(tmp_path / "clip.safetensors")
    assert learned.encoder == encoder.name
    assert learned.seen is not None
    made = encoder.encode(read_picture(tmp_path / "0.png", encoder.size))
    queries = torch.from_numpy(text.encode(["fire", "people fighting"]))
    assert learned.seen.logits(made.cells, made.whole, queries).isfinite().all()


def test_a_manifest_without_licensed_rows_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,kind,labels,group,split,train_ok\na.png,image,fire,a,train,no\n", encoding="utf-8")
    with pytest.raises(ModelError, match="train_ok"):
        licensed(manifest)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=10, max_size=60), st.integers(0, 3))
@settings(deadline=None)
def test_no_group_is_in_two_folds(items: list[tuple[bool, int]], seed: int) -> None:
    labels = np.array([label for label, _ in items])
    groups = [str(group) for _, group in items]
    fold = grouped_folds(labels, groups, 3, seed)
    assert all(len({fold[row] for row, group in enumerate(groups) if group == name}) == 1 for name in groups)
    assert set(fold.tolist()) <= {0, 1, 2}


def test_folds_share_the_positives() -> None:
    labels = np.array([True] * 10 + [False] * 20)
    fold = grouped_folds(labels, [str(number) for number in range(30)], 5, 0)
    assert [int(labels[fold == number].sum()) for number in range(5)] == [2] * 5


def test_figures_are_those_of_the_textbook() -> None:
    labels, scores = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1])
    assert area_under_roc(labels, scores) == pytest.approx(0.75)
    assert average_precision(labels, scores) == pytest.approx((1 + 2 / 3) / 2)
    assert area_under_roc(labels, np.zeros(4)) == pytest.approx(0.5)


def test_a_linear_fit_finds_the_number_that_tells() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(200, 12)
    labels = (tokens[:, 3] + 0.3 * torch.randn(200) > 0).float()
    slope, bias = fit_linear(tokens, labels, torch.ones(200), 1.0)
    assert int(slope.abs().argmax()) == 3
    assert float((((tokens @ slope + bias) > 0) == (labels > 0)).float().mean()) > 0.85


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_a_camera_films_alike_each_time_and_keeps_the_shape(seed: int) -> None:
    frames = np.random.default_rng(1).integers(0, 255, (2, 96, 128, 3), np.uint8)
    camera = Camera.draw(np.random.default_rng(seed))
    filmed = camera.film(frames)
    assert filmed.shape == frames.shape
    assert filmed.dtype == np.uint8
    assert np.array_equal(filmed, camera.film(frames))
    if camera.is_grey:
        assert float(np.abs(np.diff(filmed.astype(int), axis=-1)).mean()) < 12


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_a_collage_differs_from_the_scene_in_its_box_alone(seed: int) -> None:
    scene, photo = np.full((140, 210, 3), 90, np.uint8), np.full((50, 50, 3), 200, np.uint8)
    made = paste(scene, photo, np.random.default_rng(seed))
    rows, columns = np.nonzero((made.pixels != scene).any(-1))
    x0, y0, x1, y1 = made.box
    assert columns.min() >= x0 * 210 - 1e-6
    assert columns.max() < x1 * 210 + 1e-6
    assert rows.min() >= y0 * 140 - 1e-6
    assert rows.max() < y1 * 140 + 1e-6
    covered = cells_inside(made.box, (7, 7))
    assert covered.sum() == pytest.approx((x1 - x0) * (y1 - y0) * 49, rel=1e-4)


def test_the_square_lies_where_it_moves_and_a_moving_camera_is_no_motion() -> None:
    texture = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    texture = cv2.GaussianBlur(texture, (0, 0), 3)
    still = np.repeat(texture[:224, :224, None], 3, 2)
    frames = np.stack([still] * 4)
    for number in range(4):
        frames[number, 20:84, 140:204] = texture[100:164, 60 + 3 * number : 124 + 3 * number, None]
    x, y, side = busiest_square(speeds(frames, 0.125).mean(0))
    assert abs(x - 172 / 224) < 0.12
    assert abs(y - 52 / 224) < 0.12
    assert crop(frames, (x, y, side), 224).shape == frames.shape
    panned = np.stack([np.repeat(texture[:224, 3 * number : 224 + 3 * number, None], 3, 2) for number in range(4)])
    assert float(speeds(panned, 0.125).mean()) < 0.3 * float(speeds(frames, 0.125).max())


def test_stretches_are_seconds_and_short_tails_are_left_out() -> None:
    frames = np.zeros((19, 2, 2, 3), np.uint8)
    assert [len(part) for part in stretches(frames)] == [8, 8]
    assert [len(part) for part in stretches(frames[:12])] == [8, 4]
