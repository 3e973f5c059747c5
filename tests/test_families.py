"""Every family against transformers' own processor and features, on tiny random checkpoints."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from functools import cache as cache_calls
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoModel, AutoProcessor

from models.aligner import Aligner
from models.encoders import SoundEncoder, TextEncoder
from models.errors import ModelError
from models.families import load_clap, load_clip, load_siglip2
from models.families.checkpoint import find_checkpoint
from models.families.resample import Resampler
from models.integrity import sha256_of
from models.load import load_encoders
from models.memory import in_halves
from models.queries import Queries
from tests import checkpoints

TOLERANCE = 1e-4
TEXTS = ["fire", "a person lying on the floor", "glass breaking far away and then a long silence", ""]
CPU = torch.device("cpu")
Loaded = Callable[..., Any]
Reference = Callable[[str], tuple[Any, Any]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def only_loopback(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1"}:
            raise OSError(f"a test reached for {address[0]}")
        connect(self, address)

    def no_names(host: str, *_: object, **__: object) -> None:
        raise socket.gaierror(f"a test looked up {host}")

    monkeypatch.setattr(socket.socket, "connect", only_loopback)
    monkeypatch.setattr(socket, "getaddrinfo", no_names)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(6)
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "clip": checkpoints.write_clip(root / "clip"),
        "siglip": checkpoints.write_siglip2(root / "siglip", is_naflex=False),
        "siglip2": checkpoints.write_siglip2(root / "siglip2", is_naflex=True),
        "clap": checkpoints.write_clap(root / "clap", is_fused=False),
        "clap-fused": checkpoints.write_clap(root / "clap-fused", is_fused=True),
        "clap-pad": checkpoints.write_clap(root / "clap-pad", is_fused=False, padding="pad"),
        "clap-repeat": checkpoints.write_clap(root / "clap-repeat", is_fused=False, padding="repeat"),
        "bert": checkpoints.write_bert(root / "bert"),
    }


@pytest.fixture
def copy_of(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(kind: str) -> Path:
        return Path(shutil.copytree(folders[kind], tmp_path / "copy"))

    return make


LOADERS: dict[str, Any] = {"clip": load_clip, "siglip": load_siglip2, "siglip2": load_siglip2}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> Loaded:
    """Both sides of a kind, read once: `loaded("clip", "bfloat16")`."""

    @cache_calls
    def load(kind: str, precision: str = "float32") -> Any:
        return LOADERS.get(kind, load_clap)(str(folders[kind]), "cpu", precision)

    return load


@pytest.fixture(scope="module")
def reference(folders: dict[str, Path]) -> Reference:
    """Transformers' own network and processor of a kind, read once."""

    @cache_calls
    def load(kind: str) -> tuple[Any, Any]:
        net = AutoModel.from_pretrained(folders[kind], local_files_only=True).eval()
        return net, AutoProcessor.from_pretrained(folders[kind], local_files_only=True, backend="pil")

    return load


pictures_of_every_kind = pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
sounds_of_every_kind = pytest.mark.parametrize("kind", ["clap", "clap-fused", "clap-pad", "clap-repeat"])


