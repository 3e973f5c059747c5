from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import ModelError
from models.load import load_chosen, load_encoders, pick_device, pick_runtime
from models.runtime import pick_precision
from streamer.settings import load_settings


def test_the_processor_decides_the_precision_unless_told() -> None:
    assert pick_precision("auto", ["FP32", "BF16"]) == "bfloat16"
    assert pick_precision("auto", ["FP32"]) == "float32"
    assert pick_precision("float32", ["FP32", "BF16"]) == "float32"


def test_a_processor_runs_openvino_and_a_gpu_torch() -> None:
    assert pick_runtime("auto", "cpu") == "openvino"
    assert pick_runtime("auto", "cuda") == "torch"
    assert pick_runtime("torch", "cpu") == "torch"


def test_openvino_on_a_gpu_is_refused() -> None:
    with pytest.raises(ModelError, match="OpenVINO runs on the CPU"):
        pick_runtime("openvino", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"encode\.device"):
        pick_device("cuda")
    assert pick_device("auto") == "cpu"


@pytest.mark.parametrize(
    "choice",
    [
        {"picture": "clip", "sound": "clap"},
        {"picture": "siglip2"},
        {"picture": "blip"},
        {"sound": "clap"},
        {"sound": "yamnet"},
    ],
)
def test_a_family_without_a_model_and_an_unknown_name_are_refused(choice: Any) -> None:
    with pytest.raises(ModelError, match=r"needs a model id|no picture encoder"):
        load_encoders(**choice, device="cpu", runtime="torch")


def test_the_settings_choose_the_encoders(tmp_path: Path) -> None:
    settings = load_settings(flags={"encode.picture": "clip", "encode.picture_model": str(tmp_path / "none")})
    with pytest.raises(ModelError, match=r"clip model .* is not a folder that exists"):
        load_chosen(settings.encode)


def test_the_compact_encoders_meet_their_texts_in_one_space_each() -> None:
    encoders = load_encoders(device="cpu", runtime="torch")
    assert encoders.picture.dim == encoders.picture_text.dim
    assert encoders.sound.dim == encoders.sound_text.dim
    assert len({encoders.picture.sha256, encoders.picture_text.sha256, encoders.sound.sha256}) == 3
