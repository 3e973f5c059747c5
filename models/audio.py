"""The `compact` sound encoder: log-mel frames, a small convolutional network, tokens in the text encoder's space.

The network scores AudioSet's 521 classes (Gemmeke et al. 2017) three times a second, as distilled from a teacher by
`models/train/sound.py`. A token is the mean of the class names' embeddings, weighted by their scores, with a share for
nothing in particular: so any prompt can be compared with it, and a faint or ordinary sound is near no alarm.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.encoders import SoundEncoder, SoundTokens
from models.errors import ModelError
from models.integrity import load_safetensors, verify
from models.logmel import HOP_SAMPLES, MEL_BANDS, SAMPLE_RATE_HZ, WINDOW_SAMPLES, LogMel
from models.runtime import CompiledNet, Precision

CLASSES = 521
CELL_FRAMES = 32  # the network's stride in time
TOKEN_CELLS = 3  # 96 frames, the span that the teacher hears at once
TOKEN_S = TOKEN_CELLS * CELL_FRAMES * HOP_SAMPLES / SAMPLE_RATE_HZ
CENTRE, SCALE = -3.0, 3.0  # brings log-mel frames to about -1..2

STEM_CHANNELS = 48
STEM_KERNEL, STEM_STRIDE = 7, 4
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (384, 2))  # channels, stride
FEATURES = 768

WEIGHTS = Path(__file__).parent / "weights" / "sound.safetensors"
SOUND_SHA256 = "f4bc088bbb624be9e663fb47ffefc5cd4069747706db6324513f3ea2788fe989"
GRAPH = 1  # raised with each change of the forward pass: compiled graphs are kept by it
DIM = 384
SILENCE_CLASS = 494  # AudioSet's "Silence"
NOTHING_SHARE = 0.3
MAX_LENGTHS = 4  # lengths of sound that stay compiled


class Block(nn.Module):
    """A 3 × 3 convolution with a shortcut where shapes allow.

    Dense rather than depthwise-separable: as fast at these widths, and several times faster to train on a CPU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, has_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.norm = nn.BatchNorm2d(outputs) if has_norm else nn.Identity()
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, T, F)`` to ``(N, outputs, T / stride, F / stride)``."""
        y = functional.relu(self.norm(self.conv(x)))
        return x + y if self.has_shortcut else y


class SoundBackbone(nn.Module):
    """Log-mel frames to class logits, a token each 0.32 s.

    Args:
        has_norm: With batch norms, as it is trained; without, as it is shipped, when they are folded.
    """

    def __init__(self, *, has_norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STEM_CHANNELS, STEM_KERNEL, STEM_STRIDE, padding=STEM_KERNEL // 2)
        blocks, channels = [], STEM_CHANNELS
        for outputs, stride in BLOCKS:
            blocks.append(Block(channels, outputs, stride, has_norm=has_norm))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(channels, FEATURES, (1, MEL_BANDS // CELL_FRAMES))
        self.classifier = nn.Linear(FEATURES, CLASSES)

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Turn ``(N, 32 cells, 64)`` log-mel frames into ``(N, cells - 2, 768)``."""
        x = functional.relu(self.stem((frames[:, None] - CENTRE) / SCALE))
        x = functional.relu(self.head(self.blocks(x))).squeeze(3)  # (N, 768, cells)
        return functional.avg_pool1d(x, TOKEN_CELLS, 1).transpose(1, 2)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Turn ``(N, 32 cells, 64)`` log-mel frames into logits ``(N, cells - 2, 521)``."""
        logits: torch.Tensor = self.classifier(self.features(frames))
        return logits


class SoundNet(nn.Module):
    """Samples to scores and tokens, in one graph.

    Args:
        class_embeddings: float32 ``(521, D)``, unit length, the classes' names in the text encoder's space.
    """

    class_embeddings: torch.Tensor
    nothing: torch.Tensor

    def __init__(self, class_embeddings: torch.Tensor) -> None:
        super().__init__()
        self.front_end = LogMel()
        self.backbone = SoundBackbone()
        self.register_buffer("class_embeddings", class_embeddings)
        self.register_buffer("nothing", class_embeddings[SILENCE_CLASS], persistent=False)

    def forward(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Hear float32 ``(N, M)``, `whole_cells` long.

        Returns:
            Tokens ``(N, U, D)`` and whole ``(N, D)``, unit length, and class scores ``(N, U, 521)``, 0..1.
        """
        frames = self.front_end(samples).to(self.backbone.classifier.weight.dtype)
        scores = self.backbone(frames).float().sigmoid()
        tokens = sound_tokens(scores, self.class_embeddings, self.nothing)
        whole = sound_tokens(scores.mean(1, keepdim=True), self.class_embeddings, self.nothing)
        return tokens, whole[:, 0], scores


