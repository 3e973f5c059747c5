"""`watchword train`: the trained senses from labelled files."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def train(  # noqa: PLR0913, PLR0917  # one option each
    manifest: Annotated[
        Path,
        typer.Option(help="CSV with columns path, kind, labels, group, split, train_ok.", exists=True),
    ],
    root: Annotated[Path, typer.Option(help="Folder that the manifest's paths are relative to.", exists=True)],
    cache: Annotated[Path, typer.Option(help="Folder where features and folds are kept between runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Weight file; left out: where the worker looks for it, in the user's cache.")
    ] = None,
    encoders: Annotated[
        Literal["compact", "clip", "siglip2"], typer.Option(help="Whose tokens to train on.")
    ] = "compact",
    model: Annotated[str, typer.Option(help="Id or folder of the encoder, for all but compact.")] = "",
    sense: Annotated[
        Literal["seen", "moved", "heard", "both", "all"],
        typer.Option(help="What to train; both: seen and moved, all: heard, too. Others of the file are kept."),
    ] = "both",
    cameras: Annotated[int, typer.Option(min=0, help="Copies of each file through cameras drawn at random.")] = 1,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Folder of free sounds for what is heard; fetched from Debian's packages where it is empty."),
    ] = None,
) -> None:
    """Train what is seen (fire), what moves (fights), what is heard (shots, blasts, sirens, cries); write weights.

    Only rows with split `train` and train_ok `yes` are used. A run that is cut off goes on where it was, to the
    same weights. Figures of grouped cross-validation go to standard output; curves of the losses, as a table and as a
    picture, are written into the cache folder.

    For example:

    watchword train --manifest data/manifest.csv --root data --cache /tmp/features --out learned.safetensors
    """
    import json

    from models.errors import ModelError
    from models.learned import learned_file
    from models.load import WEIGHTS, load_picture
    from models.train.features import FeatureCache
    from models.train.pictures import Sources, train_pictures
    from models.train.token_cache import licensed
    from streamer.cli.progress import counted

    if sense in {"heard", "all"} and encoders != "compact":
        raise ModelError(f"what is heard is trained for the compact encoder alone; use --sense both for {encoders}")
    encoder, text = load_picture(encoders, model)
    target = out or learned_file(encoder, WEIGHTS)
    pictured = {"both": ("seen", "moved"), "all": ("seen", "moved"), "heard": ()}.get(sense, (sense,))
    figures: dict[str, object] = {}
    with counted("training") as progress:
        if pictured:
            sources = Sources(licensed(manifest), root, FeatureCache(root, cache, encoder), encoder, text, cameras)
            figures |= train_pictures(sources, target, pictured, progress)
        if sense in {"heard", "all"}:
            from models.load import load_encoders
            from models.train.heard import train_sounds

            figures["heard"] = train_sounds(manifest, load_encoders(), target, corpus, cache / "heard", progress)
    sys.stdout.write(f"{json.dumps(figures, indent=1)}\n{target}\n")
