"""The curve of prompts that nothing was trained for."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import ModelError
from models.load import load_encoders
from models.train.prior import PREVALENCE, fit_prior, score_labels
from models.train.token_cache import Case, TokenCache, licensed

DATA = Path(__file__).parent / "data"


def a_case(path: str, *labels: str) -> Case:
    return Case(path, "image", frozenset(labels), "g", "train", is_licensed=True)


def test_the_prior_is_fitted_as_if_one_in_ten_held() -> None:
    """Scores from a curve whose labels hold half of the time: at that share the fit's mean must be a tenth's."""
    rng = np.random.default_rng(3)
    scored = []
    for number in range(4000):
        is_there = number % 2 == 0
        score = rng.normal(0.7 if is_there else 0.4, 0.1, 1).astype(np.float32)
        scored.append((a_case(f"{number}.jpg", *(("fire",) if is_there else ())), ["fire"], score))
    curve = fit_prior(scored)
    # Two normal distributions of one width: the logit is a line, (0.7 - 0.4) / 0.1**2 steep, and level at the middle
    # but for the prevalence.
    slope = 0.3 / 0.1**2
    bias = -slope * 0.55 + np.log(PREVALENCE["raw"] / (1 - PREVALENCE["raw"]))
    assert curve.slope == pytest.approx(slope, rel=0.06)
    assert curve.bias == pytest.approx(bias, rel=0.06)
    assert not curve.trained


def test_the_prior_counts_every_pair_of_a_file_and_a_prompt() -> None:
    one = a_case("a.jpg", "fire")
    scored = [(one, ["fire", "smoke"], np.array([0.8, 0.2], np.float32))] * 50
    curve = fit_prior([*scored, (one, ["fire", "smoke"], np.array([0.3, 0.6], np.float32))])
    assert curve.slope > 0
    probability = curve.probability(np.array([0.2, 0.8], np.float32))
    assert probability[0] < 0.1 < probability[1]


def test_only_licensed_rows_of_train_are_fitted(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    rows = ("a.jpg,image,fire;smoke,g,train,yes", "b.jpg,image,fire,g,train,no", "c.jpg,image,fire,g,dev,yes")
    manifest.write_text("\n".join(("path,kind,labels,group,split,train_ok", *rows, "d.ogg,audio,,g,train,yes")))
    assert [(case.path, case.labels) for case in licensed(manifest)] == [
        ("a.jpg", {"fire", "smoke"}),
        ("d.ogg", frozenset()),
    ]


def test_without_a_licensed_row_nothing_is_fitted(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,kind,labels,group,split,train_ok\na.jpg,image,fire,g,train,no\n")
    with pytest.raises(ModelError, match="no row with split train and train_ok yes"):
        licensed(manifest)


def test_a_label_is_asked_of_the_kinds_of_file_that_have_it(tmp_path: Path) -> None:
    cache = TokenCache(DATA, tmp_path, encoders := load_encoders(threads=1))
    files = (("ingest_siren.ogg", "audio", "siren"), ("sound_baby.ogg", "audio", "crying baby"))
    cases = [Case(path, kind, frozenset({label}), "g", "train", is_licensed=True) for path, kind, label in files]
    cars = Case("ingest_cars.mp4", "video", frozenset({"car"}), "g", "train", is_licensed=True)
    found = {case.path: (texts, scores) for case, texts, scores in score_labels([*cases, cars], cache, encoders)}
    assert found["ingest_cars.mp4"][0] == ["car"]
    for path, _, label in files:
        texts, scores = found[path]
        assert texts == ["crying baby", "siren"]
        assert texts[int(scores.argmax())] == label
