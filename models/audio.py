"""The `compact` sound encoder: log-mel frames, a small convolutional network, tokens in the text encoder's space.

A token is the mean of AudioSet's class names' embeddings, weighted by how far each is heard beyond the ordinary, and a
dimension for silence: so any prompt can be compared with it.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.encoders import SoundEncoder, SoundTokens, TextEncoder
from models.errors import ModelError
from models.integrity import load_safetensors, verify
from models.logmel import MEL_BANDS
from models.runtime import CompiledNet, Precision
from models.sound_net import CELL_FRAMES, TOKEN_S, SoundNet, cells_of, whole_cells

WEIGHTS = Path(__file__).parent / "weights" / "sound.safetensors"
SOUND_SHA256 = "4a45c686bc33a87366065d7fbbd60abe4c142ce159fb2e0eebb64107ab2ac57c"
DIM = 385  # MiniLM's and one for silence
RIDGE = 0.1  # of the mean variance
GRAPH_VERSION = 1  # raised whenever the forward pass changes: compiled graphs are found by it
MAX_LENGTHS = 4  # lengths of sound that stay compiled


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """The text encoder's space, stretched so that the names of sounds lie far apart.

    Sentence embeddings share most of their length with each other: unlike sounds have names with cosines of 0.3, and a
    mean of names lies near all of them. Centring on the names and equalising their variance leaves what tells them
    apart (ZCA; Kessy, Lewin and Strimmer 2018), with a ridge against directions that names hardly use.

    Attributes:
        centre: float32 ``(D,)``.
        stretch: float32 ``(D, D)``, symmetric.
    """

    centre: torch.Tensor
    stretch: torch.Tensor

    @classmethod
    def of_names(cls, embeddings: torch.Tensor) -> "Whitening":
        """Fit to the names' embeddings, ``(521, D)``."""
        names = embeddings.double()
        centre = names.mean(0)
        spread, directions = torch.linalg.eigh((names - centre).T @ (names - centre) / len(names))
        spread = spread.clamp_min(0)
        gain = (spread + RIDGE * spread.mean()).rsqrt()
        return cls(centre.float(), (directions * gain @ directions.T).float())

    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map text embeddings ``(K, D)`` to ``(K, D)``, unit length."""
        return functional.normalize((embeddings - self.centre) @ self.stretch, dim=-1)


class SoundText:
    """A `TextEncoder` for sounds: MiniLM, then the whitening."""

    def __init__(self, text: TextEncoder, whitening: Whitening, sha256: str) -> None:
        self.name = f"{text.name}-sounds"
        self.sha256 = hashlib.sha256(f"{text.sha256}{sha256}".encode()).hexdigest()
        self.dim = text.dim + 1
        self._text = text
        self._whitening = whitening

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode ``K`` texts to float32 ``(K, D)``, unit length, the last dimension 0."""
        vectors = self._whitening(torch.from_numpy(self._text.encode(texts)))
        return functional.pad(vectors, (0, 1)).numpy().astype(np.float32)


def load_sound_net(weights: Path, sha256: str) -> tuple[SoundNet, Whitening]:
    """Build the network from its weights, in evaluation mode, float32, and the space that its tokens lie in.

    Raises:
        ModelError: The file is missing, altered, or holds something else.
    """
    verify(weights, sha256, package="watchword")
    state = {name: tensor.float() for name, tensor in load_safetensors(weights).items()}
    try:
        names = functional.normalize(state.pop("class_embeddings"), dim=-1)
        whitening = Whitening.of_names(names)
        net = SoundNet(whitening(names))
        net.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"weight file {weights} does not fit the network: {error}; reinstall watchword") from error
    return net.eval(), whitening