def some_pixels(height: int, width: int, count: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (count, 3, 3, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 3 // height, np.arange(width) * 3 // width
    blocks = coarse[:, rows][:, :, columns]
    noisy: NDArray[np.uint8] = np.clip(blocks + rng.normal(0, 12, blocks.shape), 0, 255).astype(np.uint8)
    return noisy


def some_samples(count: int, length: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(length)
    time = np.arange(length) / 16_000
    tones = np.sin(2 * np.pi * rng.uniform(100, 7000, (count, 1)) * time) * rng.uniform(0.001, 0.5, (count, 1))
    noisy: NDArray[np.float32] = (tones + rng.normal(0, 1e-4, tones.shape)).astype(np.float32)
    return noisy


def unit(vectors: torch.Tensor) -> NDArray[np.float32]:
    made: NDArray[np.float32] = functional.normalize(vectors.detach(), dim=-1).numpy()
    return made


def distance(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


# Pictures --------------------------------------------------------------------------------------------------------


@pictures_of_every_kind
@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (45, 80), (31, 20)])
def test_the_whole_picture_equals_the_features_of_transformers(
    reference: Reference, loaded: Loaded, kind: str, shape: tuple[int, int]
) -> None:
    pixels = some_pixels(*shape)
    net, processor = reference(kind)
    with torch.no_grad():
        expected = net.get_image_features(**processor.image_processor(images=list(pixels), return_tensors="pt"))
    made = loaded(kind)[0].encode(pixels)
    assert distance(made.whole, unit(expected.pooler_output)) <= TOLERANCE
    assert distance(made.whole[0], made.whole[1]) > 100 * TOLERANCE  # or equality would mean little


def test_a_clip_cell_is_its_patch_token_normalised_and_projected(reference: Reference, loaded: Loaded) -> None:
    pixels = some_pixels(32, 32)
    net, processor = reference("clip")
    with torch.no_grad():
        inputs = processor.image_processor(images=list(pixels), return_tensors="pt")
        tokens = net.vision_model(**inputs).last_hidden_state[:, 1:]
        expected = net.visual_projection(net.vision_model.post_layernorm(tokens))
    encoder, _ = loaded("clip")
    assert (encoder.size, encoder.grid, encoder.dim) == (32, (4, 4), checkpoints.DIM)
    assert distance(encoder.encode(pixels).cells, unit(expected)) <= TOLERANCE


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_a_siglip_cell_is_what_the_head_makes_of_that_patch_alone(
    reference: Reference, loaded: Loaded, kind: str
) -> None:
    pixels = some_pixels(32, 32)
    net, processor = reference(kind)
    with torch.no_grad():
        tokens = net.vision_model(
            **processor.image_processor(images=list(pixels), return_tensors="pt")
        ).last_hidden_state
        alone = torch.stack([net.vision_model.head(tokens[:, cell : cell + 1]) for cell in range(16)], dim=1)
    encoder, _ = loaded(kind)
    assert (encoder.size, encoder.grid, encoder.dim) == (32, (4, 4), checkpoints.HIDDEN)
    assert distance(encoder.encode(pixels).cells, unit(alone)) <= TOLERANCE


def test_naflex_keeps_the_shape_of_a_picture_of_another_size(loaded: Loaded) -> None:
    encoder, _ = loaded("siglip2")
    made = encoder.encode(some_pixels(30, 90))  # 2 x 6 patches of the 16 allowed: padding is no cell
    assert made.cells.shape == (3, 12, checkpoints.HIDDEN)


@pictures_of_every_kind
def test_tokens_are_float32_of_unit_length(loaded: Loaded, kind: str) -> None:
    made = loaded(kind)[0].encode(some_pixels(32, 32))
    for tokens in (made.cells, made.whole):
        assert tokens.dtype == torch.float32
        assert distance(tokens.norm(dim=-1), 1.0) < 1e-5


@pictures_of_every_kind
def test_a_picture_gives_the_same_alone_and_in_a_batch_and_read_only(loaded: Loaded, kind: str) -> None:
    encoder, _ = loaded(kind)
    pixels = some_pixels(32, 32, count=5)
    pixels.setflags(write=False)
    before = pixels.copy()
    together = encoder.encode(pixels)
    alone = encoder.encode(pixels[2:3])
    assert distance(alone.cells[0], together.cells[2]) < 1e-5
    assert distance(alone.whole[0], together.whole[2]) < 1e-5
    assert np.array_equal(pixels, before)


@pictures_of_every_kind
def test_bfloat16_stays_close_to_float32(loaded: Loaded, kind: str) -> None:
    pixels = some_pixels(32, 32)
    exact = loaded(kind)[0].encode(pixels)
    rough = loaded(kind, "bfloat16")[0].encode(pixels)
    assert rough.whole.dtype == torch.float32
    assert float((exact.cells * rough.cells).sum(-1).min()) > 0.999
    assert distance(exact.cells, rough.cells) > 0  # it did run in another format


# Sound -----------------------------------------------------------------------------------------------------------


def clap_reference(parts: tuple[Any, Any], samples: NDArray[np.float32]) -> tuple[Any, Any]:
    """Transformers' own whole and last map of 16 kHz sound, none of it declared longer than the span.

    Its extractor declares one sound of a fused batch longer at random.
    """
    net, processor = parts
    raised = Resampler(16_000, 48_000, CPU)(torch.from_numpy(samples))
    inputs = processor.feature_extractor(list(raised.numpy()), sampling_rate=48_000, return_tensors="pt")
    inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
    with torch.no_grad():
        return net, net.get_audio_features(**inputs)


@sounds_of_every_kind
@pytest.mark.parametrize("length", [32_000, 16_000, 9_001, 700, 1])
def test_the_whole_sound_equals_the_features_of_transformers(
    reference: Reference, loaded: Loaded, kind: str, length: int
) -> None:
    samples = some_samples(3, length)
    _, expected = clap_reference(reference(kind), samples)
    made = loaded(kind)[0].encode(samples)
    assert distance(made.whole, unit(expected.pooler_output)) <= TOLERANCE


def test_a_sound_token_is_a_step_in_time_of_the_last_map_projected(reference: Reference, loaded: Loaded) -> None:
    samples = some_samples(2, 32_000)
    net, expected = clap_reference(reference("clap"), samples)
    encoder, _ = loaded("clap")
    made = encoder.encode(samples)
    steps = expected.last_hidden_state.mean(2).transpose(1, 2)
    assert made.tokens.shape == (2, 32, checkpoints.DIM)
    assert encoder.token_s == pytest.approx(2.0 / 32)
    assert distance(made.tokens, unit(net.audio_projection(steps))) <= TOLERANCE


def test_a_late_burst_shows_in_the_tokens_of_its_time(loaded: Loaded) -> None:
    encoder, _ = loaded("clap-pad")
    quiet = np.zeros((1, 32_000), np.float32)
    burst = quiet.copy()
    burst[:, 24_000:28_000] = some_samples(1, 4_000)[0] * 20
    change = (encoder.encode(burst).tokens - encoder.encode(quiet).tokens)[0].norm(dim=-1)
    assert 24 <= int(change.argmax()) < 28  # 32 tokens over two seconds


@pytest.mark.parametrize(("length", "tokens"), [(1, 1), (999, 1), (1_001, 2), (16_000, 16), (32_000, 32), (40_000, 40)])
def test_sound_of_any_length_has_tokens_to_its_end(loaded: Loaded, length: int, tokens: int) -> None:
    made = loaded("clap")[0].encode(some_samples(2, length))
    assert made.tokens.shape == (2, tokens, checkpoints.DIM)
    assert made.whole.shape == (2, checkpoints.DIM)
    assert distance(made.tokens.norm(dim=-1), 1.0) < 1e-5
    assert distance(made.whole.norm(dim=-1), 1.0) < 1e-5


def test_sound_beyond_the_span_starts_with_the_tokens_of_the_span(loaded: Loaded) -> None:
    encoder, _ = loaded("clap")
    samples = some_samples(1, 40_000)
    samples[:, 31_000:33_000] = 0.0  # so that cutting before or after resampling is the same
    long, first, rest = (encoder.encode(part) for part in (samples, samples[:, :32_000], samples[:, 32_000:]))
    assert distance(long.tokens[:, :32], first.tokens) < TOLERANCE
    assert distance(long.tokens[:, 32:], rest.tokens) < TOLERANCE
    assert distance(long.whole, functional.normalize(0.8 * first.whole + 0.2 * rest.whole, dim=-1)) < TOLERANCE


def test_a_sound_gives_the_same_alone_and_in_a_batch(loaded: Loaded) -> None:
    encoder, _ = loaded("clap-fused")
    samples = some_samples(4, 16_000)
    assert distance(encoder.encode(samples[1:2]).tokens[0], encoder.encode(samples).tokens[1]) < 1e-5


def test_sound_in_bfloat16_stays_close_to_float32(loaded: Loaded) -> None:
    samples = some_samples(3, 16_000)
    exact = loaded("clap")[0].encode(samples)
    rough = loaded("clap", "bfloat16")[0].encode(samples)
    assert float((exact.tokens * rough.tokens).sum(-1).min()) > 0.999
    assert distance(exact.tokens, rough.tokens) > 0


@pytest.mark.parametrize(("source_hz", "target_hz"), [(16_000, 48_000), (16_000, 44_100), (48_000, 16_000)])
def test_a_resampled_tone_is_the_same_tone(source_hz: int, target_hz: int) -> None:
    def tone(rate_hz: int) -> NDArray[np.float32]:
        return np.sin(2 * np.pi * 1000 * np.arange(rate_hz // 4) / rate_hz).astype(np.float32)[None]

    made = Resampler(source_hz, target_hz, CPU)(torch.from_numpy(tone(source_hz))).numpy()
    edge = target_hz // 50
    assert made.shape == (1, target_hz // 4)
    assert distance(made[:, edge:-edge], tone(target_hz)[:, edge:-edge]) < 1e-4


def test_raising_the_rate_invents_nothing_above_8_khz() -> None:
    tone = np.sin(2 * np.pi * 6000 * np.arange(16_000) / 16_000).astype(np.float32)[None]
    made = Resampler(16_000, 48_000, CPU)(torch.from_numpy(tone))[0, 4800:-4800]
    power = torch.fft.rfft(made * torch.hann_window(len(made))).abs().square()
    above = power[round(len(made) * 8500 / 48_000) :]
    assert float(above.sum() / power.sum()) < 1e-7  # -70 dB


# Texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "clap", "clap-fused"])
def test_texts_equal_the_features_of_transformers(reference: Reference, loaded: Loaded, kind: str) -> None:
    text: TextEncoder
    text = loaded(kind)[1]
    net, processor = reference(kind)
    padding = "max_length" if "siglip" in kind else True
    with torch.no_grad():
        tokens = processor.tokenizer(TEXTS, padding=padding, truncation=True, return_tensors="pt")
        expected = unit(net.get_text_features(**tokens).pooler_output)
    made = text.encode(TEXTS)
    assert made.dtype == np.float32
    assert distance(made, expected) <= TOLERANCE
    assert distance(made[0], made[1]) > 100 * TOLERANCE
    assert text.encode([]).shape == (0, text.dim)


def test_both_sides_of_a_family_share_a_space_and_a_name(folders: dict[str, Path], loaded: Loaded) -> None:
    sound: SoundEncoder
    sound, sound_text = loaded("clap")
    picture, picture_text = loaded("clip")
    assert (picture.dim, picture.sha256, picture.name) == (picture_text.dim, picture_text.sha256, "clip:clip")
    assert (sound.dim, sound.sha256, sound.name) == (sound_text.dim, sound_text.sha256, "clap:clap")
    assert picture.sha256 == sha256_of(folders["clip"] / "model.safetensors")


def test_siglip_lowers_the_case_as_it_was_trained(loaded: Loaded) -> None:
    _, text = loaded("siglip")
    assert np.array_equal(text.encode(["A FIRE"]), text.encode(["a fire"]))


def test_the_names_in_the_settings_load_families_that_the_aligner_can_score(folders: dict[str, Path]) -> None:
    encoders = load_encoders(
        picture="clip",
        picture_model=folders["clip"],
        sound="clap",
        sound_model=folders["clap"],
        device="cpu",
        precision="float32",
    )
    seen, heard = encoders.picture.encode(some_pixels(32, 32)), encoders.sound.encode(some_samples(2, 16_000))
    seen_prompts = Queries.plain(torch.from_numpy(encoders.picture_text.encode(TEXTS)))
    heard_prompts = Queries.plain(torch.from_numpy(encoders.sound_text.encode(TEXTS)))
    assert Aligner().pictures(seen.cells, seen.whole, seen_prompts).shape == (3, len(TEXTS))
    assert Aligner().sounds(heard.tokens, heard.whole, heard_prompts).shape == (2, len(TEXTS))


def test_zero_shot_scores_equal_those_of_transformers_own_tokens(reference: Reference, loaded: Loaded) -> None:
    net, processor = reference("clip")
    pixels = some_pixels(32, 32)
    with torch.no_grad():
        inputs = processor.image_processor(images=list(pixels), return_tensors="pt")
        tokens = net.vision_model(**inputs).last_hidden_state
        projected = net.visual_projection(net.vision_model.post_layernorm(tokens))
        words = processor.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
        queries = Queries.plain(functional.normalize(net.get_text_features(**words).pooler_output, dim=-1))
    theirs = functional.normalize(projected, dim=-1)
    picture, text = loaded("clip")
    made = picture.encode(pixels)
    scores = Aligner().pictures(made.cells, made.whole, Queries.plain(torch.from_numpy(text.encode(TEXTS))))
    expected = Aligner().pictures(theirs[:, 1:].contiguous(), theirs[:, 0].contiguous(), queries)
    assert distance(scores, expected) <= 10 * TOLERANCE  # the attention is fifty times as steep as a cosine
    assert float(scores.std()) > 100 * TOLERANCE
    attention = Aligner().attention(made.cells[0], made.cells[0, 5])
    assert int(attention.argmax()) == 5


# Refusals --------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_kind_is_refused_by_name(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="'bert' checkpoint; clip needs one whose model_type is clip"):
        load_clip(str(folders["bert"]), "cpu")
    with pytest.raises(ModelError, match="'clip' checkpoint; siglip2 needs one whose model_type is siglip or siglip2"):
        load_siglip2(str(folders["clip"]), "cpu")
    with pytest.raises(ModelError, match="'siglip' checkpoint; clap needs"):
        load_clap(str(folders["siglip"]), "cpu")


@pytest.mark.parametrize("model", ["/nowhere/clip", "./nowhere", "a/b/c", "~/nowhere-at-all"])
def test_a_folder_that_does_not_exist_is_not_sought_on_the_hub(model: str) -> None:
    with pytest.raises(ModelError, match="is not a folder that exists"):
        load_clip(model, "cpu")


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        load_clip(str(tmp_path), "cpu")
    (tmp_path / "config.json").write_text("[1, 2")
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        load_clip(str(tmp_path), "cpu")
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(ModelError, match="None checkpoint"):
        load_clip(str(tmp_path), "cpu")


def test_a_name_that_is_neither_folder_nor_id_is_refused() -> None:
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        load_clip("what is this?", "cpu")


def test_pickled_weights_are_never_opened(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled weights .* are never loaded"):
        load_clip(str(folder), "cpu")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_damaged_weights_are_refused(copy_of: Callable[[str], Path], keep: int) -> None:
    folder = copy_of("clip")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"is damaged: SafetensorError.*fetch it again"):
        load_clip(str(folder), "cpu")


def test_a_missing_tensor_is_not_filled_with_random_numbers(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors are missing or of another shape, visual_projection\.weight"):
        load_clip(str(folder), "cpu")


def test_weights_of_another_shape_than_the_configuration_are_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    config = json.loads((folder / "config.json").read_text())
    config["projection_dim"] = 12
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"clip:copy.*fetch"):
        load_clip(str(folder), "cpu")


def test_a_configuration_of_nonsense_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["patch_size"] = "eight"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="clip:copy cannot be loaded"):
        load_clip(str(folder), "cpu")


def test_a_missing_preprocessor_is_named(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no usable AutoImageProcessor.*beside the weights"):
        load_clip(str(folder), "cpu")


def test_a_missing_vocabulary_is_not_replaced_by_an_empty_one(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no vocabulary \(tokenizer\.json"):
        load_clip(str(folder), "cpu")


def test_an_unreadable_vocabulary_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="has no usable AutoTokenizer"):
        load_clip(str(folder), "cpu")


def test_the_vocabulary_of_another_network_is_refused(copy_of: Callable[[str], Path], folders: dict[str, Path]) -> None:
    folder = copy_of("siglip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders["clip"] / name, folder / name)
    with pytest.raises(ModelError, match="its tokenizer has 517 words, its network 33"):
        load_siglip2(str(folder), "cpu")


def test_a_preprocessor_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.write_clip(tmp_path / "odd", processor_pixels=48)
    with pytest.raises(ModelError, match="makes pictures of 48 x 48, its network takes 32 x 32"):
        load_clip(str(folder), "cpu")


def test_a_preprocessor_that_does_more_than_scale_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config |= {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does more to pixels than to scale and shift them"):
        load_clip(str(folder), "cpu")


def test_code_that_a_checkpoint_brings_along_is_never_run(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    marker = folder / "was-run"
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Own:\n    pass\n")
    for name, key in (("config.json", "AutoModel"), ("preprocessor_config.json", "AutoImageProcessor")):
        config = json.loads((folder / name).read_text())
        config["auto_map"] = {key: "own.Own", "AutoConfig": "own.Own"}
        config["image_processor_type"] = "Own"
        (folder / name).write_text(json.dumps(config))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    try:
        load_clip(str(folder), "cpu")
    except ModelError as error:
        assert "clip:copy" in str(error)  # noqa: PT017  # whether it is refused or read without its code, nothing ran
    assert not marker.exists()


def test_weights_in_several_files_are_read_and_hashed_together(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = split_weights(folders["clip"], tmp_path / "split")
    pixels = some_pixels(32, 32)
    one, _ = load_clip(str(folders["clip"]), "cpu")
    split, _ = load_clip(str(folder), "cpu")
    assert distance(one.encode(pixels).whole, split.encode(pixels).whole) == 0
    assert split.sha256 not in {one.sha256, *(sha256_of(path) for path in folder.glob("*.safetensors"))}


def test_a_missing_part_of_split_weights_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = split_weights(folders["clip"], tmp_path / "split")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks model-00002-of-00002"):
        load_clip(str(folder), "cpu")


def test_an_index_of_weights_cannot_name_files_elsewhere(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = split_weights(folders["clip"], tmp_path / "split")
    (tmp_path / "outside.safetensors").write_bytes((folders["clip"] / "model.safetensors").read_bytes())
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"logit_scale": "../outside.safetensors"}}))
    with pytest.raises(ModelError, match=r"lacks outside\.safetensors"):
        load_clip(str(folder), "cpu")


def split_weights(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors)
    where = {name: f"model-0000{1 + (number % 2)}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(where.values()):
        part = {name: tensors[name] for name in names if where[name] == file}
        save_file(part, target / file, metadata={"format": "pt"})
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return target


def test_a_model_larger_than_memory_is_refused_before_it_is_read(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("clip")
    elements = 1 << 38  # a terabyte of float32; the file has a hole of that size and takes no room
    header = json.dumps({"huge": {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * elements)
    with pytest.raises(ModelError, match=r"needs 1099\.5 GB on cpu, of which .* GB are free"):
        load_clip(str(folder), "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_there_is_named(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="no CUDA device is available"):
        load_clip(str(folders["clip"]), "cuda")


def test_a_batch_without_room_is_halved_and_a_single_row_is_an_error() -> None:
    sizes: list[int] = []

    def encode(rows: NDArray[np.float32]) -> list[float]:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("no room")
        return [float(row) for row in rows]

    rows = np.arange(7, dtype=np.float32)
    assert in_halves(encode, list.__add__, rows, "it") == list(range(7))
    assert sizes == [7, 3, 1, 2, 4, 2, 2]

    def full(rows: NDArray[np.float32]) -> list[float]:
        raise torch.OutOfMemoryError(f"no room for {len(rows)}")

    with pytest.raises(ModelError, match="it has no room for a batch of one: no room for 1"):
        in_halves(full, list.__add__, rows, "it")


# The hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


class Refusal(BaseHTTPRequestHandler):
    """A hub that answers every question with one refusal, in the hub's own words."""

    status = 404
    code = "RepoNotFound"

    def do_GET(self) -> None:  # http.server's name
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("X-Error-Message", "refused")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:  # http.server's name
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Refusal]]:
    handler = type("Answer", (Refusal,), {})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: loopback(host, port))
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def loopback(host: str, port: int) -> list[Any]:
    assert host == "127.0.0.1"
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]


def test_a_cached_id_needs_no_network(folders: dict[str, Path], cache: Path) -> None:
    commit = "0" * 40
    repository = cache / "models--owner--small-clip"
    shutil.copytree(folders["clip"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    encoder, _ = load_clip("owner/small-clip", "cpu")
    assert encoder.name == "clip:owner/small-clip"
    assert encoder.encode(some_pixels(32, 32)).cells.shape == (3, 16, checkpoints.DIM)


@pytest.mark.usefixtures("cache")
def test_an_id_that_is_not_cached_without_a_network_says_how_to_get_it() -> None:
    with pytest.raises(ModelError, match=r"not in the local cache and the hub cannot be reached.*hf download"):
        find_checkpoint("owner/nothing", "clip", ("clip",), CPU)


@pytest.mark.usefixtures("cache")
def test_an_id_that_is_not_cached_in_offline_mode_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"not in the local cache and the hub cannot be reached.*hf download"):
        find_checkpoint("owner/nothing", "clip", ("clip",), CPU)


@pytest.mark.usefixtures("cache", "hub")
def test_an_id_that_the_hub_does_not_know_is_refused() -> None:
    with pytest.raises(ModelError, match="the hub knows no model 'owner/nothing'"):
        find_checkpoint("owner/nothing", "clip", ("clip",), CPU)


@pytest.mark.usefixtures("cache")
def test_an_id_behind_a_licence_says_so(hub: type[Refusal]) -> None:
    hub.status, hub.code = 403, "GatedRepo"
    with pytest.raises(ModelError, match="licence to be accepted first"):
        find_checkpoint("owner/gated", "clip", ("clip",), CPU)


def test_loading_says_nothing_on_the_terminal(folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    load_siglip2(str(folders["siglip2"]), "cpu")
    assert capfd.readouterr() == ("", "")
