"""The heads for kinds of sound: what they say of tokens, and how they are trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.heard import KindHeads, pool
from models.learned import Gate, LearnedSense, load_learned_file, save_senses
from models.train.heard import Bags, Recipe, balance, best, figures, fit_curves, fit_heads, fold_of, held_back_logits
from models.train.heard_sounds import LONGEST_S, Recording, background_of, named, spoil, stretches, view
from models.train.heard_texts import KINDS, OTHERS, PARAPHRASES, UNRELATED
from models.train.sound_corpus import Piece

RATE_HZ = 16_000


def bags_of(count: int, seed: int = 0) -> Bags:
    """Bags of two stretches; a kind is in one token of one of them."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2 * count, 4, 12, generator=random)
    labels = torch.zeros(count, len(KINDS))
    for bag in range(count):
        if bag % 3:
            labels[bag, bag % len(KINDS)] = 1
            tokens[2 * bag + bag % 2, bag % 4, bag % len(KINDS)] += 6
    groups = np.array([f"g{bag // 4}" for bag in range(count)])
    ones = np.ones(count, bool)
    return Bags(tokens, torch.arange(count).repeat_interleave(2), labels, groups, np.arange(count) % 5 > 0, ones)


def heads(kinds: int = 2, dim: int = 6) -> KindHeads:
    torch.manual_seed(0)
    net = KindHeads(dim, dim, kinds).eval()
    with torch.no_grad():
        net.keys.copy_(torch.eye(dim)[:kinds])
    return net


def test_a_prompt_is_answered_by_the_head_of_its_kind() -> None:
    net, tokens = heads(), torch.randn(3, 4, 6)
    logits, share = net(tokens, tokens.mean(1), torch.eye(6)[:2])
    assert torch.allclose(logits, pool(net.head(tokens)), atol=1e-4)
    assert share.shape == (3, 2, 4)
    assert torch.allclose(share.sum(2), torch.ones(3, 2))


def test_repeating_what_is_heard_changes_nothing() -> None:
    logits = torch.randn(2, 4, 3)
    assert torch.allclose(pool(logits), pool(logits.repeat(1, 5, 1)), atol=1e-6)


def test_a_saved_sense_hears_the_same(tmp_path: Path) -> None:
    gate = Gate(("a", "b"), torch.eye(6)[:3], torch.tensor([0, 1, -1]), (0.3, 0.4), (0.0, 0.1))
    shape = {"token_dim": 6, "query_dim": 6, "kinds": 2}
    sense = LearnedSense("heard", gate, heads(), torch.tensor([[2.0, 0.5], [1.0, -1.0]]), shape)
    save_senses(tmp_path / "learned.safetensors", {"heard": sense}, "pictures")
    again = load_learned_file(tmp_path / "learned.safetensors").heard
    assert again is not None
    tokens, queries = torch.randn(5, 4, 6), torch.eye(6)[:2]
    assert isinstance(again.net, KindHeads)
    assert torch.allclose(
        again.logits(tokens, tokens[:, 0], queries), sense.logits(tokens, tokens[:, 0], queries), atol=0.02
    )


def test_the_best_stretch_speaks_for_a_bag() -> None:
    logits = torch.tensor([[1.0], [5.0], [2.0]])
    assert best(logits, torch.tensor([0, 0, 1]), 2).flatten().tolist() == [5.0, 2.0]


def test_some_of_the_bags_keep_their_stretches() -> None:
    bags = bags_of(9)
    chosen = np.arange(9) % 2 == 1
    some = bags.of(chosen)
    assert len(some) == 4
    assert torch.equal(some.tokens[:2], bags.tokens[2:4])
    assert some.owner.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_clips_and_corpus_weigh_what_the_recipe_says() -> None:
    bags, recipe = bags_of(60), Recipe()
    weights = balance(bags, recipe)
    assert torch.allclose(weights.sum(0), torch.full((len(KINDS),), 60.0))
    positive = bags.labels[:, 0] > 0
    assert float(weights[positive, 0].sum()) == pytest.approx(60 * recipe.positive_share, rel=1e-4)
    of_clips = weights[positive & torch.from_numpy(bags.is_clip), 0].sum()
    assert float(of_clips) == pytest.approx(60 * recipe.positive_share * recipe.clip_share, rel=1e-4)


