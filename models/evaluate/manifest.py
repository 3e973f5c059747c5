"""Lists of labelled files."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import WatchwordError


class EvaluationError(WatchwordError):
    """A list or a file of an evaluation cannot be read."""


KINDS = ("video", "image", "audio")


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled file.

    Attributes:
        path: Relative to the manifest's root.
        kind: ``video``, ``image`` or ``audio``.
        labels: The prompts that hold.
        split: ``train``, ``dev``, ...
        group: Camera, scene or recording; files of one are not independent. The path where the list names none.
        note: What to know when looking at it, such as that it was composed; empty: nothing.
    """

    path: str
    kind: str
    labels: tuple[str, ...]
    split: str
    group: str = ""
    note: str = ""


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file that has a header.

    Raises:
        EvaluationError: It cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise EvaluationError(f"{path} lacks column(s) {', '.join(missing)}; it has {reader.fieldnames}")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} cannot be read as CSV: {error}") from error


def read_manifest(path: Path, split: str | None = None) -> list[Item]:
    """Items of a manifest, of one split or of all.

    Columns path, kind, labels, split; group and note where they are there.

    Raises:
        EvaluationError: It cannot be read, an item is of no kind that there is, or nothing is of that split.
    """
    items = []
    for row in read_rows(path, ("path", "kind", "labels", "split")):
        labels = tuple(label.strip() for label in row["labels"].split(";") if label.strip())
        if split is None or row["split"] == split:
            if row["kind"] not in KINDS:
                raise EvaluationError(f"{path}: {row['path']} is of kind {row['kind']!r}; {', '.join(KINDS)} are read")
            group, note = row.get("group") or row["path"], row.get("note") or ""
            items.append(Item(row["path"], row["kind"], labels, row["split"], group, note))
    if not items:
        raise EvaluationError(f"{path} has no item of split {split!r}")
    return items
