"""`watchword streams`: which cameras there are and how they fare."""

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

_NEAREST = 3  # prompts shown of each stream


def streams(
    redis: Annotated[str, typer.Option(help="Redis to read from, redis://HOST:PORT/0.")] = "",
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One stream per line.")] = False,
) -> None:
    """List the streams that workers have seen in the last day, with rates, lag and the best prompts of the moment.

    For example:

    watchword streams --json
    """
    from streamer.live import LiveBoard
    from streamer.redis_client import connect_redis
    from streamer.settings import load_settings

    settings = load_settings(config, {"redis.url": redis} if redis else {})
    with closing(connect_redis(settings.redis.url)) as client:
        board = LiveBoard(client, settings.redis.prefix, settings.events.live_ttl_s)
        documents = [_document(name, status, board) for name, status in board.streams().items()]
    if as_json:
        sys.stdout.writelines(json.dumps(document) + "\n" for document in documents)
    else:
        _print(documents)


def _document(stream: str, status: dict[str, str], board: Any) -> dict[str, Any]:
    from streamer.events import to_rfc3339

    return {
        "stream": stream,
        "last_frame": to_rfc3339(int(status["last_frame_us"])),
        "rate_hz": float(status["rate_hz"]),
        "lag_s": float(status["lag_s"]),
        "windows": int(status["windows"]),
        "gaps": int(status["gaps"]),
        "refused": int(status["refused"]),
        "skipped": int(status["skipped"]),
        "partition": int(status["partition"]),
        "labels": json.loads(status["labels"]),
        "live": board.confidences(stream),
    }


def _print(documents: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from streamer.events import from_rfc3339

    console = Console(highlight=False)
    if not documents:
        console.print("no streams yet; `watchword ingest NAME=URL` sends one, `watchword worker` looks at them")
        return
    table = Table(
        "stream", "last frame", "frames/s", "lag", "gaps", "refused", "skipped", "now", box=None, pad_edge=False
    )
    for document in documents:
        best = sorted(document["live"].items(), key=lambda pair: -pair[1])[:_NEAREST]
        ago_s = time.time() - from_rfc3339(document["last_frame"]) / 1e6
        counts = (str(document[name]) for name in ("gaps", "refused", "skipped"))
        table.add_row(
            escape(document["stream"]),
            _ago(ago_s),
            f"{document['rate_hz']:.1f}",
            f"{document['lag_s']:.1f} s",
            *counts,
            escape("  ".join(f"{prompt} {confidence:.2f}" for prompt, confidence in best)),
        )
    console.print(table)


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.0f} h ago"
