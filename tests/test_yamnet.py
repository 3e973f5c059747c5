"""YAMNet's wrapper around small LiteRT files with YAMNet's ends."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.audio import DIM
from models.encoders import TextEncoder
from models.errors import ModelError
from models.families.yamnet import CLASS_MAP, YamnetSounds, load_yamnet
from models.integrity import sha256_of
from models.load import load_compact_text, load_encoders
from models.logmel import LogMel
from tests.checkpoints import write_yamnet

SECOND = 16_000


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return load_compact_text()


@pytest.fixture(params=[False, True], ids=["from frames", "from samples"])
def takes_samples(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def write_class_map(folder: Path, count: int = 521) -> None:
    with (folder / CLASS_MAP).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "mid", "display_name"])
        writer.writerows([index, f"/m/{index}", f"sound number {index}"] for index in range(count))


def noise(count: int, length: int) -> NDArray[np.float32]:
    return np.random.default_rng(length).normal(0, 0.1, (count, length)).astype(np.float32)


def test_scores_are_those_of_the_file_for_each_patch(tmp_path: Path, text: TextEncoder, takes_samples: bool) -> None:
    weights, biases = write_yamnet(tmp_path / "yamnet.tflite", takes_samples=takes_samples)
    write_class_map(tmp_path)
    sounds, _ = load_yamnet(str(tmp_path / "yamnet.tflite"), text)
    assert isinstance(sounds, YamnetSounds)
    samples = noise(2, 2 * SECOND)
    scores = sounds.scores(samples).numpy()
    assert scores.shape == (2, 4, 521)
    for row, token in ((0, 0), (1, 2), (1, 3)):
        if takes_samples:
            start = token * 32 * 160
            patch = np.pad(samples[row], (0, SECOND))[start : start + 15_600].copy()
            heard = sounds._patches(np.pad(samples, ((0, 0), (0, SECOND))), 4)[row, token]
            assert np.array_equal(heard, patch)
            if start + 15_600 > 31_000:  # 2 s are cut to whole cells
                continue
            mean = patch.reshape(156, 100).mean(0)
        else:
            frames = LogMel()(torch.from_numpy(samples[row : row + 1]))[0].numpy()
            mean = frames[token * 32 : token * 32 + 96].mean(0)
        expected = 1 / (1 + np.exp(-(weights @ mean + biases)))
        np.testing.assert_allclose(scores[row, token], expected, atol=1e-4)


@pytest.mark.parametrize(("length", "tokens"), [(1, 1), (SECOND, 1), (2 * SECOND, 4), (3 * SECOND + 7, 7)])
def test_sound_of_any_length_has_unit_tokens_each_third_of_a_second(
    tmp_path: Path, text: TextEncoder, takes_samples: bool, length: int, tokens: int
) -> None:  # fmt: skip
    write_yamnet(tmp_path / "yamnet.tflite", takes_samples=takes_samples)
    write_class_map(tmp_path)
    sounds, sound_text = load_yamnet(str(tmp_path / "yamnet.tflite"), text)
    made = sounds.encode(noise(2, length))
    assert made.tokens.shape == (2, tokens, DIM)
    assert made.whole.shape == (2, DIM)
    assert float((made.tokens.norm(dim=-1) - 1).abs().max()) < 1e-5
    assert sound_text.encode(["a dog barking"]).shape == (1, DIM) == (1, sounds.dim)


def test_the_setting_loads_it_beside_the_pictures_and_its_digest_is_the_files(tmp_path: Path) -> None:
    file = tmp_path / "yamnet.tflite"
    write_yamnet(file, takes_samples=False)
    write_class_map(tmp_path)
    encoders = load_encoders(sound="yamnet", sound_model=file, device="cpu", runtime="torch", threads=1)
    assert encoders.sound.name == "yamnet:yamnet"
    assert encoders.sound.sha256 == sha256_of(file)
    assert encoders.sound.dim == encoders.sound_text.dim


def test_a_file_that_is_not_there_is_named(text: TextEncoder) -> None:
    with pytest.raises(ModelError, match=r"'/nowhere/yamnet\.tflite' is not a file that exists"):
        load_yamnet("/nowhere/yamnet.tflite", text)


def test_without_the_class_names_it_says_where_they_belong(tmp_path: Path, text: TextEncoder) -> None:
    write_yamnet(tmp_path / "yamnet.tflite", takes_samples=False)
    with pytest.raises(ModelError, match=r"yamnet_class_map\.csv is missing .* put it beside the model"):
        load_yamnet(str(tmp_path / "yamnet.tflite"), text)
    write_class_map(tmp_path, 10)
    with pytest.raises(ModelError, match="names 10 classes, YAMNet has 521"):
        load_yamnet(str(tmp_path / "yamnet.tflite"), text)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0" * 4096])
def test_a_file_of_another_format_is_refused(tmp_path: Path, text: TextEncoder, content: bytes) -> None:
    (tmp_path / "yamnet.tflite").write_bytes(content)
    write_class_map(tmp_path)
    with pytest.raises(ModelError, match="is not a LiteRT file that can be read"):
        load_yamnet(str(tmp_path / "yamnet.tflite"), text)


def test_another_network_is_refused_by_its_shapes(tmp_path: Path, text: TextEncoder) -> None:
    write_yamnet(tmp_path / "birds.tflite", takes_samples=False, classes=600)
    write_class_map(tmp_path)
    with pytest.raises(ModelError, match=r"is not YAMNet: it takes \(1, 96, 64\) and gives \[\(1, 600\)\]"):
        load_yamnet(str(tmp_path / "birds.tflite"), text)


def test_a_file_much_too_large_is_not_read(tmp_path: Path, text: TextEncoder) -> None:
    with (tmp_path / "yamnet.tflite").open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no room
    write_class_map(tmp_path)
    with pytest.raises(ModelError, match="has 1099512 MB; YAMNet has 4 to 16"):
        load_yamnet(str(tmp_path / "yamnet.tflite"), text)


def test_without_its_package_it_says_what_to_install(
    tmp_path: Path, text: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yamnet(tmp_path / "yamnet.tflite", takes_samples=False)
    write_class_map(tmp_path)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ModelError, match=r"pip install 'watchword\[yamnet\]'"):
        load_yamnet(str(tmp_path / "yamnet.tflite"), text)
