"""A manifest's files against its prompts: tables that a scorer reads, and a report."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluate.manifest import Item, read_manifest, read_rows
from streamer.evaluate.clips import Clip
from streamer.evaluate.page import make_page
from streamer.evaluate.questions import SENSE, Question, ask, ask_texts
from streamer.evaluate.replay import Watched, prompt_set, watch
from streamer.evaluate.report import Result, make_report
from streamer.stages import Stages

Progress = Callable[[str, int, int], None]  # what is being looked at, how many are done, of how many
Row = tuple[str, str, float]
COLUMNS = ("path", "prompt", "score")


@dataclass(frozen=True, slots=True)
class Task:
    """What to evaluate.

    Attributes:
        manifest: CSV with columns path, kind, labels, split; group and note where it has them.
        root: Folder that its paths are relative to.
        split: Only items of this split; None: all.
        documents: Prompt documents that stand for labels.
        also: Paraphrase to the label that it is judged by.
        open_vocab: CSV with columns path and name, paths relative to its own folder: every name on every photo.
        captions: CSV with columns path and caption, likewise.
    """

    manifest: Path
    root: Path
    split: str | None = "dev"
    documents: Sequence[Mapping[str, Any] | str] = ()
    also: Mapping[str, str] | None = None
    open_vocab: Path | None = None
    captions: Path | None = None


def evaluate(
    task: Task, out: Path, stages: Stages, progress: Progress = lambda *_: None, *, with_page: bool = True
) -> dict[str, Path]:
    """Score every file as the worker would, and write what came of it.

    A file's score for a prompt is the confidence of its best window, by what is seen of videos and photos and by what
    is heard of sounds.

    Args:
        task: What to evaluate.
        out: Folder to write to; made where it is missing.
        stages: The worker's.
        progress: Told about each file.
        with_page: Write `report.html`, too.

    Returns:
        What was written, by name: ``predictions``, ``also`` (paraphrases), ``open_vocab`` and ``captions`` are tables
        of path, prompt and score, 0..1; ``report`` and ``page``.

    Raises:
        EvaluationError: A list or a file cannot be read.
        PromptError: A prompt is refused.
    """
    out.mkdir(parents=True, exist_ok=True)
    items = read_manifest(task.manifest, task.split)
    questions = ask(items, task.documents, task.also)
    results = list(score_items(items, task.root, questions, stages, progress))
    written = {"predictions": out / "predictions.csv"}
    _write(written["predictions"], _rows(results, [one for one in questions if not one.is_paraphrase]))
    if task.also:
        written["also"] = out / "also.csv"
        _write(written["also"], _rows(results, [one for one in questions if one.is_paraphrase]))
    for name, listing, column in (("open_vocab", task.open_vocab, "name"), ("captions", task.captions, "caption")):
        if listing is not None:
            written[name] = out / f"{name}.csv"
            _write(written[name], score_photos(listing, column, stages, progress))
    report = make_report(results, questions, stages, split=task.split)
    written["report"] = out / "report.json"
    _replace(written["report"], json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if with_page:
        written["page"] = out / "report.html"
        _replace(written["page"], make_page(report, results, questions, stages, progress))
    return written


def score_items(
    items: Sequence[Item], root: Path, questions: Sequence[Question], stages: Stages, progress: Progress
) -> Iterator[Result]:
    """Watch every item of a kind that some question is asked of."""
    kinds = {kind for question in questions for kind in question.kinds}
    asked = [item for item in items if item.kind in kinds]
    prompts = prompt_set(stages, [question.prompt for question in questions])
    clips = (
        Clip(f"file-{number}", root / item.path, is_picture=item.kind == "image") for number, item in enumerate(asked)
    )
    for number, (item, watched) in enumerate(zip(asked, watch(stages, clips, prompts), strict=True)):
        progress(item.path, number + 1, len(asked))
        # As it is printed: what is computed from the tables is what the report says.
        scores = np.asarray(np.round(watched.best(SENSE[item.kind]).astype(np.float64), 9), np.float64)
        yield Result(item, watched, scores, prompts)


def score_photos(listing: Path, column: str, stages: Stages, progress: Progress) -> Iterator[Row]:
    """Every text of a list on every photo of it."""
    rows = read_rows(listing, ("path", column))
    texts = list(dict.fromkeys(row[column] for row in rows))
    paths = list(dict.fromkeys(row["path"] for row in rows))
    clips = (Clip(f"photo-{number}", listing.parent / path, is_picture=True) for number, path in enumerate(paths))
    watched: Iterator[Watched] = watch(stages, clips, prompt_set(stages, ask_texts(texts)))
    for number, (path, one) in enumerate(zip(paths, watched, strict=True)):
        progress(path, number + 1, len(paths))
        yield from ((path, text, float(value)) for text, value in zip(texts, one.best("seen"), strict=True))


def _rows(results: Iterable[Result], questions: Sequence[Question]) -> Iterator[Row]:
    columns = {question.prompt.id: question for question in questions}
    for result in results:
        for place, prompt in enumerate(result.prompts.table.prompts):
            question = columns.get(prompt.id)
            if question is not None and result.item.kind in question.kinds:
                yield result.item.path, question.text, float(result.scores[place])


def _write(path: Path, rows: Iterable[Row]) -> None:
    """Write a table once all of it is there: half of one looks like a whole one."""
    draft = path.with_suffix(".draft")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        # Nine digits: near 0 and 1 a ranking must survive being printed.
        writer.writerows((name, text, f"{score:.9f}") for name, text, score in rows)
    draft.replace(path)


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
