"""`watchword prompts`: standing prompts in Redis."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.errors import PromptError, UsageError

if TYPE_CHECKING:
    from streamer.prompt_store import PromptStore
    from streamer.prompts import Prompt

app = typer.Typer(
    name="prompts",
    help="Standing prompts: what is watched for, where and when. Changes are live in every worker in under a second.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Redis = Annotated[str, typer.Option("--redis", metavar="URL", help="redis://HOST:PORT/DB that holds the prompts.")]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings file.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
PromptId = Annotated[str, typer.Argument(metavar="ID", help="As `prompts list` shows it.")]
Phrasing = Annotated[
    list[str] | None, typer.Option("--phrasing", metavar="TEXT", help="Another way to say it. May be repeated.")
]
Contrast = Annotated[
    list[str] | None, typer.Option("--contrast", metavar="TEXT", help="What it must not be taken for. May be repeated.")
]
Modality = Annotated[str | None, typer.Option("--modality", metavar="video|audio|any|both", help="Default: any.")]
Streams = Annotated[
    str | None,
    typer.Option("--streams", metavar="WHICH", help="Globs ('yard-*,dock-?') or labels ('site=north'). Default: all."),
]
Region = Annotated[
    str | None,
    typer.Option("--region", metavar="'X,Y X,Y X,Y'", help="Corners of the part to look at, 0 to 1. Default: all."),
]
Schedule = Annotated[
    str | None, typer.Option("--schedule", metavar="WHEN", help="'Mo-Su 20:00-06:00 Europe/Berlin'. Default: always.")
]
Threshold = Annotated[float | None, typer.Option("--threshold", help="Confidence from which it matches. Default: 0.5.")]
AlertsPerDay = Annotated[
    float | None,
    typer.Option(
        "--alerts-per-day", help="In place of a threshold: about so many on each stream, once enough was watched."
    ),
]
MinDuration = Annotated[
    str | None,
    typer.Option("--min-duration", metavar="TIME", help="How long it must hold: 500ms, 2s, 1m. Default: 2s."),
]
Cooldown = Annotated[
    str | None, typer.Option("--cooldown", metavar="TIME", help="No next event this soon after one ends. Default: 30s.")
]
ExampleFile = Annotated[
    list[Path] | None,
    typer.Option(
        "--example",
        metavar="FILE",
        help="A picture, clip or sound of what is meant; five of different places help most. May be repeated.",
    ),
]
Severity = Annotated[str | None, typer.Option("--severity", metavar="info|warning|critical", help="Default: warning.")]
Label = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Goes into its events. May be repeated.")
]
Enabled = Annotated[
    bool | None, typer.Option("--enable/--disable", help="Whether it is watched for. Default: enabled.")
]


@app.command()
def add(  # noqa: PLR0913  one option a key
    text: Annotated[str, typer.Argument(help="What to watch for, in plain words.")],
    *,
    prompt_id: Annotated[str | None, typer.Option("--id", help="Default: made from the text.")] = None,
    phrasing: Phrasing = None,
    contrast: Contrast = None,
    example: ExampleFile = None,
    modality: Modality = None,
    streams: Streams = None,
    region: Region = None,
    schedule: Schedule = None,
    threshold: Threshold = None,
    alerts_per_day: AlertsPerDay = None,
    min_duration: MinDuration = None,
    cooldown: Cooldown = None,
    severity: Severity = None,
    label: Label = None,
    enabled: Enabled = None,
    redis: Redis = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Add a prompt and say under which id.

    For example:

    watchword prompts add "a person lying on the floor" --min-duration 5s --severity critical

    watchword prompts add fire --streams 'yard-*' --contrast sunset --schedule 'Mo-Su 20:00-06:00 Europe/Berlin'

    watchword prompts add "glass breaking" --modality audio --streams site=north
    """
    document = _document(
        text=text,
        id=prompt_id,
        phrasings=phrasing,
        contrast=contrast,
        modality=modality,
        streams=streams,
        region=region,
        schedule=schedule,
        threshold=threshold,
        alerts_per_day=alerts_per_day,
        min_duration=min_duration,
        cooldown=cooldown,
        severity=severity,
        labels=label,
        enabled=enabled,
    )
    if example:
        document["examples"] = _drawn_towards(document, example, config)
    with _store(redis, config) as store:
        _done("added", store.add(document), as_json=as_json)


