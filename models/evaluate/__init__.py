"""Lists of labelled files, and the figures that scores of them come to."""

from models.evaluate.manifest import EvaluationError, Item, read_manifest, read_rows

__all__ = ["EvaluationError", "Item", "read_manifest", "read_rows"]
