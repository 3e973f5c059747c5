"""Who may import whom is written down in `.importlinter`; here it is shown that it catches what it should."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code alone, to be spoilt."""
    for package in ("streamer", "models"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=lambda _, names: {n for n in names if not _is_code(n)}
        )
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def _is_code(name: str) -> bool:
    return name.endswith(".py") or ("." not in name and name not in {"__pycache__", "weights"})


def spoil(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def test_a_module_without_a_room_a_stage_that_knows_another_and_torch_elsewhere_are_refused(copy: Path) -> None:
    (copy / "streamer" / "roomless.py").write_text("")
    spoil(copy / "streamer" / "decode.py", "import streamer.window\nimport torch")
    spoil(copy / "models" / "text.py", "import streamer.types")
    found = lint(copy)
    assert found.returncode != 0
    assert "roomless" in found.stdout
    (copy / "streamer" / "roomless.py").unlink()
    found = lint(copy)
    assert found.returncode != 0
    assert "streamer.decode -> streamer.window" in found.stdout
    assert "streamer.decode -> torch" in found.stdout
    assert "models.text -> streamer.types" in found.stdout


def test_the_code_as_it_is_keeps_the_directions(copy: Path) -> None:
    found = lint(copy)
    assert found.returncode == 0, found.stdout
