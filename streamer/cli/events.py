"""`watchword events`: what was seen and heard."""

import json
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from redis import Redis

    from streamer.event_log import Entry, EventLog
    from streamer.events import Event

app = typer.Typer(
    name="events",
    help="What was seen and heard.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RedisOption = Annotated[str, typer.Option(help="Redis to read from, redis://HOST:PORT/0.")]
ConfigOption = Annotated[Path | None, typer.Option(help="Settings file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One event document per line.")]
_SINCE_HELP = "A time (2026-11-24T12:00:00Z) or how long ago: 30s, 10m, 2h, 7d."
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHOWN = 20
_COLOURS = {"info": "cyan", "warning": "yellow", "critical": "bold red"}


@app.command()
def tail(
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, help="The newest so many; all with --json, else 20.")
    ] = None,
    since: Annotated[str, typer.Option(help=f"Those told from then on. {_SINCE_HELP}")] = "",
    stream: Annotated[str, typer.Option(help="Only of this stream; a glob.")] = "*",
    prompt: Annotated[str, typer.Option(help="Only of this prompt's id; a glob.")] = "*",
    redis: RedisOption = "",
    config: ConfigOption = None,
    *,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print changes of events in the order in which they were told: open, update, closed.

    For example:

    watchword events tail -f

    watchword events tail --json --since 10m --prompt "fire*"
    """
    since_us = None if not since else parse_since(since, time.time())
    count = limit if limit is not None or as_json else _SHOWN
    with _log(redis, config) as log:
        last_id = log.last_id()
        if since_us is None and count is not None and stream == prompt == "*":
            told: Iterable[Entry] = log.recent(count, last_id)
        else:
            told = takewhile(lambda entry: _order(entry.id) <= _order(last_id), log.since(since_us or 0))
        events = (entry.event for entry in told if _fits(entry.event, stream, prompt))
        print_events(events if count is None else deque(events, maxlen=count), as_json=as_json)
        if is_followed:
            coming = (entry.event for entry in log.follow(last_id) if _fits(entry.event, stream, prompt))
            print_events(coming, as_json=as_json)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    stream: Annotated[str | None, typer.Option(help="Only of this stream.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Only of this prompt's id.")] = None,
    state: Annotated[str | None, typer.Option(help="Only those now in this state: open, update or closed.")] = None,
    since: Annotated[str, typer.Option(help=f"Only those that started since. {_SINCE_HELP}")] = "",
    redis: RedisOption = "",
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List events, each once in its latest state, the newest first.

    For example:

    watchword events list --stream yard-1 --state closed --since 24h
    """
    from streamer.errors import UsageError

    if state is not None and state not in {"open", "update", "closed"}:
        raise UsageError(f"--state {state!r} is not allowed; open, update and closed are")
    since_us = None if not since else parse_since(since, time.time())
    with _log(redis, config) as log:
        found = log.find(limit, stream=stream, prompt=prompt, state=state, since_us=since_us)
    if as_json:
        print_events(found, as_json=True)
    else:
        _print_table(found)


@app.command()
def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="An event's id.")],
    redis: RedisOption = "",
    config: ConfigOption = None,
) -> None:
    """Print one event's latest document.

    For example:

    watchword events show 1f0c8e5b2a7d4c93
    """
    from streamer.errors import WatchwordError

    with _log(redis, config) as log:
        event = log.get(event_id)
    if event is None:
        raise WatchwordError(f"there is no event {event_id!r}, or it was forgotten by now; see `watchword events list`")
    sys.stdout.write(event.model_dump_json(indent=2) + "\n")


@app.command()
def mark(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="An event's id.")],
    verdict: Annotated[str, typer.Argument(metavar="right|wrong|none", help="none: take the mark back.")],
    redis: RedisOption = "",
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The prompt's document, as it is now.")] = False,
) -> None:
    """Say whether an event was what its prompt means. The prompt's confidences follow, in every worker in a second.

    Mark right ones too: of wrong ones alone nothing is learnt but to be less sure. For example:

    watchword events mark 1f0c8e5b2a7d4c93 wrong

    watchword prompts update fire --reset-marks
    """
    from streamer.errors import UsageError
    from streamer.feedback import Feedback

    if verdict not in {"right", "wrong", "none"}:
        raise UsageError(f"{verdict!r} is not a mark; right, wrong and none are")
    with _client(redis, config) as (client, prefix):
        feedback = Feedback(client, prefix)
        if verdict == "none":
            prompt = feedback.take_back(event_id)
        else:
            prompt = feedback.mark(event_id, is_right=verdict == "right", now_us=round(time.time() * 1e6))
    if as_json:
        sys.stdout.write(json.dumps(prompt.to_document(), ensure_ascii=False) + "\n")
        return
    marked = prompt.marked
    follows = "no marks" if marked is None else f"{marked.right} right and {marked.wrong} wrong"
    sys.stdout.write(f"{prompt.id} follows {follows} (version {prompt.version})\n")


