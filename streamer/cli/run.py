"""`watchword run`: everything in one process tree, until the sources end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer


def run(  # noqa: PLR0913, PLR0917  # one argument an option
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Files, folders of pictures, rtsp:// and http:// URLs, /dev/video0, or - for MPEG-TS on standard"
            " input; NAME=SOURCE to name the stream.",
        ),
    ],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", metavar="TEXT", help="What to watch for.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file of prompt documents, YAML or JSON.")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Of the --prompt texts. Default: 0.5.")] = None,
    rate: Annotated[str, typer.Option(help="Pace of files: max, realtime, or a number of times real time.")] = "max",
    kafka: Annotated[str, typer.Option(help="A Kafka of yours, HOST:PORT, instead of the embedded one.")] = "",
    redis: Annotated[
        str, typer.Option(help="A Redis of yours, redis://HOST:PORT/0, instead of the embedded one.")
    ] = "",
    broker: Annotated[str, typer.Option(help="Embedded broker: auto, tansu or kafka.")] = "auto",
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One event document per line.")] = False,
) -> None:
    """Watch sources for prompts and print events as they open and close; ends with the sources.

    Nothing is skipped: files are read as fast as they can be watched.

    For example:

    watchword run street.mp4 --prompt bicycle

    watchword run yard=rtsp://10.0.0.7/stream -p fire -p "glass breaking" --json

    watchword run recordings/ --prompts prompts.yaml
    """
    from streamer.cli.events import print_events
    from streamer.cli.ingest import parse_rate
    from streamer.errors import UsageError
    from streamer.ingest.spec import SourceSpec, check_exists
    from streamer.logs import set_up_logging
    from streamer.prompt_files import read_documents
    from streamer.settings import load_settings

    documents: list[Mapping[str, object] | str] = [
        {"text": text} | ({} if threshold is None else {"threshold": threshold}) for text in prompt or ()
    ]
    if prompts is not None:
        documents.extend(read_documents(prompts))
    if not documents and not redis:
        raise UsageError("nothing to watch for; give --prompt TEXT, or --prompts FILE")
    if broker not in {"auto", "tansu", "kafka"}:
        raise UsageError(f"--broker {broker!r} is not allowed; auto, tansu or kafka is")
    pace = parse_rate(rate)
    specs = {name: SourceSpec(url, rate=pace) for name, url in named_sources(sources).items()}
    for spec in specs.values():
        check_exists(spec)
    flags: dict[str, object] = {
        key: value for key, value in (("kafka.bootstrap", kafka), ("redis.url", redis)) if value
    }
    settings = load_settings(config, flags, {"overload.policy": "lossless", "log.level": "error"})
    set_up_logging(settings.log)
    from streamer.session import open_session

    try:
        with open_session(settings, specs, documents, broker=broker) as session:  # type: ignore[arg-type]  # checked
            print_events(session.events(), as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def named_sources(sources: list[str]) -> dict[str, str]:
    """Stream ids of sources: as given with ``NAME=SOURCE``, else made from the source's own name."""
    from streamer.ingest.spec import name_for, parse_sources
    from streamer.media import is_stream_id

    named: dict[str, str] = {}
    for source in sources:
        name, separator, rest = source.partition("=")
        if separator and is_stream_id(name) and not Path(source).exists():
            named.update(parse_sources([f"{name}={rest}"]))
        else:
            name = name_for(source, named)
            named.update(parse_sources([f"{name}={source}"]))
    return named
