"""`watchword evaluate`: the models against labelled files."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def evaluate(  # noqa: PLR0913, PLR0917  # one option each
    manifest: Annotated[
        Path, typer.Option(help="CSV with columns path, kind, labels, split; group and note are used.", exists=True)
    ],
    root: Annotated[Path, typer.Option(help="Folder that the manifest's paths are relative to.", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder for what is written.")],
    split: Annotated[str, typer.Option(help="Only items of this split; empty: all.")] = "dev",
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts-file", help="Prompt documents that stand for labels of their text or id.", exists=True),
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(metavar="TEXT=LABEL", help="A paraphrase, judged by a label: brawl=fight.")
    ] = None,
    also_file: Annotated[
        Path | None, typer.Option(help="CSV with columns prompt and label: more paraphrases.", exists=True)
    ] = None,
    open_vocab: Annotated[
        Path | None, typer.Option(help="CSV with columns path and name: every name on every photo.", exists=True)
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="CSV with columns path and caption, likewise.", exists=True)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    *,
    page: Annotated[bool, typer.Option(help="Write report.html, with pictures of the files.")] = True,
) -> None:
    """Watch labelled files as a worker would, and write tables and a report.

    `predictions.csv`, `also.csv`, `open_vocab.csv` and `captions.csv` have the columns path, prompt and score (0 to 1):
    the confidence of a file's best window. A prompt is scored on the kinds of file (video, image, audio) that some item
    of the manifest labels with it. Paths in the lists of names and captions are relative to their own folders.
    `report.json` and `report.html` hold what the scores come to.

    For example:

    watchword evaluate --manifest data/manifest.csv --root data --split dev --out scores

    watchword evaluate --manifest data/manifest.csv --root data --out scores --also brawl=fight --also flames=fire
    """
    from streamer.cli.progress import counted
    from streamer.evaluate.questions import read_also
    from streamer.evaluate.run import Task
    from streamer.evaluate.run import evaluate as measure
    from streamer.prompt_files import read_documents
    from streamer.settings import load_settings
    from streamer.stages import open_stages

    task = Task(
        manifest=manifest,
        root=root,
        split=split or None,
        documents=() if prompts is None else read_documents(prompts),
        also=read_also(also or (), also_file),
        open_vocab=open_vocab,
        captions=captions,
    )
    stages = open_stages(load_settings(config))
    with counted("scoring") as progress:
        written = measure(task, out, stages, progress, with_page=page)
    for path in written.values():
        sys.stdout.write(f"{path}\n")
