"""Scores of whole files, as a manifest lists them."""

from models.evaluate.manifest import EvaluationError, Item, read_manifest, read_rows
from models.evaluate.scoring import evaluate

__all__ = ["EvaluationError", "Item", "evaluate", "read_manifest", "read_rows"]
