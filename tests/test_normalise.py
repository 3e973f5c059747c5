import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import normalise
from models.aligner import Aligner
from models.errors import ModelError
from models.load import load_encoders
from models.normalise import Normaliser, Ordinary, Scales, Scaling, load_normaliser
from models.queries import Queries


def unit(count: int, dim: int, seed: int) -> torch.Tensor:
    rows = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32))
    return torch.nn.functional.normalize(rows, dim=-1)


def bank(floor: float = 0.0) -> Ordinary:
    tokens = unit(20 * 4, 16, 0).view(20, 4, 16)
    return Ordinary(tokens, unit(20, 16, 1), mean=0.3, spread=0.05, floor=floor)


def test_ordinary_scores_of_every_prompt_get_the_same_mean_and_spread() -> None:
    ordinary, prompts = bank(), unit(5, 16, 2)
    scores = ordinary.scaling(prompts)(Aligner().pictures(ordinary.tokens, ordinary.whole, Queries.plain(prompts)))
    torch.testing.assert_close(scores.mean(0), torch.full((5,), 0.3))
    torch.testing.assert_close(scores.std(0, correction=0), torch.full((5,), 0.05))


def test_a_prompt_that_never_varies_is_not_blown_up() -> None:
    still = Ordinary(unit(1, 16, 0).expand(9, 1, 16), unit(1, 16, 0).expand(9, 16), mean=0.3, spread=0.05, floor=0.06)
    assert float(still.scaling(unit(1, 16, 3)).scale[0]) == pytest.approx(0.11 / 0.06, rel=1e-3)


@given(st.floats(-1, 1), st.floats(0.2, 5), st.floats(-1, 1))
def test_a_floor_leads_back_to_the_raw_score(score: float, scale: float, offset: float) -> None:
    scaling = Scaling(torch.tensor([scale]), torch.tensor([offset]))
    back = scaling.back(scaling(torch.tensor([score])))
    assert float(back[0]) == pytest.approx(score, abs=1e-4)


def test_an_infinite_floor_stays_infinite() -> None:
    assert torch.isinf(Scaling(torch.tensor([2.0]), torch.tensor([1.0])).back(torch.tensor([float("inf")]))).all()


def test_the_order_of_one_prompts_scores_stays() -> None:
    scaling = bank(0.06).scaling(unit(3, 16, 4))
    assert (scaling.scale > 0).all()


def test_a_prompt_that_stood_already_is_not_scored_again() -> None:
    class Counting(Ordinary):
        def scaling(self, vectors: torch.Tensor) -> Scaling:
            asked.append(len(vectors))
            return super().scaling(vectors)

    asked: list[int] = []
    ordinary = bank()
    scales = Scales(Counting(ordinary.tokens, ordinary.whole, 0.3, 0.05, 0.0))
    prompts = unit(4, 16, 5)
    first = scales.of(prompts[:3])
    second = scales.of(prompts[1:])
    assert asked == [3, 1]
    torch.testing.assert_close(second.scale[:2], first.scale[1:])
    assert len(scales.of(prompts[:0]).scale) == 0


def test_without_a_bank_scores_stay_as_they_are() -> None:
    scores = torch.rand(2, 3)
    assert torch.equal(Scales(Normaliser().seen).of(unit(3, 16, 6))(scores), scores)


def test_the_bank_fits_the_shipped_encoders_and_brings_sentences_up_to_names() -> None:
    encoders = load_encoders(threads=1)
    normaliser = load_normaliser(encoders)
    assert normaliser.seen is not None
    assert normaliser.heard is not None
    prompts = torch.from_numpy(encoders.picture_text.encode(["bicycle", "a person riding a bicycle down the street"]))
    raw = Aligner().pictures(normaliser.seen.tokens, normaliser.seen.whole, Queries.plain(prompts))
    spreads = normaliser.seen.scaling(prompts)(raw).std(0)
    assert abs(float(spreads.diff())) < abs(float(raw.std(0).diff()))


def test_an_altered_bank_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalise, "BANK_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="altered"):
        load_normaliser(load_encoders(threads=1))
