"""`watchword why`: what kept a prompt from firing on a stream."""

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer


def why(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Stream id; see `watchword streams`.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="A prompt's id, or its text.")],
    redis: Annotated[str, typer.Option(help="Redis to read from, redis://HOST:PORT/0.")] = "",
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say how near a prompt came on a stream in the last ten minutes, and which gate stopped it.

    Gates: disabled, selector (it is for other streams), mask (its region is blacked out), region (it matched outside
    its region), schedule, threshold, duration (it did not hold for long enough), cooldown.

    For example:

    watchword why yard-1 fire
    """
    from streamer.live import LiveBoard
    from streamer.prompt_store import PromptStore
    from streamer.redis_client import connect_redis
    from streamer.settings import load_settings
    from streamer.stream_store import StreamStore, StreamTable
    from streamer.why import explain

    settings = load_settings(config, {"redis.url": redis} if redis else {})
    with closing(connect_redis(settings.redis.url)) as client:
        board = LiveBoard(client, settings.redis.prefix, settings.events.live_ttl_s)
        prompts = PromptStore(client, settings.redis.prefix).list()
        masks = StreamTable(settings, {stream: StreamStore(client, settings.redis.prefix).get(stream)}).of(stream).masks
        document = explain(board, prompts, stream, prompt, masks, round(time.time() * 1e6))
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        _print(document)


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from streamer.why import OWN

    console = Console(highlight=False)
    reason = "" if document["threshold_why"] == OWN else f" ({escape(document['threshold_why'])})"
    console.print(
        f"[bold]{escape(document['prompt'])}[/] on [bold]{escape(document['stream'])}[/]: best {document['best']:.2f}, "
        f"threshold {document['threshold']:.2f}{reason}. {escape(document['explanation'])}",
        soft_wrap=True,
    )
    table = Table("time (UTC)", "confidence", "stopped by", box=None, pad_edge=False)
    for miss in document["near_misses"]:
        table.add_row(miss["time"][:19].replace("T", " "), f"{miss['confidence']:.2f}", miss["gate"])
    if table.row_count:
        console.print(table)