def sound_tokens(scores: torch.Tensor, class_embeddings: torch.Tensor, nothing: torch.Tensor) -> torch.Tensor:
    """Turn class scores into places in the text encoder's space.

    The root lifts what is probable beside what is loudest. Ranking by these tokens' cosines is better than by the best
    product of score and name's cosine, for the teacher's scores and the student's.

    Args:
        scores: ``(..., 521)``, 0..1.
        class_embeddings: ``(521, D)``.
        nothing: ``(D,)``, mixed in as if it always scored `NOTHING_SHARE` squared: what scores faintly stays near it.

    Returns:
        ``(..., D)``, unit length.
    """
    return functional.normalize(scores.sqrt() @ class_embeddings + NOTHING_SHARE * nothing, dim=-1)


def cells_of(samples: int) -> int:
    """Cells of the network, 0.32 s each, that a sound of so many samples is cut or filled up to: at least three."""
    frames = 1 + (samples - WINDOW_SAMPLES) // HOP_SAMPLES if samples >= WINDOW_SAMPLES else 0
    return max(TOKEN_CELLS, (frames + CELL_FRAMES // 2) // CELL_FRAMES)


def whole_cells(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut or fill with silence ``(N, M)`` to a whole number of cells: 2 s lose 60 ms, which the next window has."""
    length = (cells_of(samples.shape[1]) * CELL_FRAMES - 1) * HOP_SAMPLES + WINDOW_SAMPLES
    kept = samples[:, :length]
    return np.ascontiguousarray(np.pad(kept, ((0, 0), (0, length - kept.shape[1]))), np.float32)


def load_sound_net(weights: Path, sha256: str) -> SoundNet:
    """Build the network from its weights, in evaluation mode, float32.

    Raises:
        ModelError: The file is missing, altered, or holds something else.
    """
    verify(weights, sha256, package="watchword")
    state = {name: tensor.float() for name, tensor in load_safetensors(weights).items()}
    if "class_embeddings" not in state:
        raise ModelError(f"weight file {weights} holds no class embeddings; reinstall watchword")
    net = SoundNet(functional.normalize(state["class_embeddings"], dim=-1))
    try:
        net.backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if "." in k})
    except RuntimeError as error:
        raise ModelError(f"weight file {weights} does not fit the network: {error}; reinstall watchword") from error
    return net.eval()


class CompactSounds:
    """A `SoundEncoder` over the shipped weights.

    Attributes:
        token_s: A token spans this, and the next begins a third of it later.
    """

    name = "watchword-sound"
    dim = DIM
    token_s = TOKEN_S
    sha256 = SOUND_SHA256

    def __init__(
        self,
        *,
        runtime: Literal["openvino", "torch"] = "openvino",
        device: Literal["cpu", "cuda"] = "cpu",
        precision: Precision = "auto",
        threads: int = 2,
    ) -> None:
        """Check the weights; compile for a length of sound when it first comes.

        Args:
            runtime: What carries the network.
            device: Where it runs.
            precision: Not used: it is float32 everywhere.
            threads: Sounds that are encoded at once.

        Raises:
            ModelError: The weights are missing or altered.
        """
        # The spectrum of a quiet sound beside a loud one does not survive bfloat16, and the network is small.
        del precision
        self._runtime = runtime
        self._device = device
        self._threads = threads
        self._net = load_sound_net(WEIGHTS, SOUND_SHA256).to(device)
        self._compiled: dict[int, CompiledNet] = {}

    def encode(self, samples: NDArray[np.float32]) -> SoundTokens:
        """Encode float32 ``(N, M)``, 16 kHz mono, -1..1, to ``(N, U, 384)`` tokens, one each 0.32 s."""
        tokens, whole, _ = self._run(samples)
        return SoundTokens(tokens, whole)

    def scores(self, samples: NDArray[np.float32]) -> torch.Tensor:
        """Score AudioSet's classes: float32 ``(N, M)`` to ``(N, U, 521)``, 0..1."""
        return self._run(samples)[2]

    @torch.inference_mode()
    def _run(self, samples: NDArray[np.float32]) -> tuple[torch.Tensor, ...]:
        rows = whole_cells(samples)
        if self._runtime == "torch":
            result: tuple[torch.Tensor, ...] = self._net(torch.from_numpy(rows).to(self._device))
            return result
        return self._compiled_for(rows.shape[1])(rows)

    def _compiled_for(self, length: int) -> CompiledNet:
        if length not in self._compiled:
            while len(self._compiled) >= MAX_LENGTHS:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[length] = CompiledNet(
                lambda: self._net,
                np.zeros((1, length), np.float32),
                key=f"sound {SOUND_SHA256} {GRAPH}",
                precision="float32",
                threads=self._threads,
            )
        return self._compiled[length]


def load_compact_sound(
    *,
    runtime: Literal["openvino", "torch"] = "openvino",
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Precision = "auto",
    threads: int = 2,
) -> SoundEncoder:
    """Load the `compact` sound encoder. Its prompts come from MiniLM, like those for pictures.

    Raises:
        ModelError: The weights are missing or altered.
    """
    return CompactSounds(runtime=runtime, device=device, precision=precision, threads=threads)