class CompactSounds:
    """A `SoundEncoder` over the shipped weights.

    Attributes:
        token_s: A token spans this, and the next begins a third of it later.
        whitening: The space of the tokens, for prompts.
    """

    name = "watchword-sound"
    dim = DIM
    token_s = TOKEN_S
    sha256 = SOUND_SHA256

    def __init__(
        self,
        *,
        runtime: Literal["openvino", "torch"] = "openvino",
        device: str = "cpu",
        precision: Precision = "auto",
        threads: int = 2,
    ) -> None:
        """Check the weights; OpenVINO compiles for a length of sound when it first comes.

        Args:
            runtime: What carries the network.
            device: Where it runs.
            precision: Of the network. The front end is float32 always: in bfloat16 the quiet bands of a loud spectrum
                are lost.
            threads: Sounds that are encoded at once.

        Raises:
            ModelError: The weights are missing or altered.
        """
        net, self.whitening = load_sound_net(WEIGHTS, SOUND_SHA256)
        self._net = net.to(device)
        self._device = device
        self._precision: Precision = precision
        self._threads = threads
        self._compiled: OrderedDict[int, tuple[CompiledNet, CompiledNet]] | None = None
        self._lock = threading.Lock()
        if runtime == "openvino":
            self._compiled = OrderedDict()
        # On a CPU torch is the reference, so it stays exact unless told otherwise.
        elif precision == "bfloat16" or (precision == "auto" and device != "cpu"):
            self._net.backbone.to(torch.bfloat16)

    def encode(self, samples: NDArray[np.float32]) -> SoundTokens:
        """Encode float32 ``(N, M)``, 16 kHz mono, -1..1, to ``(N, U, 385)`` tokens, one each 0.32 s."""
        tokens, whole, _ = self._hear(samples)
        return SoundTokens(tokens, whole)

    def scores(self, samples: NDArray[np.float32]) -> torch.Tensor:
        """Score AudioSet's classes: float32 ``(N, M)`` to ``(N, U, 521)``, 0..1."""
        return self._hear(samples)[2]

    @torch.inference_mode()
    def _hear(self, samples: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if samples.dtype != np.float32 or samples.ndim != 2:
            raise ModelError(f"sounds must be float32 (N, M), 16 kHz mono, not {samples.dtype} {samples.shape}")
        rows = whole_cells(samples)
        if self._compiled is None:
            result: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self._net(torch.from_numpy(rows).to(self._device))
            return result
        with self._lock:
            front_end, backbone = self._compile(self._compiled, rows.shape[1])
        (frames,) = front_end(rows)
        (logits,) = backbone(frames.numpy())
        return self._net.meaning(logits)

    def _compile(
        self, compiled: OrderedDict[int, tuple[CompiledNet, CompiledNet]], length: int
    ) -> tuple[CompiledNet, CompiledNet]:
        """The two parts for a length of sound; the length that was not asked for longest makes room."""
        if length not in compiled:
            frames = cells_of(length) * CELL_FRAMES
            key = f"v{GRAPH_VERSION} {SOUND_SHA256}"
            compiled[length] = (
                CompiledNet(
                    lambda: self._net.front_end,
                    np.zeros((1, length), np.float32),
                    key=f"log-mel {key}",
                    precision="float32",
                    threads=self._threads,
                ),
                CompiledNet(
                    lambda: self._net.backbone,
                    np.zeros((1, frames, MEL_BANDS), np.float32),
                    key=f"sounds {key}",
                    precision=self._precision,
                    threads=self._threads,
                ),
            )
            while len(compiled) > MAX_LENGTHS:
                compiled.popitem(last=False)
        compiled.move_to_end(length)
        return compiled[length]


def load_compact_sound(
    *,
    runtime: Literal["openvino", "torch"] = "openvino",
    device: str = "cpu",
    precision: Precision = "auto",
    threads: int = 2,
    text: TextEncoder | None = None,
) -> tuple[SoundEncoder, TextEncoder]:
    """Load the `compact` sound encoder and the text encoder of its space.

    Args:
        runtime: See `CompactSounds`.
        device: See `CompactSounds`.
        precision: See `CompactSounds`.
        threads: See `CompactSounds`.
        text: MiniLM, where it is loaded already.

    Raises:
        ModelError: Weights are missing or altered.
    """
    from models.load import load_compact_text  # load.py imports this module in turn

    sounds = CompactSounds(runtime=runtime, device=device, precision=precision, threads=threads)
    return sounds, SoundText(text or load_compact_text(), sounds.whitening, sounds.sha256)
