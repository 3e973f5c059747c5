"""`watchword train`: the trained senses from labelled files."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def train(
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
    sense: Annotated[Literal["seen", "moved", "both"], typer.Option(help="What to train; the other is kept.")] = "both",
    cameras: Annotated[int, typer.Option(min=0, help="Copies of each file through cameras drawn at random.")] = 1,
) -> None:
    """Train what is seen (fire) and what moves (fights) on licensed files, and write their weights.

    Only rows with split `train` and train_ok `yes` are used. A run that is cut off goes on where it was. Figures of
    grouped cross-validation go to standard output; curves of the losses are written into the cache folder.

    For example:

    watchword train --manifest data/manifest.csv --root data --cache /tmp/features --out learned.safetensors
    """
    import json

    from models.learned import learned_file
    from models.load import WEIGHTS, load_picture
    from models.train.features import FeatureCache
    from models.train.pictures import Sources, train_pictures
    from models.train.token_cache import licensed
    from streamer.cli.progress import counted

    encoder, text = load_picture(encoders, model)
    target = out or learned_file(encoder, WEIGHTS)
    sources = Sources(licensed(manifest), root, FeatureCache(root, cache, encoder), encoder, text, cameras)
    with counted("training") as progress:
        figures = train_pictures(sources, target, ("seen", "moved") if sense == "both" else (sense,), progress)
    sys.stdout.write(f"{json.dumps(figures, indent=1)}\n{target}\n")