@app.command()
def update(  # noqa: PLR0913  one option a key
    prompt_id: PromptId,
    *,
    text: Annotated[str | None, typer.Option("--text", help="What to watch for.")] = None,
    phrasing: Phrasing = None,
    contrast: Contrast = None,
    modality: Modality = None,
    streams: Streams = None,
    region: Region = None,
    schedule: Schedule = None,
    threshold: Threshold = None,
    alerts_per_day: AlertsPerDay = None,
    min_duration: MinDuration = None,
    cooldown: Cooldown = None,
    severity: Severity = None,
    label: Label = None,
    enabled: Enabled = None,
    expected_version: Annotated[
        int | None, typer.Option("--expected-version", help="Refuse if it was changed since this version.")
    ] = None,
    is_unmarked: Annotated[
        bool, typer.Option("--reset-marks", help="Forget which of its events were right or wrong, and what followed.")
    ] = False,
    redis: Redis = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Change what is named and keep the rest; an empty value ('') goes back to the default.

    A repeated option replaces the whole list. For example:

    watchword prompts update fire --threshold 0.7 --schedule ''

    watchword prompts update fire --disable

    watchword prompts update fire --reset-marks
    """
    from streamer.feedback import Feedback

    changes = _document(
        text=text,
        phrasings=phrasing,
        contrast=contrast,
        modality=modality,
        streams=streams,
        region=region,
        schedule=schedule,
        threshold=threshold,
        alerts_per_day=alerts_per_day,
        min_duration=min_duration,
        cooldown=cooldown,
        severity=severity,
        labels=label,
        enabled=enabled,
    )
    if is_unmarked:
        changes["marked"] = None
    if not changes:
        raise UsageError("nothing to change; name at least one option, such as --threshold 0.7")
    with _store(redis, config) as store:
        updated = store.update(prompt_id, changes, expected_version=expected_version)
        if is_unmarked:
            Feedback(store.redis, store.prefix).forget(prompt_id)
        _done("updated", updated, as_json=as_json)


@app.command()
def remove(
    prompt_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="One or more; all are removed or none.")],
    redis: Redis = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove prompts. For example: watchword prompts remove fire glass-breaking."""
    with _store(redis, config) as store:
        store.remove(*prompt_ids)
    _write(json.dumps({"removed": prompt_ids}) if as_json else f"removed {', '.join(prompt_ids)}")


@app.command()
def show(prompt_id: PromptId, redis: Redis = "", config: Config = None, as_json: AsJson = False) -> None:
    """Show a prompt in full. For example: watchword prompts show fire.

    Of a prompt with a budget of alerts also, by stream, the threshold in force and why; with --json as `in_force`.
    """
    from streamer.live import LiveBoard
    from streamer.prompt_files import format_documents

    with _store(redis, config) as store:
        prompt = store.get(prompt_id)
        document = prompt.to_document()
        in_force = {}
        if prompt.alerts_per_day is not None:
            in_force = LiveBoard(store.redis, store.prefix, 0).thresholds(prompt.id)
    if as_json:
        told = {stream: {"threshold": threshold, "why": why} for stream, (threshold, why) in in_force.items()}
        _write(_json(document | ({"in_force": told} if told else {})))
    else:
        lines = format_documents([document], as_json=False).splitlines()
        _write("\n".join(line[2:] for line in lines))  # the document, without the dash of a list
        for stream, (threshold, why) in in_force.items():
            _write(f"# {stream}: threshold {threshold:.2f}, {why}")


@app.command("list")
def list_(redis: Redis = "", config: Config = None, as_json: AsJson = False) -> None:
    """List all prompts by id; with --json one document a line.

    For example: watchword prompts list --json | jq -r .text
    """
    with _store(redis, config) as store:
        contents = store.load()
    for reason in contents.damaged.values():
        typer.echo(f"left out: {reason}", err=True)
    prompts = list(contents.prompts.values())
    if as_json:
        for prompt in prompts:
            _write(_json(prompt.to_document()))
    elif prompts:
        _show_table(prompts)
    else:
        typer.echo('there are no prompts yet; add one: watchword prompts add "glass breaking"', err=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON; - for standard input.")],
    redis: Redis = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Add or replace the prompts of a file, all of them or, if one is refused, none.

    The file holds a list of documents, a mapping from id to document, or what `export` and `list --json` write. For
    example:

    watchword prompts import night-watch.yaml

    watchword prompts list --json --redis redis://old/0 | watchword prompts import - --redis redis://new/0
    """
    from streamer.prompt_files import parse_documents, read_documents

    is_stdin = str(file) == "-"
    documents = parse_documents(sys.stdin.read(), "standard input") if is_stdin else read_documents(file)
    with _store(redis, config) as store:
        done = store.import_many(documents)
    if as_json:
        _write(_json({"added": done.added, "updated": done.updated, "unchanged": done.unchanged}))
    else:
        _write(f"{len(done.added)} added, {len(done.updated)} updated, {len(done.unchanged)} unchanged")


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: standard output.")] = None,
    redis: Redis = "",
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list instead of YAML.")] = False,
) -> None:
    """Write all prompts as a file that `import` reads. For example: watchword prompts export night-watch.yaml."""
    from streamer.prompt_files import format_documents

    with _store(redis, config) as store:
        documents = store.export()
    text = format_documents(documents, as_json=as_json or (file is not None and file.suffix == ".json"))
    if file is None or str(file) == "-":
        _write(text.rstrip("\n"))
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PromptError(f"{file} cannot be written: {error.strerror}") from error
    typer.echo(f"{len(documents)} prompts written to {file}", err=True)


@contextmanager
def _store(redis_url: str, config: Path | None) -> "Iterator[PromptStore]":
    from streamer.prompt_store import PromptStore
    from streamer.redis_client import connect_redis
    from streamer.settings import load_settings

    settings = load_settings(config, {"redis.url": redis_url} if redis_url else {})
    if not settings.redis.url:
        raise UsageError(
            "no Redis is named; give --redis redis://HOST:PORT/DB or set redis.url (`watchword up` starts one)"
        )
    client = connect_redis(settings.redis.url)
    try:
        yield PromptStore(client, settings.redis.prefix)
    finally:
        client.close()


def _drawn_towards(document: dict[str, Any], files: list[Path], config: Path | None) -> dict[str, Any]:
    """What a prompt's document keeps of example files. Loads the encoders."""
    from streamer.examples import ExampleReader
    from streamer.prompts import parse_prompt
    from streamer.settings import load_settings
    from streamer.stages import open_stages

    prompt = parse_prompt(document)
    drawn = ExampleReader(open_stages(load_settings(config))).draw(prompt, files).examples
    assert drawn is not None
    return drawn.model_dump(mode="json", exclude_none=True)


def _document(**options: Any) -> dict[str, Any]:
    """What was given on the command line; None for what was given empty: the default."""
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        if value in ("", [""]) and key not in ("text", "id"):
            given[key] = None
        elif key == "region":
            given[key] = _corners(value)
        elif key == "labels":
            given[key] = dict(_label(pair) for pair in value)
    return given


def _corners(text: str) -> list[list[float]]:
    try:
        return [[float(number) for number in corner.split(",")] for corner in text.split()]
    except ValueError as error:
        raise UsageError(f"--region {text!r} is not like '0.1,0.4 0.9,0.4 0.9,1 0.1,1'") from error


def _label(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise UsageError(f"--label {pair!r} is not like team=night")
    return name, value


def _done(verb: str, prompt: "Prompt", *, as_json: bool) -> None:
    from models.languages.reading import read_prompt

    _write(_json(prompt.to_document()) if as_json else f"{verb} {prompt.id} (version {prompt.version})")
    reading = read_prompt(prompt.text)
    if reading.warning:
        typer.echo(f"with the built-in encoders, {reading.warning}", err=True)
    elif reading.way == "words":
        typer.echo(f"read as {reading.english!r} by the built-in encoders", err=True)


def _show_table(prompts: "Sequence[Prompt]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = ("id", "text", "modality", "streams", "threshold", "for", "severity", "when", "version")
    rows = [
        (
            p.id,
            p.text,
            p.modality,
            p.streams,
            f"{p.threshold:g}" if p.alerts_per_day is None else f"{p.alerts_per_day:g} a day",
            p.min_duration,
            p.severity,
            (p.schedule or "always") if p.enabled else "disabled",
            str(p.version),
        )
        for p in prompts
    ]
    console = Console()
    if not console.is_terminal:
        for row in rows:
            _write("\t".join(row))
        return
    table = Table(*names, box=None, header_style="bold", pad_edge=False)
    for prompt, row in zip(prompts, rows, strict=True):
        table.add_row(*(Text(cell) for cell in row), style=None if prompt.enabled else "dim")
    console.print(table)


def _json(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
