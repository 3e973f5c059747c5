"""The heads for kinds of sound: what they say of tokens, and how they are trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.encoders import SoundTokens
from models.heard import KindHeads, pool
from models.learned import Gate, LearnedSense, bend, load_learned_file, save_senses
from models.train.heard import Recipe, balance, best, figures, fit_curves, fit_heads, fold_of, held_back_logits
from models.train.heard_bags import AT_ONCE, Bags, hear
from models.train.heard_scenes import DOUBTFUL, crowd, engine, made, scenes, street, wind
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
    is_clip = np.arange(count) % 5 > 0
    is_scene = ~is_clip & (labels.sum(1) == 0).numpy() & (np.arange(count) % 2 == 0)
    seconds = np.full(count, 4.5, np.float32)
    owner = torch.arange(count).repeat_interleave(2)
    return Bags(tokens, owner, labels, groups, is_clip, ones, is_scene, seconds)


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


def test_clips_corpus_and_scenes_weigh_what_the_recipe_says() -> None:
    bags, recipe = bags_of(60), Recipe()
    weights = balance(bags, recipe)
    assert torch.allclose(weights.sum(0), torch.full((len(KINDS),), 60.0))
    positive = bags.labels[:, 0] > 0
    assert float(weights[positive, 0].sum()) == pytest.approx(60 * recipe.positive_share, rel=1e-4)
    of_clips = weights[positive & torch.from_numpy(bags.is_clip), 0].sum()
    assert float(of_clips) == pytest.approx(60 * recipe.positive_share * recipe.clip_share, rel=1e-4)
    of_scenes = weights[torch.from_numpy(bags.is_scene), 0].sum()
    assert float(of_scenes) == pytest.approx(60 * (1 - recipe.positive_share) * recipe.scene_share, rel=1e-4)


def test_groups_are_never_split_between_folds() -> None:
    bags = bags_of(80)
    folds = fold_of(bags.groups, bags.labels, 5, seed=1)
    assert set(folds) == set(range(5))
    for group in np.unique(bags.groups):
        assert len(set(folds[bags.groups == group])) == 1


def test_heads_find_the_token_that_tells_and_the_seed_decides_all() -> None:
    bags, recipe = bags_of(160), Recipe(folds=3, steps=30)
    held_back, looks = held_back_logits(bags, recipe)
    curves = fit_curves(held_back, bags, recipe)
    assert min(entry["roc_auc"] for entry in figures(held_back, bags, curves).values()) > 0.95
    assert all(curve[-1][1] < curve[0][1] for curve in looks.values())
    assert torch.equal(fit_heads(bags, recipe)[0].weights, fit_heads(bags, recipe)[0].weights)


def test_a_run_that_was_cut_off_comes_to_the_same(tmp_path: Path) -> None:
    bags, recipe = bags_of(90), Recipe(folds=3, steps=10)
    whole = held_back_logits(bags, recipe, tmp_path)[0]
    kept = sorted(tmp_path.glob("heads-*.npz"))
    assert len(kept) == recipe.folds
    kept[-1].unlink()

    def stop(_last: str, done: int, _total: int) -> None:
        if done == recipe.folds - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        held_back_logits(bags, recipe, tmp_path, stop)
    assert torch.equal(held_back_logits(bags, recipe, tmp_path)[0], whole)
    assert torch.equal(held_back_logits(bags, recipe)[0], whole)


def test_what_was_encoded_is_not_encoded_again(tmp_path: Path) -> None:
    calls = []

    class Ears:
        name, dim, token_s, sha256 = "ears", 3, 0.96, "00"

        def encode(self, samples: NDArray[np.float32]) -> SoundTokens:
            calls.append(len(samples))
            tokens = torch.from_numpy(samples[:, :12].reshape(-1, 4, 3).copy())
            return SoundTokens(tokens, tokens.mean(1))

    random = np.random.default_rng(0)
    found = [
        Recording(f"a/{number}", random.uniform(-1, 1, 4 * RATE_HZ).astype(np.float32), frozenset(), "a", is_clip=True)
        for number in range(AT_ONCE + 3)
    ]
    counts = [1] * len(found)
    first = hear(found, counts, Ears(), 1, tmp_path)
    assert len(first) == len(found)
    assert len(calls) == len(found)
    max(tmp_path.iterdir()).unlink()
    again = hear(found, counts, Ears(), 1, tmp_path)
    assert len(calls) == len(found) + 3
    assert torch.equal(first.tokens, again.tokens)


def test_ordinary_sound_reaches_even_odds_no_more_often_than_allowed() -> None:
    bags = bags_of(240)
    logits = fit_heads(bags, Recipe())[0](bags) + torch.randn(240, len(KINDS)) * 3
    hours = float(bags.seconds[(bags.labels.sum(1) == 0).numpy()].sum()) / 3600
    for allowed in (0, 3, 10):
        curves = fit_curves(logits, bags, Recipe(alarms_per_hour=(allowed + 0.5) / hours))
        assert bool((curves[:, 0] > 0).all())
        odds = bend(logits * curves[:, 0] + curves[:, 1], curves[:, 2])
        ordinary = odds[bags.labels.sum(1) == 0]
        assert int((ordinary >= 0).sum(0).max()) <= allowed


@given(st.floats(0, 8), st.lists(st.floats(-12, 12), min_size=2, max_size=30))
def test_bending_keeps_the_order_and_moves_even_odds(even: float, logits: list[float]) -> None:
    plain = torch.tensor(sorted(logits), dtype=torch.float64)[:, None]
    bent = bend(plain, torch.tensor([even], dtype=torch.float64))
    assert bool((bent.diff(dim=0) >= -1e-12).all())
    assert bool((bent <= plain + 1e-12).all())
    far = (plain - even).abs() > 1e-9
    assert torch.equal((bent > 0)[far], (plain > even)[far])
    assert float(bend(torch.tensor([[even]], dtype=torch.float64), torch.tensor([even]))[0, 0]) == pytest.approx(
        0, abs=1e-6
    )


def test_scenes_leave_out_what_may_be_a_kind(tmp_path: Path) -> None:
    names = ["TraficHigh1.wav", "Fire1.wav", "explosion.ogg", "School1.wav", "FireStation2.wav", "music.ogg"]
    length = 12 * RATE_HZ
    (np.random.default_rng(0).uniform(-9000, 9000, length * len(names)).astype("<i2")).tofile(tmp_path / "samples.i16")
    with (tmp_path / "pieces.csv").open("w") as file:
        file.write("source,path,start,length,labels,group\n")
        file.writelines(f"city,sounds/{name},{n * length},{length},,{name}\n" for n, name in enumerate(names))
    found = scenes(tmp_path, np.random.default_rng(0))
    assert {name for name in names if not DOUBTFUL.search(f"/{name}")} == {
        "TraficHigh1.wav",
        "School1.wav",
        "music.ogg",
    }
    assert {one.name.split("#")[0].rsplit("/", 1)[-1] for one in found} == {
        "TraficHigh1.wav",
        "School1.wav",
        "music.ogg",
    }
    assert len(found) == 6  # two stretches of each
    assert all(one.is_scene and not one.labels and len(one.samples) == int(LONGEST_S * RATE_HZ) for one in found)


def test_made_scenes_are_audible_and_the_same_each_time() -> None:
    voice = np.sin(2 * np.pi * 220 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    for make in (crowd, street):
        assert np.isfinite(make([voice], np.random.default_rng(1))).all()
    for plain in (wind, engine):
        assert float(np.abs(plain(np.random.default_rng(1))).max()) > 0
    first, second = (made([voice], 8, np.random.default_rng(2)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.samples, other.samples)
        assert float(np.abs(one.samples).max()) == pytest.approx(1)


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
