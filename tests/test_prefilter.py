import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from models import prefilter as prefilter_module
from models.aligner import Aligner
from models.load import load_encoders
from models.prefilter import ROUNDING, prefilter
from models.queries import Eighths, Queries
from streamer.bench.prefilter import film_pictures
from tests.footage import bikes

DIM = 16
MIX = 0.5


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.floats(-0.3, 0.9), st.floats(0, 0.4), st.integers(1, 6), st.booleans())
def test_by_the_proven_bound_no_match_is_lost(
    seed: int, floor: float, spread: float, count: int, is_one_by_one: bool
) -> None:
    cells = unit(count, 49, DIM, seed=seed)
    whole = normalize(cells.mean(1), dim=-1)
    queries = Queries.plain(unit(600, DIM, seed=seed + 1))
    floors = torch.linspace(floor - spread, floor, 600)
    floors[::50] = torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefilter_module, "FEW", 0 if is_one_by_one else 600)
        found = prefilter(cells, whole, MIX, queries, floors, lean=1.0)
    may_match = torch.zeros(count, 600, dtype=torch.bool)
    may_match[:, found.rows] = found.may_match
    is_match = Aligner(mix=MIX).pictures(cells, whole, queries) >= floors
    assert not (is_match & ~may_match).any()
    assert (found.estimates < floors).all()


def test_nobody_is_looked_at_whose_floor_is_infinite() -> None:
    cells = unit(3, 49, DIM)
    queries = Queries.plain(unit(600, DIM, seed=1))
    found = prefilter(cells, cells[:, 0], MIX, queries, torch.full((600,), torch.inf))
    assert not len(found.rows)
    assert found.estimates.isfinite().all()


def test_eight_bits_err_less_than_they_are_said_to() -> None:
    one, other = unit(500, 384), unit(300, 384, seed=1)
    products = Eighths.of_vectors(one).times(Eighths.of_vectors(other))
    assert float((products - one @ other.T).abs().max()) < ROUNDING


def test_on_real_frames_no_match_is_lost_and_few_prompts_are_looked_at() -> None:
    encoders = load_encoders(threads=1)
    made = encoders.picture.encode(film_pictures(bikes(), encoders.picture.size, most=12))
    words = [
        f"{what} {where}"
        for what in ("a bicycle", "a street", "a car", "an owl", "a ship", "bread")
        for where in ("", "in the rain", "at night", "by a river", "in a shop", "near a fence")
    ]
    vectors = torch.from_numpy(encoders.picture_text.encode(words))
    queries = Queries.plain(vectors)
    exact = Aligner().pictures(made.cells, made.whole, queries)
    floors = torch.full((len(words),), float(np.quantile(exact.numpy(), 0.95)))
    found = prefilter(made.cells, made.whole, MIX, queries, floors)
    may_match = torch.zeros_like(exact, dtype=torch.bool)
    may_match[:, found.rows] = found.may_match
    assert not ((exact >= floors) & ~may_match).any()
    assert may_match.float().mean() < 0.2
