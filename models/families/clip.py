"""CLIP (Radford et al. 2021) and what shares its architecture in transformers."""

import torch

from models.encoders import PictureEncoder, TextEncoder
from models.families.checkpoint import compute_dtype, find_checkpoint, load_network, load_part, usable_device
from models.families.pictures import FamilyPictures, Preprocessing
from models.families.text import FamilyText, load_tokenizer, longest_text


def load_clip(model: str, device: str = "auto", precision: str = "auto") -> tuple[PictureEncoder, TextEncoder]:
    """Load CLIP's two sides.

    A cell is a patch token of the last layer, taken through the layer norm and the projection that CLIP applies to its
    class token: that puts it into the space of the texts. CLIP trained only the class token to be there, so cells are
    weaker than the whole and say roughly where, not exactly.

    Args:
        model: Folder or hub id.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: Of the picture tower: ``auto`` (bfloat16 where the processor has it), ``bfloat16`` or ``float32``.

    Raises:
        ModelError: Not found, not CLIP, without safetensors, damaged, or too large for the device.
    """
    from transformers import AutoImageProcessor, CLIPModel  # models import with torch and numpy alone

    place = usable_device(device)
    dtype = compute_dtype(place, precision)
    checkpoint = find_checkpoint(model, "clip", ("clip",), place)
    net = load_network(checkpoint, CLIPModel, place)
    net.vision_model.to(dtype)
    net.visual_projection.to(dtype)
    vision, text = net.config.vision_config, net.config.text_config
    preprocess = Preprocessing(load_part(checkpoint, AutoImageProcessor, backend="pil"), vision.image_size, place)
    preprocess.require_fit(checkpoint)

    def tower(pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = net.vision_model(pixel_values=pixel_values.to(dtype)).last_hidden_state
        projected = net.visual_projection(net.vision_model.post_layernorm(tokens))
        return projected[:, 1:], projected[:, 0]

    def features(input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        made: torch.Tensor = net.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return made

    side = vision.image_size // vision.patch_size
    dim = net.config.projection_dim
    tokenizer = load_tokenizer(checkpoint, text.vocab_size)
    max_tokens = longest_text(tokenizer, text.max_position_embeddings)
    return (
        FamilyPictures(checkpoint, preprocess, tower, size=vision.image_size, grid=(side, side), dim=dim),
        FamilyText(checkpoint, tokenizer, features, dim=dim, device=place, max_tokens=max_tokens),
    )
