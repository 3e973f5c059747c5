"""The picture side of a family: frames through the checkpoint's own preprocessing into tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from models.encoders import PictureTokens
from models.errors import ModelError
from models.families.checkpoint import Checkpoint
from models.memory import Uploader, in_halves

# Preprocessed pictures to projected cells and whole, any float type, any length.
Tower = Callable[..., tuple[torch.Tensor, torch.Tensor]]


class Preprocessing:
    """What a checkpoint does to a picture before its network.

    Frames that come at the network's size need no resize and no crop, so only arithmetic is left, and that is done in
    batches on the device. Others go through the checkpoint's own processor, its Pillow variety: what the published
    weights were evaluated with, and the same whether or not torchvision is installed.

    Args:
        processor: An image processor of transformers.
        size: Side of the network's input, pixels.
        device: Where the network lies.
        patch: Side of a patch in pixels where the network takes rows of patches instead of a picture, else 0.
    """

    def __init__(self, processor: Any, size: int, device: torch.device, *, patch: int = 0) -> None:
        factor = processor.rescale_factor if processor.do_rescale else 1.0
        mean = torch.tensor(processor.image_mean if processor.do_normalize else [0.0] * 3, dtype=torch.float64)
        deviation = torch.tensor(processor.image_std if processor.do_normalize else [1.0] * 3, dtype=torch.float64)
        self._gain = (factor / deviation).float().to(device)
        self._shift = (mean / deviation).float().to(device)
        self._processor = processor
        self._size = size
        self._upload = Uploader(device)
        self._patch = patch

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        """Turn uint8 ``(N, H, W, 3)`` RGB into the network's arguments."""
        if pixels.shape[1:3] != (self._size, self._size):
            made = self._processor(images=list(pixels), input_data_format="channels_last", return_tensors="pt")
            # The shapes are read by the host: on a device they would cost a wait.
            return {key: made[key] if key == "spatial_shapes" else made[key].to(self._upload.device) for key in made}
        scaled = self._upload(pixels) * self._gain - self._shift
        if not self._patch:
            return {"pixel_values": scaled.permute(0, 3, 1, 2)}
        side = self._size // self._patch
        cut = scaled.view(len(pixels), side, self._patch, side, self._patch, 3).permute(0, 1, 3, 2, 4, 5)
        return {
            "pixel_values": cut.reshape(len(pixels), side * side, -1),
            "spatial_shapes": torch.full((len(pixels), 2), side),
        }

    def require_fit(self, checkpoint: Checkpoint) -> None:
        """Refuse a processor that does not make what the network takes, or does more than we know to do ourselves.

        Raises:
            ModelError: What differs.
        """
        if not self._patch:
            odd = np.zeros((1, self._size + 2, self._size + 1, 3), np.uint8)
            made = tuple(self(odd)["pixel_values"].shape[-2:])
            if made != (self._size, self._size):
                raise ModelError(
                    f"{checkpoint.name}: its preprocessor makes pictures of {made[0]} x {made[1]}, its network takes "
                    f"{self._size} x {self._size}; preprocessor_config.json and config.json do not belong together"
                )
        ramp = np.arange(self._size * self._size * 3, dtype=np.int64) * 7 % 256
        square = ramp.astype(np.uint8).reshape(1, self._size, self._size, 3)
        theirs = self._processor(
            images=list(square),
            do_resize=False,
            do_center_crop=False,
            input_data_format="channels_last",
            return_tensors="pt",
        )["pixel_values"]
        ours = self(square)["pixel_values"].cpu()
        if not torch.allclose(ours, theirs[:, : ours.shape[1]].float(), atol=1e-4):
            raise ModelError(
                f"{checkpoint.name}: its preprocessor ({type(self._processor).__name__}) does more to pixels than to "
                "scale and shift them, which is not supported; choose another checkpoint"
            )


class FamilyPictures:
    """A `PictureEncoder` over a family's picture tower.

    Args:
        checkpoint: Names it.
        preprocess: Pixels to the tower's arguments.
        tower: Those to projected cells ``(N, S, D)`` and whole ``(N, D)``.
        size: Side of the network's input, pixels.
        grid: Rows and columns of cells of a picture of that size.
        dim: Length of a token.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        preprocess: Preprocessing,
        tower: Tower,
        *,
        size: int,
        grid: tuple[int, int],
        dim: int,
    ) -> None:
        self.name = checkpoint.name
        self.sha256 = checkpoint.sha256
        self.size = size
        self.grid = grid
        self.dim = dim
        self._preprocess = preprocess
        self._tower = tower

    def encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
        """Encode uint8 ``(N, size, size, 3)`` RGB; other sizes are resized and cropped as the checkpoint does.

        Raises:
            ModelError: The device has no room for a single picture.
        """
        return in_halves(self._encode, _join, pixels, self.name)

    @torch.inference_mode()
    def _encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
        cells, whole = self._tower(**self._preprocess(pixels))
        return PictureTokens(functional.normalize(cells.float(), dim=-1), functional.normalize(whole.float(), dim=-1))


def _join(first: PictureTokens, second: PictureTokens) -> PictureTokens:
    return PictureTokens(torch.cat((first.cells, second.cells)), torch.cat((first.whole, second.whole)))
