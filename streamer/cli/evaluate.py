"""`watchword evaluate`: the models against labelled files."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def evaluate(  # one option each
    manifest: Annotated[Path, typer.Option(help="CSV with columns path, kind, labels, split.", exists=True)],
    root: Annotated[Path, typer.Option(help="Folder that the manifest's paths are relative to.", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder for the tables.")],
    split: Annotated[str, typer.Option(help="Only items of this split; empty: all.")] = "dev",
    open_vocab: Annotated[
        Path | None, typer.Option(help="CSV with columns path and name: every name on every photo.", exists=True)
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="CSV with columns path and caption, likewise.", exists=True)
    ] = None,
    rate_hz: Annotated[float, typer.Option(help="Frames a second of video.", min=0.1, max=60)] = 4.0,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Score labelled files with the models, file by file, and write a table for each list.

    `predictions.csv`, `open_vocab.csv` and `captions.csv` have the columns path, prompt and score (0 to 1). A prompt is
    scored on the kinds of file (video, image, audio) that some item of the manifest labels with it. Paths in the second
    and third list are relative to their own folders.

    For example: watchword evaluate --manifest data/manifest.csv --root data --split dev --out scores
    """
    from rich.console import Console

    from models.evaluate import evaluate as score_files
    from models.load import load_encoders
    from streamer.settings import load_settings

    encode = load_settings(config).encode
    encoders = load_encoders(
        picture=encode.picture,
        picture_model=encode.picture_model,
        sound=encode.sound,
        sound_model=encode.sound_model,
        runtime=encode.runtime,
        device=encode.device,
        precision=encode.precision,
        threads=encode.threads,
    )
    console = Console(stderr=True)
    with console.status("reading") as status:
        written = score_files(
            manifest,
            root,
            out,
            encoders=encoders,
            split=split or None,
            open_vocab=open_vocab,
            captions=captions,
            rate_hz=rate_hz,
            progress=lambda path: status.update(f"scoring {path}"),
        )
    for path in written.values():
        sys.stdout.write(f"{path}\n")
