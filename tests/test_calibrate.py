import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibrate import PRIOR, Calibration, fit_platt, fuse, recalibrate

MODALITY = np.array(["any", "both", "video", "audio"])


def fused(seen: float, heard: float) -> list[float]:
    both = [np.full((1, 4), value, np.float32) for value in (seen, heard)]
    return [float(value) for value in fuse(both[0], both[1], MODALITY)[0]]


def test_each_modality_joins_the_senses_its_own_way() -> None:
    assert fused(0.5, 0.4) == pytest.approx([0.7, 0.4, 0.5, 0.4])


def test_an_absent_sense_says_nothing() -> None:
    assert fused(float("nan"), 0.4) == pytest.approx([0.4, 0, 0, 0.4])
    assert fused(0.5, float("nan")) == pytest.approx([0.5, 0, 0.5, 0])
    assert fused(float("nan"), float("nan")) == [0, 0, 0, 0]


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_confidence_stays_between_0_and_1(seen: float, heard: float) -> None:
    assert all(0 <= value <= 1 for value in fused(seen, heard))


@given(st.floats(0.01, 0.99))
def test_the_score_of_a_probability_leads_back_to_it(probability: float) -> None:
    curve = Calibration(slope=24.0, bias=-13.0)
    score = curve.score(np.array([probability], np.float32))
    assert float(curve.probability(score)[0]) == pytest.approx(probability, abs=1e-4)


def test_extreme_scores_and_gaps_are_no_error() -> None:
    values = Calibration(slope=1e4, bias=0.0).probability(np.array([-1e9, 1e9, np.nan], np.float32))
    assert values[0] < 1e-9
    assert values[1] == 1
    assert np.isnan(values[2])


def test_the_shipped_curves_say_that_they_are_no_calibration() -> None:
    assert not PRIOR.trained


def test_platt_recovers_the_curve_that_labels_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.2, 0.7, 40_000)
    labels = (rng.random(40_000) < 1 / (1 + np.exp(-(20 * scores - 9)))).astype(float)
    slope, bias = fit_platt(scores, labels, np.ones(40_000))
    assert slope == pytest.approx(20, rel=0.05)
    assert bias == pytest.approx(-9, rel=0.05)


def test_a_few_marks_correct_a_prior_that_is_off() -> None:
    rng = np.random.default_rng(1)
    prior = Calibration(slope=20.0, bias=-10.0)
    truth = Calibration(slope=20.0, bias=-6.0)
    scores = rng.uniform(0.1, 0.6, 4000)
    chance = truth.probability(scores.astype(np.float32))
    labels = (rng.random(4000) < chance).astype(float)

    def error(count: int) -> float:
        own = recalibrate(prior, scores[:count], labels[:count])
        return float(np.abs(own.probability(scores.astype(np.float32)) - chance).mean())

    assert error(0) > error(20) > error(2000)
    assert error(2000) < 0.03


def test_without_marks_the_prior_stays() -> None:
    prior = Calibration(slope=20.0, bias=-10.0)
    assert recalibrate(prior, np.zeros(0), np.zeros(0)) is prior
    assert not recalibrate(prior, np.array([0.5]), np.array([1.0])).trained


def test_marks_that_contradict_the_ranking_do_not_turn_it_round() -> None:
    scores = np.linspace(0, 1, 200)
    assert recalibrate(Calibration(20.0, -10.0), scores, (scores < 0.5).astype(float)).slope > 0
