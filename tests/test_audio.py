import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file

from models.aligner import Aligner
from models.audio import SOUND_SHA256, WEIGHTS, CompactSounds, SoundText, load_compact_sound, load_sound_net
from models.encoders import SoundEncoder, TextEncoder
from models.errors import ModelError
from models.evaluate.media import read_sound
from models.integrity import sha256_of
from models.load import load_compact_text
from models.logmel import LogMel
from models.queries import Queries
from models.runtime import Precision
from models.sound_net import TOKEN_S, cells_of, sound_tokens, whole_cells

SPAN = 32_000
DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def reference() -> CompactSounds:
    return CompactSounds(runtime="torch")


@pytest.fixture(scope="module")
def text(reference: CompactSounds) -> TextEncoder:
    return SoundText(load_compact_text(), reference.whitening, reference.sha256)


def some_sound(samples: int = SPAN, seed: int = 1) -> NDArray[np.float32]:
    """A sweep in noise."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 16_000
    sweep = 0.3 * np.sin(2 * np.pi * (600 + 300 * np.sin(2 * np.pi * time)) * time)
    return (sweep + 0.01 * random.standard_normal(samples)).astype(np.float32)


def slow_log_mel(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The front end once more, by FFT and a loop over bands, float64."""
    frames = [samples[start : start + 400] for start in range(0, len(samples) - 399, 160)]
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(400) / 400))
    magnitude = np.abs(np.fft.rfft(np.array(frames, np.float64) * window, 512))
    mel = 1127 * np.log(1 + np.arange(257) * 31.25 / 700)
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    bands = np.zeros((len(frames), 64))
    for band in range(64):
        low, centre, high = edges[band : band + 3]
        for number in range(1, 257):
            if low < mel[number] <= centre:
                bands[:, band] += magnitude[:, number] * (mel[number] - low) / (centre - low)
            elif centre < mel[number] < high:
                bands[:, band] += magnitude[:, number] * (high - mel[number]) / (high - centre)
    return np.log(bands + 0.001)


def test_log_mel_equals_a_plain_computation_by_fft() -> None:
    sound = some_sound(16_000)
    with torch.inference_mode():
        fast = LogMel()(torch.from_numpy(sound)[None])[0].numpy()
    assert fast.shape == (98, 64)
    assert np.abs(fast - slow_log_mel(sound)).max() < 2e-3


def test_log_mel_of_silence_is_the_floor() -> None:
    with torch.inference_mode():
        frames = LogMel()(torch.zeros(1, 400))
    assert torch.allclose(frames, torch.full((1, 1, 64), float(np.log(0.001))))


@given(st.integers(0, 100_000))
def test_any_length_becomes_whole_cells_that_give_a_token_each_third_of_a_second(samples: int) -> None:
    rows = whole_cells(np.zeros((1, samples), np.float32))
    cells = cells_of(samples)
    assert 1 + (rows.shape[1] - 400) // 160 == 32 * cells
    assert cells >= 3
    assert cells == 3 or abs(rows.shape[1] - samples) <= 16 * 160 + 400


def test_tokens_are_unit_length_and_one_each_third_of_a_second(reference: CompactSounds) -> None:
    heard = reference.encode(np.stack((some_sound(), np.zeros(SPAN, np.float32))))
    assert heard.tokens.shape == (2, 4, reference.dim)
    assert heard.whole.shape == (2, reference.dim)
    assert torch.allclose(heard.tokens.norm(dim=-1), torch.ones(2, 4), atol=1e-5)
    assert torch.allclose(heard.whole.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert reference.token_s == TOKEN_S == 0.96


def test_a_sound_gives_the_same_alone_and_in_a_batch(reference: CompactSounds) -> None:
    sounds = np.stack([some_sound(seed=seed) for seed in range(3)])
    together = reference.encode(sounds)
    alone = reference.encode(sounds[1:2])
    assert torch.allclose(together.tokens[1:2], alone.tokens, atol=1e-4)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("auto", 0.02)])
def test_openvino_equals_torch(
    reference: CompactSounds, precision: Precision, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled = CompactSounds(runtime="openvino", precision=precision, threads=1)
    sounds = np.stack((some_sound(), some_sound(seed=2), np.zeros(SPAN, np.float32)))
    ours, theirs = compiled.encode(sounds), reference.encode(sounds)
    assert (ours.tokens - theirs.tokens).norm(dim=-1).max() < tolerance
    assert (ours.whole - theirs.whole).norm(dim=-1).max() < tolerance


def test_a_second_process_finds_the_compiled_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = CompactSounds(runtime="openvino", threads=1).encode(some_sound()[None])
    kept = sorted(tmp_path.rglob("graph.xml"))
    written_ns = [path.stat().st_mtime_ns for path in kept]
    again = CompactSounds(runtime="openvino", threads=1).encode(some_sound()[None])
    assert len(kept) == 2
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("graph.xml"))] == written_ns
    assert torch.equal(again.tokens, expected.tokens)


