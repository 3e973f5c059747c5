"""A checkpoint, from a folder or the hub: found, checked, then loaded. It is hostile until its kind is known.

Weights come from safetensors alone (a pickle can run code) and no code of a checkpoint is ever run.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.errors import ModelError
from models.integrity import sha256_of
from models.memory import require_room

# Names of a repository's files that may be fetched. Other formats of the same weights stay where they are.
WANTED = ("*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors")
# What transformers, tokenizers and the hub's client raise for a file that is not what its name says.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, ImportError)
FLOAT32_BYTES = 4
BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # as `torch.cpu.get_capabilities` names them


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Files of one checkpoint on this machine.

    Attributes:
        name: Family and id or the folder's own name, for events and metrics.
        folder: Where the files lie.
        model_type: What its configuration says it is.
        sha256: Of the weights, lower-case hex: the file's own, or with several files that of their digests in order.
    """

    name: str
    folder: Path
    model_type: str
    sha256: str


def find_checkpoint(model: str, family: str, model_types: tuple[str, ...], device: torch.device) -> Checkpoint:
    """Find a checkpoint and check everything that can be checked before it is loaded.

    Args:
        model: Folder, or hub id such as ``openai/clip-vit-large-patch14``. A cached id needs no network.
        family: ``clip``, ``siglip2`` or ``clap``: what the settings call it.
        model_types: Kinds that this family can load.
        device: Where it shall run.

    Raises:
        ModelError: Not found, another kind, no safetensors, damaged, or too large.
    """
    folder = Path(model).expanduser()
    is_folder = folder.is_dir()
    if not is_folder:
        if folder.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1:
            raise ModelError(f"{family} model {model!r} is not a folder that exists; give a folder or a hub id")
        folder = _fetch(model, family)
    model_type = _model_type(folder, model, family, model_types)
    weights = _weight_files(folder, model, family)
    parameters = sum(_count_parameters(path) for path in weights)
    # transformers reads into host memory first; the check that matters is the device's, where the room is scarcer.
    require_room(parameters * FLOAT32_BYTES, device, f"{family} model {model!r}")
    return Checkpoint(
        name=f"{family}:{folder.resolve().name if is_folder else model}",
        folder=folder,
        model_type=model_type,
        sha256=_digest(weights),
    )


def load_network(checkpoint: Checkpoint, network: Any, device: torch.device) -> Any:  # transformers has no types
    """Read a network's weights in float32 onto a device, ready for inference.

    Args:
        checkpoint: Where from.
        network: Class of transformers.
        device: Where it shall run.

    Raises:
        ModelError: Weights are missing, of another shape or unreadable, or memory does not suffice.
    """
    try:
        with _quiet():
            loaded, report = network.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        loaded = loaded.to(device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelError(f"no memory to load {checkpoint.name} on {device}; choose a smaller model") from error
    except _unreadable() as error:
        raise ModelError(f"{checkpoint.name} cannot be loaded: {_first_line(error)}; fetch it again") from error
    trained = {name for name, _ in loaded.named_parameters()}
    # transformers fills what is missing with random numbers and only warns.
    wrong = sorted(trained & {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if wrong:
        raise ModelError(
            f"{checkpoint.name}: {len(wrong)} tensors are missing or of another shape, {wrong[0]} first; "
            "the weights do not belong to config.json, fetch both again"
        )
    return loaded.eval().requires_grad_(requires_grad=False)


def load_part(checkpoint: Checkpoint, part: Any, **options: object) -> Any:  # transformers has no types
    """Read a tokenizer or a processor beside the weights.

    Args:
        checkpoint: Where from.
        part: Class of transformers.
        options: For its ``from_pretrained``.

    Raises:
        ModelError: Its files are missing or unreadable, or it would need code of the checkpoint's own.
    """
    try:
        with _quiet():
            return part.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False, **options)
    except _unreadable() as error:
        raise ModelError(
            f"{checkpoint.name} has no usable {part.__name__}: {_first_line(error)}; "
            "the folder needs the preprocessor and tokenizer files beside the weights"
        ) from error


def compute_dtype(device: torch.device, precision: str) -> torch.dtype:
    """Number format to run in: ``auto`` is bfloat16 where the processor computes in it, else float32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_it = any(torch.cpu.get_capabilities().get(unit) for unit in BFLOAT16_UNITS)
    return torch.bfloat16 if has_it else torch.float32


def usable_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device that is there.

    Raises:
        ModelError: CUDA was asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device is available; set encode.device to cpu, or check the driver with nvidia-smi")
    return chosen


def _fetch(model: str, family: str) -> Path:
    """Folder of a hub id: what is cached needs no network, the rest is downloaded once."""
    import httpx2  # models import with torch and numpy alone
    from huggingface_hub import errors, snapshot_download

    try:
        cached = Path(snapshot_download(model, allow_patterns=list(WANTED), local_files_only=True))
        if (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
            return cached
    except errors.HFValidationError as error:
        raise ModelError(f"{family} model {model!r} is neither a folder nor a hub id (owner/name)") from error
    except errors.LocalEntryNotFoundError:
        pass
    try:
        with _quiet():
            return Path(snapshot_download(model, allow_patterns=list(WANTED)))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"hub model {model!r} asks for its licence to be accepted first; do so on its page, then log in with "
            "`hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"the hub knows no model {model!r}, or it is private; check the id") from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise ModelError(
            f"hub model {model!r} is not in the local cache and the hub cannot be reached; fetch it where there is a "
            f"network (`hf download {model}`) and give its folder, or use the built-in encoder (compact)"
        ) from error


def _model_type(folder: Path, model: str, family: str, model_types: tuple[str, ...]) -> str:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{family} model {model!r} has no readable config.json ({type(error).__name__}); "
            "give the folder that holds config.json and model.safetensors"
        ) from error
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in model_types:
        expected = " or ".join(model_types)
        raise ModelError(f"{model!r} is a {found!r} checkpoint; {family} needs one whose model_type is {expected}")
    return str(found)


def _weight_files(folder: Path, model: str, family: str) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return (folder / "model.safetensors",)
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{index} is not an index of weight files; fetch it again") from error
        # A name from the file must stay a name: nothing outside the folder is opened.
        files = tuple(folder / Path(name).name for name in names)
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise ModelError(
                f"{family} model {model!r} lacks {missing[0]} of {len(files)} weight files; fetch it again"
            )
        return files
    raise ModelError(
        f"{family} model {model!r} has no model.safetensors; pickled weights (.bin, .pt) are never loaded, because "
        "they can run code: choose a safetensors revision, or convert them once on a machine that you can lose"
    )


def _count_parameters(path: Path) -> int:
    from safetensors import SafetensorError, safe_open  # models import with torch and numpy alone

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118  # not a dict
    except (SafetensorError, OSError) as error:
        raise ModelError(f"weight file {path} is damaged: {_first_line(error)}; fetch it again") from error
    return sum(int(torch.Size(shape).numel()) for shape in shapes)


def _digest(weights: tuple[Path, ...]) -> str:
    digests = [sha256_of(path) for path in weights]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode("ascii")).hexdigest()


def _unreadable() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import StrictDataclassError  # models import with torch and numpy alone
    from safetensors import SafetensorError

    return (*UNREADABLE, StrictDataclassError, SafetensorError)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars and load reports off the terminal; what is wrong becomes an error here."""
    from transformers.utils import logging  # models import with torch and numpy alone

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
