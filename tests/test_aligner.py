import math

import pytest
import torch
from torch.nn.functional import normalize

from models import aligner as aligner_module
from models.aligner import PREFILTER_FROM, Aligner, best_frames
from models.queries import Queries

DIM = 16
MANY = PREFILTER_FROM // 98 + 1  # prompts, of two frames with 49 cells


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def frames(count: int = 3, cells: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = unit(count, cells, DIM, seed=seed)
    return tokens, normalize(tokens.mean(1), dim=-1)


def scored_slowly(cells: torch.Tensor, whole: torch.Tensor, query: torch.Tensor) -> float:
    """The formula, one frame and one prompt at a time."""
    similarity = [float(cell @ query) for cell in cells]
    weights = [math.exp(value / 0.02) for value in similarity]
    attended = sum(w * s for w, s in zip(weights, similarity, strict=True)) / sum(weights)
    return 0.5 * attended + 0.5 * float(whole @ query)


def test_scores_follow_the_formula() -> None:
    cells, whole = frames()
    queries = unit(5, DIM, seed=1)
    scores = Aligner().pictures(cells, whole, Queries.plain(queries))
    for frame in range(3):
        for prompt in range(5):
            expected = scored_slowly(cells[frame], whole[frame], queries[prompt])
            assert scores[frame, prompt] == pytest.approx(expected, abs=1e-5)


def test_sounds_are_scored_like_pictures() -> None:
    cells, whole = frames()
    queries = Queries.plain(unit(5, DIM, seed=1))
    torch.testing.assert_close(Aligner().sounds(cells, whole, queries), Aligner().pictures(cells, whole, queries))


def test_chunks_of_prompts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cells, whole = frames()
    queries = Queries(unit(20, DIM, seed=1), unit(7, DIM, seed=2), torch.tensor([0, 3, 3, 4, 8, 19, 19]))
    at_once = Aligner().pictures(cells, whole, queries)
    monkeypatch.setattr(aligner_module, "CHUNK_SCORES", 60)
    torch.testing.assert_close(Aligner().pictures(cells, whole, queries), at_once)


def test_a_small_thing_counts_more_than_its_share_of_the_picture() -> None:
    cells, _ = frames(2, 49)
    query = unit(1, DIM, seed=5)
    cells[1, 17] = query[0]
    whole = normalize(cells.mean(1), dim=-1)
    without, with_thing = Aligner().pictures(cells, whole, Queries.plain(query))[:, 0]
    assert with_thing > without + 0.1
    assert int(Aligner().attention(cells[1], query[0]).argmax()) == 17


def test_attention_sums_to_one_and_keeps_to_the_allowed_cells() -> None:
    cells, _ = frames(1)
    allowed = torch.zeros(9, dtype=torch.bool)
    allowed[[2, 5]] = True
    attention = Aligner().attention(cells[0], unit(DIM, seed=1), allowed)
    assert float(attention.sum()) == pytest.approx(1)
    assert not attention[~allowed].any()


def test_a_prompt_with_a_region_knows_nothing_of_the_rest() -> None:
    cells, whole = frames(2)
    cells[1, :4] = cells[0, :4]
    allowed = torch.ones(3, 9, dtype=torch.bool)
    allowed[1, 4:] = False
    scores = Aligner().pictures(cells, whole, Queries.plain(unit(3, DIM, seed=1)), allowed)
    assert scores[0, 1] == pytest.approx(float(scores[1, 1]), abs=1e-6)
    assert abs(float(scores[0, 0] - scores[1, 0])) > 1e-3


def test_a_region_of_one_cell_scores_as_that_cell() -> None:
    cells, whole = frames(1)
    query = unit(2, DIM, seed=1)
    allowed = torch.ones(2, 9, dtype=torch.bool)
    allowed[0] = False
    allowed[0, 6] = True
    scores = Aligner().pictures(cells, whole, Queries.plain(query), allowed)
    assert scores[0, 0] == pytest.approx(float(cells[0, 6] @ query[0]), abs=1e-5)


def test_a_contrast_that_fits_better_costs_its_lead_and_another_costs_nothing() -> None:
    cells, whole = frames(1)
    prompts, contrast = unit(2, DIM, seed=1), unit(2, DIM, seed=2)
    plain = Aligner().pictures(cells, whole, Queries.plain(prompts))[0]
    against = Aligner().pictures(cells, whole, Queries.plain(contrast))[0]
    scores = Aligner().pictures(cells, whole, Queries(prompts, contrast, torch.tensor([0, 1])))[0]
    torch.testing.assert_close(scores, plain - (against - plain).clamp_min(0))
    assert (against > plain).any()
    assert (against < plain).any()


def test_no_frames_and_no_prompts_give_empty_scores() -> None:
    cells, whole = frames()
    assert Aligner().pictures(cells[:0], whole[:0], Queries.plain(unit(4, DIM))).shape == (0, 4)
    assert Aligner().pictures(cells, whole, Queries.plain(unit(4, DIM)[:0])).shape == (3, 0)


def test_under_the_floor_an_estimate_stays_under_the_floor() -> None:
    cells, whole = frames(4, 49)
    queries = Queries.plain(unit(MANY, DIM, seed=1))
    floors = torch.full((len(queries),), 0.5)
    exact = Aligner().pictures(cells, whole, queries)
    filtered = Aligner().pictures(cells, whole, queries, floors=floors)
    is_exact = (filtered - exact).abs() < 1e-5
    assert (filtered[~is_exact] < 0.5).all()
    assert is_exact[exact >= 0.5].float().mean() > 0.9  # random vectors lean more than real ones
    assert not is_exact.all()


def test_the_prefilter_spares_nobody_whose_contrast_fits_better() -> None:
    cells, whole = frames(2, 49)
    prompts = unit(MANY, DIM, seed=1)
    queries = Queries(prompts, prompts[:5].roll(1, 0), torch.arange(5))
    floors = torch.full((len(queries),), -1.0)
    torch.testing.assert_close(
        Aligner().pictures(cells, whole, queries, floors=floors), Aligner().pictures(cells, whole, queries)
    )


def test_a_prompt_with_a_region_passes_the_prefilter() -> None:
    cells, whole = frames(2, 49)
    queries = Queries.plain(unit(MANY, DIM, seed=1))
    allowed = torch.ones(MANY, 49, dtype=torch.bool)
    allowed[7, 3:] = False
    floors = torch.full((MANY,), 0.95)
    filtered = Aligner().pictures(cells, whole, queries, allowed, floors)
    torch.testing.assert_close(filtered[:, 7], Aligner().pictures(cells, whole, queries, allowed)[:, 7])


def test_a_window_takes_its_best_frame() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.5, 0.2], [0.3, 0.4]])
    best, row = best_frames(scores, torch.tensor([0, 1, 2]), torch.tensor([2, 3, 2]))
    torch.testing.assert_close(best[:2], torch.tensor([[0.5, 0.9], [0.5, 0.4]]))
    assert row[:2].tolist() == [[1, 0], [1, 2]]
    assert best[2].isnan().all()
    assert row[2].tolist() == [-1, -1]
