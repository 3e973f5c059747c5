import wave
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import Generator

from models.sound_net import SoundBackbone
from models.train.sound import Recipe, Student, distil, fold_norms, losses
from models.train.sound_corpus import Piece, decode, gather, load, package_sounds
from models.train.sound_label import Chunk
from models.train.sound_mix import CLIP_SAMPLES, SYNTHESISERS, Mixer, Sound, source_weights


def write_wav(path: Path, seconds: float, rate_hz: int = 8_000) -> None:
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    samples = (np.sin(2 * np.pi * 440 * time) * 16_000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())


def pieces_and_samples() -> tuple[np.ndarray[tuple[int], np.dtype[np.int16]], list[Piece]]:
    random = np.random.default_rng(0)
    samples = (random.standard_normal(200_000) * 8_000).astype(np.int16)
    return samples, [Piece("manifest", "a", 0, 100_000), Piece("games", "b", 100_000, 3_000), Piece("games", "c", 0, 9)]


def test_the_same_seed_draws_the_same_mixtures() -> None:
    samples, pieces = pieces_and_samples()
    first, second = (Mixer(samples, pieces, np.random.default_rng(5)) for _ in range(2))
    for _ in range(20):
        drawn = first.draw()
        assert np.array_equal(drawn, second.draw())
        assert drawn.shape == (CLIP_SAMPLES,)
        assert drawn.dtype == np.float32
        assert np.isfinite(drawn).all()
        assert np.abs(drawn).max() <= 1


@pytest.mark.parametrize("made", dict.fromkeys(SYNTHESISERS))
def test_synthetic_sounds_are_heard_and_finite(made: Callable[[Generator], Sound]) -> None:
    for seed in range(10):
        sound = made(np.random.default_rng(seed))
        assert sound.shape == (CLIP_SAMPLES,)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() > 0


def test_a_large_source_does_not_crowd_out_a_small_one() -> None:
    pieces = [Piece("large", str(n), 0, 1) for n in range(10_000)] + [Piece("small", str(n), 0, 1) for n in range(100)]
    weights = source_weights(pieces)
    assert weights.sum() == pytest.approx(1)
    assert weights[:10_000].sum() / weights[10_000:].sum() == pytest.approx(10)


def test_sounds_in_zip_containers_are_found(tmp_path: Path) -> None:
    write_wav(tmp_path / "plain.wav", 0.5)
    with zipfile.ZipFile(tmp_path / "game.pk3", "w") as archive:
        archive.write(tmp_path / "plain.wav", "sound/inside.wav")
    (tmp_path / "broken.ogg").write_bytes(b"not a sound")
    found = {name: sound.size for name, sound in package_sounds(tmp_path)}
    assert set(found) == {"plain.wav", "game.pk3!sound/inside.wav", "broken.ogg"}
    assert found["broken.ogg"] == 0
    assert found["plain.wav"] == found["game.pk3!sound/inside.wav"] == pytest.approx(8_000, abs=64)


def test_only_licensed_training_rows_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.train.sound_corpus.PACKAGES", ())
    monkeypatch.setattr("models.train.sound_corpus.SPEECH_PACKAGES", ("no-such-package",))
    monkeypatch.setattr("models.train.sound_corpus.fetch", lambda _package, _cache: None)
    rows = ["path,kind,labels,group,split,train_ok,has_sound"]
    for name, split, licensed in (("a", "train", "yes"), ("b", "train", "no"), ("c", "dev", "yes")):
        write_wav(tmp_path / f"{name}.wav", 0.3)
        rows.append(f"{name}.wav,audio,siren,{name},{split},{licensed},yes")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    gather(tmp_path / "out", tmp_path / "cache", tmp_path / "manifest.csv")
    samples, pieces = load(tmp_path / "out")
    assert [(piece.path, piece.labels) for piece in pieces] == [("a.wav", "siren")]
    assert len(samples) == pieces[0].length
    assert np.abs(samples).max() > 10_000


def test_decoding_stops_at_the_limit(tmp_path: Path) -> None:
    write_wav(tmp_path / "long.wav", 3)
    assert decode(tmp_path / "long.wav", max_s=1).size == 16_000


def test_folded_norms_change_nothing() -> None:
    torch.manual_seed(0)
    backbone = SoundBackbone(has_norm=True)
    backbone.train()
    with torch.no_grad():
        for _ in range(3):
            backbone(torch.randn(4, 96, 64) * 3 - 2)
        backbone.eval()
        frames = torch.randn(2, 128, 64)
        assert torch.allclose(fold_norms(backbone)(frames), backbone(frames), atol=1e-4)


def test_a_student_that_says_what_the_teacher_says_has_nothing_to_learn() -> None:
    logits, embeddings = torch.randn(3, 2, 521), torch.randn(3, 2, 1024)
    parts = losses(logits, embeddings, logits, embeddings)
    assert all(abs(float(value)) < 1e-4 for value in parts.values())


@pytest.fixture
def threads() -> Iterator[None]:
    """Training sets torch's threads; put them back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_distilling_learns_and_writes_a_checkpoint_that_goes_on(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    chunk = Chunk(
        frames=random.normal(-3, 2, (100, 192, 64)).astype(np.float16),
        tokens=np.tile(np.array([0, 3], np.uint8), (100, 1)),
        logits=np.full((100, 2, 521), 80, np.int8),
        embeddings=random.integers(-128, 127, (100, 2, 1024)).astype(np.int8),
    )
    chunk.save(tmp_path / "mix-0000.npz")
    path = tmp_path / "mix-0000.npz"
    recipe = Recipe(passes=3, batch_clips=25)
    checkpoint = tmp_path / "student.pt"
    torch.manual_seed(recipe.seed)
    before = Student().eval()
    after = distil([path], path, recipe, checkpoint).eval()
    frames, target = torch.from_numpy(chunk.frames[:10].astype(np.float32)), -6.16
    tokens = torch.zeros(10, 2, dtype=torch.int64)
    with torch.inference_mode():
        assert (after(frames, tokens)[0] - target).abs().mean() < (before(frames, tokens)[0] - target).abs().mean()
    Student().load_state_dict(torch.load(checkpoint, weights_only=True))