@app.command()
def marks(
    prompt_id: Annotated[str, typer.Argument(metavar="PROMPT", help="A prompt's id.")],
    redis: RedisOption = "",
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One mark a line.")] = False,
) -> None:
    """List which events of a prompt were marked, the oldest first.

    For example:

    watchword events marks fire
    """
    from dataclasses import asdict

    from streamer.events import to_rfc3339
    from streamer.feedback import Feedback

    with _client(redis, config) as (client, prefix):
        found = Feedback(client, prefix).marks(prompt_id)
    for one in found:
        told = json.dumps(asdict(one)) if as_json else f"{to_rfc3339(one.marked_us)}\t{one.event}\t{one.verdict}"
        sys.stdout.write(told + "\n")


@app.command()
def schema() -> None:
    """Print the JSON Schema of event documents."""
    from streamer.events import event_schema

    sys.stdout.write(json.dumps(event_schema(), indent=2) + "\n")


def parse_since(text: str, now_s: float) -> int:
    """Microseconds since 1970 UTC, of a time or of how long ago it was.

    Raises:
        UsageError: It is neither.
    """
    from streamer.errors import UsageError
    from streamer.events import from_rfc3339

    if match := _DURATION.fullmatch(text.strip()):
        return round((now_s - float(match[1]) * _UNIT_S[match[2]]) * 1e6)
    try:
        return from_rfc3339(text.strip())
    except ValueError as error:
        raise UsageError(f"--since {text!r} is neither a time like 2026-11-24T12:00:00Z nor like 10m") from error


@contextmanager
def _log(redis: str, config: Path | None) -> "Iterator[EventLog]":
    from streamer.event_log import EventLog

    with _client(redis, config) as (client, prefix):
        yield EventLog(client, prefix)


@contextmanager
def _client(redis: str, config: Path | None) -> "Iterator[tuple[Redis, str]]":
    from streamer.redis_client import connect_redis
    from streamer.settings import load_settings

    settings = load_settings(config, {"redis.url": redis} if redis else {})
    with closing(connect_redis(settings.redis.url)) as client:
        yield client, settings.redis.prefix


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


def _fits(event: "Event", stream: str, prompt: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(event.stream, stream) and fnmatchcase(event.prompt.id, prompt)


def print_events(events: "Iterable[Event]", *, as_json: bool) -> None:
    """Print events as they come, until they end or Ctrl-C."""
    from rich.console import Console

    console = Console(highlight=False)
    try:
        for event in events:
            if as_json:
                sys.stdout.write(event.to_json() + "\n")
                sys.stdout.flush()
            else:
                console.print(_line(event), soft_wrap=True)
    except KeyboardInterrupt:
        return  # how following ends


def _line(event: "Event") -> str:
    from rich.markup import escape

    colour = _COLOURS[event.severity]
    span_s = _span_s(event)
    return (
        f"[dim]{event.start[:19].replace('T', ' ')}[/] [{colour}]{event.state:<6}[/] {escape(event.stream):<16} "
        f"[bold]{escape(event.prompt.id)}[/] {event.confidence:.2f} [dim]peak[/] {event.peak:.2f} "
        f"[dim]{span_s:.1f} s  {event.id}[/]"
    )


def _span_s(event: "Event") -> float:
    from streamer.events import from_rfc3339

    return (from_rfc3339(event.end) - event.start_us) / 1e6


def _print_table(events: "Iterable[Event]") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("start (UTC)", "state", "stream", "prompt", "peak", "lasted", "id", box=None, pad_edge=False)
    for event in events:
        state = f"[{_COLOURS[event.severity]}]{event.state}[/]"
        names = (escape(event.stream), escape(event.prompt.id))
        table.add_row(
            event.start[:19].replace("T", " "), state, *names, f"{event.peak:.2f}", f"{_span_s(event):.1f} s", event.id
        )
    console = Console(highlight=False)
    if table.row_count:
        console.print(table)
    else:
        console.print("no events; `watchword why STREAM PROMPT` says what stopped them")
