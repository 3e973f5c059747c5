import torch

from models.aligner import Aligner
from models.normalise import Ordinary
from models.prototypes import Example, draw_towards
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
