"""Encoders of other families through transformers, from a hub id or a folder: CLIP, SigLIP 2, CLAP."""

from models.families.clap import load_clap
from models.families.clip import load_clip
from models.families.siglip2 import load_siglip2

__all__ = ["load_clap", "load_clip", "load_siglip2"]