def test_lengths_that_are_not_used_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled = CompactSounds(runtime="openvino", threads=1)
    for seconds in (1, 2, 3, 4, 5, 2):
        heard = compiled.encode(np.zeros((1, seconds * 16_000), np.float32))
        assert heard.tokens.shape[1] == cells_of(seconds * 16_000) - 2
    assert compiled._compiled is not None
    assert len(compiled._compiled) == 4


@pytest.mark.parametrize("samples", [np.zeros(SPAN, np.float32), np.zeros((1, SPAN), np.float64)])
def test_sounds_of_another_shape_or_type_are_refused(reference: CompactSounds, samples: NDArray[np.float32]) -> None:
    with pytest.raises(ModelError, match="float32"):
        reference.encode(samples)


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    altered = tmp_path / "sound.safetensors"
    shutil.copy(WEIGHTS, altered)
    with altered.open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)
        file.seek(100_000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ModelError, match="altered"):
        load_sound_net(altered, SOUND_SHA256)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"class_embeddings": torch.ones(521, 384)}, other)
    with pytest.raises(ModelError, match="does not fit"):
        load_sound_net(other, sha256_of(other))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 30))
def test_tokens_stay_unit_length_and_finite_whatever_is_heard(seed: int, spread: float) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.rand(2, 3, 521, generator=random)
    surprise = torch.randn(2, 3, 521, generator=random) * spread
    vectors = torch.nn.functional.normalize(torch.randn(521, 16, generator=random), dim=-1)
    tokens = sound_tokens(scores, surprise, vectors)
    assert tokens.shape == (2, 4, 17)
    assert torch.allclose(tokens.norm(dim=-1), torch.ones(2, 4), atol=1e-5)


def test_prompts_have_no_part_in_silence(reference: CompactSounds, text: TextEncoder) -> None:
    vectors = text.encode(["siren", "a dog barking", "someone knocking at a door"])
    assert vectors.shape == (3, reference.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[:, -1] == 0).all()


def test_whitened_names_of_unlike_sounds_lie_far_apart(text: TextEncoder) -> None:
    names = text.encode(["siren", "speech", "dog barking", "glass breaking", "police siren"])
    similarity = names @ names.T
    assert np.abs(similarity[:4, :4] - np.eye(4)).max() < 0.2
    assert similarity[0, 4] > 0.4


def test_silence_matches_no_alarm(reference: CompactSounds, text: TextEncoder) -> None:
    queries = Queries.plain(
        torch.from_numpy(text.encode(["gunshot", "siren", "scream", "glass breaking", "explosion"]))
    )
    heard = reference.encode(np.zeros((1, SPAN), np.float32))
    assert Aligner().sounds(heard.tokens, heard.whole, queries).max() < 0.06


@pytest.mark.parametrize(
    ("file", "prompt"),
    [("ingest_siren.ogg", "a siren"), ("sound_gunshot.ogg", "gunshot"), ("sound_baby.ogg", "baby crying")],
)
def test_a_real_sound_matches_its_own_prompt_best(
    reference: CompactSounds, text: TextEncoder, file: str, prompt: str
) -> None:
    prompts = ["a siren", "gunshot", "baby crying", "glass breaking", "speech"]
    queries = Queries.plain(torch.from_numpy(text.encode(prompts)))
    heard = reference.encode(read_sound(DATA / file)[None])
    scores = Aligner().sounds(heard.tokens, heard.whole, queries)[0]
    assert prompts[int(scores.argmax())] == prompt


def test_loading_gives_an_encoder_and_the_text_encoder_of_its_space(text: TextEncoder) -> None:
    loaded: tuple[SoundEncoder, TextEncoder] = load_compact_sound(runtime="torch", text=_Fixed())
    encoder, prompts = loaded
    assert encoder.dim == prompts.dim
    assert encoder.sha256 == SOUND_SHA256
    assert prompts.encode(["anything"]).shape == (1, encoder.dim)
    assert prompts.sha256 != text.sha256


class _Fixed:
    """A text encoder that says the same of every text."""

    name = "fixed"
    sha256 = "0" * 64
    dim = 384

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.full((len(texts), 384), 384**-0.5, np.float32)
