"""Weight files as they were published, or not at all."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch

from models.errors import ModelError


def packaged(module: str, *parts: str, package: str = "") -> Path:
    """Where an installed package keeps a file; the package is not imported.

    Args:
        module: What it is imported as; ``-`` stands for ``_``.
        parts: Path below it.
        package: What it is installed as, where that differs.

    Raises:
        ModelError: It is not installed.
    """
    spec = find_spec(module.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModelError(f"package {package or module} is not installed; pip install {package or module}")
    return Path(spec.origin).parent.joinpath(*parts)


def sha256_of(path: Path) -> str:
    """Lower-case hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, expected: str, *, package: str) -> str:
    """Refuse a weight file that is missing or altered; return its digest.

    Raises:
        ModelError: With the digests and what to reinstall.
    """
    if not path.is_file():
        raise ModelError(f"weight file {path} is missing; reinstall {package}")
    found = sha256_of(path)
    if found != expected:
        raise ModelError(
            f"weight file {path} is altered: SHA-256 {found[:16]}..., expected {expected[:16]}...; reinstall {package}"
        )
    return found


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file, on the CPU.

    Raises:
        ModelError: It is not a safetensors file.
    """
    from safetensors import SafetensorError  # models import with torch and numpy alone
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"weight file {path} cannot be read: {error}; install it again") from error
