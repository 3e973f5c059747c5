import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Recipes and reports read files; what runs on a device does not.
SCRIPT = """
import builtins, pkgutil, sys
import torch, numpy

allowed = {"torch", "numpy", "models"} | set(sys.stdlib_module_names)
ours = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if importer.partition(".")[0] == "models" and level == 0 and name.partition(".")[0] not in allowed:
        raise ImportError(f"{importer} imports {name}")
    return ours(name, globals, locals, fromlist, level)

before = set(sys.modules)
builtins.__import__ = guarded
import models
names = [module.name for module in pkgutil.walk_packages(models.__path__, "models.")
         if module.name.split(".")[1] not in {"train", "evaluate"}]
for name in names:
    __import__(name)
heavy = {"transformers", "tokenizers", "safetensors", "huggingface_hub", "openvino", "PIL", "av", "cv2"}
assert not heavy & (set(sys.modules) - before), heavy & set(sys.modules)
print(*names)
"""


def test_every_module_of_models_imports_with_torch_and_numpy_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"models.vision", "models.text", "models.families.clap", "models.encoders"} <= set(done.stdout.split())


def test_the_guard_sees_a_module_that_needs_more(tmp_path: Path) -> None:
    package = tmp_path / "models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "heavy.py").write_text("import pydantic\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode != 0
    assert "models.heavy imports pydantic" in done.stderr
