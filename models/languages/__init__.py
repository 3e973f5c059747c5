"""Prompts in other languages than English."""

from models.languages.reading import MultilingualText, Reading, read_prompt

__all__ = ["MultilingualText", "Reading", "read_prompt"]