def test_groups_are_never_split_between_folds() -> None:
    bags = bags_of(80)
    folds = fold_of(bags.groups, bags.labels, 5, seed=1)
    assert set(folds) == set(range(5))
    for group in np.unique(bags.groups):
        assert len(set(folds[bags.groups == group])) == 1


def test_heads_find_the_token_that_tells_and_the_seed_decides_all() -> None:
    bags, recipe = bags_of(160), Recipe(folds=3, steps=30)
    held_back = held_back_logits(bags, recipe)
    assert min(entry["roc_auc"] for entry in figures(held_back, bags).values()) > 0.95
    assert torch.equal(fit_heads(bags, recipe).weights, fit_heads(bags, recipe).weights)


def test_calibration_supposes_that_alerts_are_rare() -> None:
    bags = bags_of(240)
    logits = fit_heads(bags, Recipe())(bags) + torch.randn(240, len(KINDS)) * 3
    often, seldom = (
        fit_curves(logits, bags, Recipe(prevalence=(share,) * len(KINDS), ordinary_share=1.0)) for share in (0.3, 0.02)
    )
    assert bool((often[:, 0] > 0).all())
    usual = [(logits * c[:, 0] + c[:, 1]).sigmoid().mean() for c in (often, seldom)]
    assert usual[1] < usual[0]


def test_a_sound_is_cut_as_a_worker_hears_it() -> None:
    assert stretches(np.zeros(RATE_HZ // 2, np.float32)).shape == (1, 2 * RATE_HZ)
    assert stretches(np.zeros(int(4.5 * RATE_HZ), np.float32)).shape == (4, 2 * RATE_HZ)


def test_views_are_audible_and_the_same_each_time() -> None:
    time = np.arange(3 * RATE_HZ) / RATE_HZ
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    recording = Recording("source/a.wav", tone, frozenset({"siren"}), "g", is_clip=True)
    backgrounds = [np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)]
    assert view(recording, 0, backgrounds, seed=1) is tone
    for number in range(1, 40):
        first, second = (view(recording, number, backgrounds, seed=1) for _ in range(2))
        assert np.array_equal(first, second)
        assert first.dtype == np.float32
        assert np.isfinite(first).all()
        assert 1e-5 < np.abs(first).max() <= 1
        assert len(first) <= LONGEST_S * RATE_HZ


def test_silence_can_be_spoilt() -> None:
    random = np.random.default_rng(3)
    for _ in range(40):
        assert np.isfinite(spoil(np.zeros(RATE_HZ, np.float32), [np.zeros(RATE_HZ, np.float32)], random)).all()


def test_only_sound_without_a_kind_lies_under_others() -> None:
    loud = np.ones(RATE_HZ, np.float32)
    found = [
        Recording("video/a.mp4", loud, frozenset(), "a", is_clip=True),
        Recording("audio/b.ogg", loud, frozenset(), "b", is_clip=True),
        Recording("games/c.wav", loud * 0.5, frozenset({"gunshot"}), "c", is_clip=False),
        Recording("games/d.wav", loud[:100], frozenset(), "d", is_clip=False),
    ]
    assert [part is loud for part in background_of(found)] == [True]


@pytest.mark.parametrize(
    ("source", "path", "kind"),
    [
        ("warmux-data", "usr/share/sound/explosion3.ogg", "explosion"),
        ("hedgewars-data", "usr/share/shotgunfire.ogg", "gunshot"),
        ("hedgewars-data", "usr/share/shotgunreload.ogg", None),
        ("klettres-data", "usr/share/explosion3.ogg", None),
    ],
)
def test_a_games_file_name_says_what_it_is(source: str, path: str, kind: str | None) -> None:
    assert named(Piece(source, path, 0, 1)) == kind


def test_paraphrases_are_kept_from_the_phrasings() -> None:
    trained = {phrase.lower() for phrases in KINDS.values() for phrase in phrases} | {other.lower() for other in OTHERS}
    for phrase in (*(p for phrases in PARAPHRASES.values() for p in phrases), *UNRELATED):
        assert phrase.lower() not in trained
