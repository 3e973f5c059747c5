"""The trained part: its gate, its file, and that it leaves alone what it does not know."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from models.calibrate import PRIOR
from models.errors import ModelError
from models.learned import AttentionNet, LearnedSense, blend, fit_gate, load_learned_file, save_senses, score_units

DIM = 16


def _near(middle: torch.Tensor, count: int) -> torch.Tensor:
    return functional.normalize(middle + 0.05 * torch.randn(count, DIM), dim=-1)


def _sense(name: str = "seen") -> LearnedSense:
    torch.manual_seed(0)
    axes = torch.eye(DIM)
    gate = fit_gate(["fire", "smoke"], [_near(axes[0], 5), _near(axes[1], 5)], _near(axes[2], 8))
    shape = {"token_dim": DIM, "query_dim": DIM, "width": 8, "heads": 2, "layers": 1}
    net = AttentionNet(DIM, DIM, width=8, heads=2, layers=1).eval()
    return LearnedSense(name, gate, net, torch.tensor([[1.0, 0.0], [2.0, -1.0]]), shape, {"data": "none"})


def test_a_phrasing_is_routed_to_its_kind_and_an_unrelated_text_exactly_nowhere() -> None:
    sense = _sense()
    routes = sense.route(torch.eye(DIM)[:4])
    assert routes[0].tolist() == [1.0, 0.0]
    assert routes[1].tolist() == [0.0, 1.0]
    assert routes[2:].count_nonzero() == 0


def test_routes_of_a_prompt_sum_to_at_most_one() -> None:
    between = functional.normalize(torch.eye(DIM)[:1] + torch.eye(DIM)[1:2], dim=-1)
    many = functional.normalize(torch.cat((torch.randn(200, DIM), between)), dim=-1)
    assert float(_sense().route(many).sum(1).max()) <= 1 + 1e-6
    assert _sense().route(many[:0]).shape == (0, 2)


def test_a_logit_is_calibrated_by_the_curve_of_its_kind() -> None:
    sense = _sense()
    tokens, whole, queries = torch.randn(3, 5, DIM), torch.randn(3, DIM), torch.eye(DIM)[:2]
    raw, attention = sense.net(tokens, whole, queries)
    logits = sense.logits(tokens, whole, queries)
    torch.testing.assert_close(logits, raw * torch.tensor([1.0, 2.0]) + torch.tensor([0.0, -1.0]))
    torch.testing.assert_close(attention.sum(-1), torch.ones(3, 2))
    torch.testing.assert_close(sense.attention(tokens[0], queries[0]).sum(), torch.tensor(1.0))


def test_blending_leaves_other_prompts_as_they_are_to_the_bit() -> None:
    scores, learned = torch.randn(4, 6), torch.randn(4, 1)
    mixed = blend(scores, learned, torch.tensor([0.75]), torch.tensor([2]))
    others = [0, 1, 3, 4, 5]
    assert torch.equal(mixed[:, others], scores[:, others])
    torch.testing.assert_close(mixed[:, 2], 0.25 * scores[:, 2] + 0.75 * learned[:, 0])


def test_a_learned_score_has_the_probability_of_its_logit() -> None:
    logits = torch.tensor([-3.0, 0.0, 2.0])
    scores = score_units(logits, PRIOR.seen).numpy()
    torch.testing.assert_close(torch.from_numpy(PRIOR.seen.probability(scores)), logits.sigmoid())


def test_senses_of_one_file_are_replaced_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    save_senses(path, {"seen": _sense("seen")}, "tiny")
    digest = save_senses(path, {"heard": _sense("heard")}, "tiny")
    learned = load_learned_file(path)
    assert (set(learned.senses), learned.sha256, learned.encoder) == ({"seen", "heard"}, digest, "tiny")
    assert learned.seen is not None
    assert learned.moved is None
    tokens, whole, queries = torch.randn(2, 5, DIM), torch.randn(2, DIM), torch.eye(DIM)[:3]
    expected = _sense().logits(tokens, whole, queries)
    torch.testing.assert_close(learned.seen.logits(tokens, whole, queries), expected, atol=5e-3, rtol=5e-3)
    assert torch.equal(learned.seen.route(queries) > 0, _sense().route(queries) > 0)


def test_altered_weights_and_unknown_senses_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    with pytest.raises(ModelError, match="smelt"):
        save_senses(path, {"smelt": _sense("smelt")}, "tiny")
    save_senses(path, {"seen": _sense()}, "tiny")
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ModelError, match="altered"):
        load_learned_file(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match="header"):
        load_learned_file(path)
