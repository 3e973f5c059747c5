import pytest
import torch

from models.aligner import Aligner
from models.normalise import Ordinary
from models.prototypes import Example, Looks, draw_towards, looks_of, pack
from models.queries import Queries

DIM = 32


def unit(*shape: int, seed: int) -> torch.Tensor:
    made = torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=-1)


def like(direction: torch.Tensor, seed: int, noise: float = 0.5) -> Example:
    tokens = torch.nn.functional.normalize(direction + noise * unit(3, 4, seed=seed), dim=-1)
    return Example(tokens, torch.nn.functional.normalize(tokens.mean(1), dim=-1))


ORDINARY = Ordinary(unit(40, 4, seed=0), unit(40, seed=1), mean=0.3, spread=0.05, floor=0.06)
KIND, TEXT = unit(1, seed=2)[0], unit(1, seed=3)[0]


def score(query: torch.Tensor, example: Example) -> float:
    return float(Aligner().pictures(example.tokens, example.whole, Queries.plain(query[None])).amax())


def test_a_query_with_examples_finds_others_of_their_kind() -> None:
    query = draw_towards(TEXT, [like(KIND, seed) for seed in range(10, 15)], ORDINARY)
    torch.testing.assert_close(query.norm(), torch.tensor(1.0))
    others = [like(KIND, seed) for seed in range(20, 25)]
    assert min(score(query, other) for other in others) > max(score(TEXT, other) for other in others) + 0.2


def test_text_keeps_its_say_where_it_fits_and_examples_differ() -> None:
    mixed = [like(TEXT + unit(1, seed=seed)[0], seed, noise=1.0) for seed in range(30, 35)]
    alike = [like(KIND, seed) for seed in range(30, 35)]
    assert float(draw_towards(TEXT, mixed, ORDINARY) @ TEXT) > float(draw_towards(TEXT, alike, ORDINARY) @ TEXT)


def test_one_example_is_enough_to_lean_on() -> None:
    assert float(draw_towards(TEXT, [like(KIND, 40)], ORDINARY) @ KIND) > float(TEXT @ KIND)


FEATURES = 40


def featured(seed: int, *extra: int, count: int = 3) -> torch.Tensor:
    made = torch.rand(count, FEATURES, generator=torch.Generator().manual_seed(seed))
    made[:, list(extra)] += 4
    return made


SEEN = Ordinary(unit(60, 4, seed=0), unit(60, seed=1), 0.36, 0.04, 0.06, featured(0, count=60))


def shown(seed: int, *extra: int) -> Example:
    return Example(unit(3, 4, seed=seed), unit(3, seed=seed), featured(seed, *extra))


def looks(*examples: Example) -> Looks:
    direction = looks_of(examples, SEEN)
    assert direction is not None
    made = Looks.of({1: pack(direction)}, SEEN)
    assert made is not None
    return made


def test_frames_that_depart_from_the_ordinary_as_examples_do_score_higher() -> None:
    found = looks(*(shown(seed, 3, 7) for seed in range(1, 6)))
    assert found.rows.tolist() == [1]
    alike, others = found(featured(50, 3, 7, count=20))[:, 0], found(featured(51, count=200))[:, 0]
    assert float(alike.min()) > float(others.max())
    assert float(others.mean()) == pytest.approx(0.36, abs=0.02)
    assert float(alike.mean()) > 0.574  # where the common curve gives one half
    assert float((others > 0.574).float().mean()) < 0.01


def test_what_is_unlike_both_is_no_more_like_the_examples() -> None:
    found = looks(*(shown(seed, 3, 7) for seed in range(1, 6)))
    strange = found(featured(52, 20, 21, count=20))[:, 0]
    assert float(strange.max()) < float(found(featured(50, 3, 7, count=20)).min())


def test_without_features_there_are_no_looks() -> None:
    direction = pack(torch.nn.functional.normalize(torch.randn(FEATURES), dim=0))
    assert looks_of([shown(1)], ORDINARY) is None
    assert looks_of([like(KIND, 1)], SEEN) is None
    assert Looks.of({0: direction}, ORDINARY) is None
    assert Looks.of({0: direction}, None) is None
    assert Looks.of({0: direction[:-1]}, SEEN) is None
    assert Looks.of({}, SEEN) is None
