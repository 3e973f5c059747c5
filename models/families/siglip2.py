"""SigLIP 2 (Tschannen et al. 2025), in both forms that transformers knows, and SigLIP (Zhai et al. 2023).

Checkpoints of one fixed size have the first SigLIP's architecture (``model_type`` siglip). Those that keep a picture's
shape ("NaFlex", ``model_type`` siglip2) get the largest square that their budget of patches allows.
"""

from math import isqrt
from typing import Any

import torch

from models.encoders import PictureEncoder, TextEncoder
from models.errors import ModelError
from models.families.checkpoint import (
    Checkpoint,
    compute_dtype,
    find_checkpoint,
    load_network,
    load_part,
    usable_device,
)
from models.families.pictures import FamilyPictures, Preprocessing, Tower
from models.families.text import FamilyText, load_tokenizer, longest_text


def load_siglip2(model: str, device: str = "auto", precision: str = "auto") -> tuple[PictureEncoder, TextEncoder]:
    """Load SigLIP 2's two sides.

    SigLIP has no projection: a head with one learned query attends over the patch tokens, and what comes out of the
    head is the picture's embedding. A patch token itself therefore does not lie in the texts' space. A cell is what
    the head makes of that patch alone, as if its query saw nothing else: value and output projection, then the head's
    MLP. It is the same function that training tied to the texts, it costs about as much as one more layer, and the
    head's attention, which prefers what is salient in the picture to what a prompt asks for, plays no part in it.

    Args:
        model: Folder or hub id.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: Of the picture tower: ``auto`` (bfloat16 where the processor has it), ``bfloat16`` or ``float32``.

    Raises:
        ModelError: Not found, not SigLIP, without safetensors, damaged, or too large for the device.
    """
    from transformers import Siglip2Model, SiglipModel  # models import with torch and numpy alone

    place = usable_device(device)
    checkpoint = find_checkpoint(model, "siglip2", ("siglip", "siglip2"), place)
    net = load_network(checkpoint, SiglipModel if checkpoint.model_type == "siglip" else Siglip2Model, place)
    dim = net.config.vision_config.hidden_size
    if not getattr(net.vision_model.config, "vision_use_head", True) or net.config.text_config.projection_size != dim:
        raise ModelError(f"{checkpoint.name} has no head that joins pictures and texts; choose another checkpoint")
    pictures = _load_pictures(checkpoint, net, place, compute_dtype(place, precision))

    def features(input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        made: torch.Tensor = net.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return made

    tokenizer = load_tokenizer(checkpoint, net.config.text_config.vocab_size)
    max_tokens = longest_text(tokenizer, net.config.text_config.max_position_embeddings)
    text = FamilyText(
        checkpoint,
        tokenizer,
        features,
        dim=dim,
        device=place,
        max_tokens=max_tokens,
        is_fixed_length=True,
        is_lowered=True,
    )
    return pictures, text


def _load_pictures(
    checkpoint: Checkpoint,
    net: Any,  # transformers has no types
    device: torch.device,
    dtype: torch.dtype,
) -> FamilyPictures:
    from transformers import AutoImageProcessor  # models import with torch and numpy alone

    processor = load_part(checkpoint, AutoImageProcessor, backend="pil")
    vision = net.config.vision_config
    dim = vision.hidden_size
    net.vision_model.to(dtype)
    if checkpoint.model_type == "siglip":
        side = vision.image_size // vision.patch_size
        size = vision.image_size
        preprocess = Preprocessing(processor, size, device)
    else:
        side = isqrt(processor.max_num_patches)
        size = side * processor.patch_size
        preprocess = Preprocessing(processor, size, device, patch=processor.patch_size)
    preprocess.require_fit(checkpoint)
    return FamilyPictures(checkpoint, preprocess, _tower(net, dtype), size=size, grid=(side, side), dim=dim)


def _tower(net: Any, dtype: torch.dtype) -> Tower:  # transformers has no types
    def tower(
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        arguments: dict[str, torch.Tensor | None] = {}
        cells = slice(None)
        if spatial_shapes is not None:
            rows, columns = spatial_shapes[0].tolist()  # pictures of a batch have one shape, so one grid
            cells = slice(rows * columns)  # what follows is padding
            # Without padding there is no mask: transformers would ask the device whether it masks anything, and wait.
            arguments = {"pixel_attention_mask": pixel_attention_mask, "spatial_shapes": spatial_shapes}
        made = net.vision_model(pixel_values=pixel_values.to(dtype), **arguments)
        tokens = made.last_hidden_state[:, cells]
        alone = net.vision_model.head(tokens.reshape(-1, 1, tokens.shape[-1]))
        return alone.view(tokens.shape), made.pooler_output

    return tower
