"""`watchword ingest`: cameras, files and pictures into Kafka."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from streamer.ingest.counters import SourceFacts
    from streamer.ingest.ingestor import Ingestor
    from streamer.kafka_producer import BoundedProducer
    from streamer.settings import Settings

_REFRESH_S = 0.5


def ingest(  # noqa: PLR0913  # one argument an option
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=URL",
            help="Stream id and what it is: a file, a folder of pictures, /dev/video0, rtsp://..., http://..., or - for"
            " MPEG-TS on standard input.",
        ),
    ] = None,
    rate: Annotated[
        str, typer.Option(help="Pace of files: realtime, max, or a number of times real time. Cameras set their own.")
    ] = "realtime",
    kafka: Annotated[str, typer.Option(help="Kafka to send to, HOST:PORT[,HOST:PORT...].")] = "",
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    image_rate: Annotated[float, typer.Option(help="Pictures a second of a folder.")] = 1.0,
    redis: Annotated[str, typer.Option(help="Redis of the site, for --managed.")] = "",
    *,
    is_managed: Annotated[
        bool, typer.Option("--managed", help="Read the cameras that the API registered, as they come and go.")
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Begin files again at their end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="At the end, one line per source with its counters.")] = False,
) -> None:
    """Send sources to Kafka until they end, or until Ctrl-C.

    Nothing is encoded again where it can be helped: streams are cut at keyframes. Lost cameras are tried again; exit
    status 1 if a file could not be read.

    For example:

    watchword ingest --kafka broker:9092 yard=rtsp://user:password@10.0.0.7/stream dock=/dev/video0

    watchword ingest --kafka broker:9092 --rate max archive=recording.mkv

    watchword ingest --kafka broker:9092 --redis redis://cache:6379/0 --managed

    ffmpeg -i INPUT -c copy -f mpegts - | watchword ingest --kafka broker:9092 gate=-
    """
    from streamer.errors import SourceError, UnavailableError, UsageError
    from streamer.ingest.ingestor import Ingestor
    from streamer.ingest.spec import SourceSpec, parse_sources
    from streamer.kafka_client import ensure_topics
    from streamer.kafka_producer import BoundedProducer
    from streamer.settings import load_settings

    pace = parse_rate(rate)
    if not 0 < image_rate < float("inf"):
        raise UsageError(f"--image-rate {image_rate:g} is not allowed; give pictures a second, a number over 0")
    specs = {
        name: SourceSpec(url, rate=pace, loop=loop, image_rate_hz=image_rate)
        for name, url in (parse_sources(sources or ()) if sources or not is_managed else {}).items()
    }
    named = (("kafka.bootstrap", kafka), ("redis.url", redis))
    settings = load_settings(config, {key: value for key, value in named if value})
    if is_managed and not settings.redis.url:
        raise UsageError("--managed needs the Redis of the site; give --redis redis://HOST:PORT/DB")
    if not settings.kafka.bootstrap:
        raise UsageError("no Kafka is named; give --kafka HOST:PORT or set kafka.bootstrap (`watchword up` starts one)")
    limit = settings.kafka.message_max_bytes
    ensure_topics(
        settings.kafka.bootstrap,
        settings.kafka.topics,
        partitions=settings.kafka.partitions,
        message_max_bytes=limit,
    )
    producer = BoundedProducer(settings.kafka.bootstrap, message_max_bytes=limit)
    ingestor = Ingestor(specs, settings, producer)
    try:
        with _interruptible(), supervising(settings, producer) if is_managed else nullcontext():
            ingestor.start()
            if is_managed:
                signal.pause()
            _watch(ingestor, is_quiet=as_json)
    except KeyboardInterrupt:
        ingestor.stop()
    finally:
        with suppress(UnavailableError):  # what is not delivered by now is counted as dropped
            producer.close(timeout_s=1.0)
    facts = ingestor.facts()
    if as_json:
        sys.stdout.writelines(json.dumps(asdict(fact)) + "\n" for fact in facts)
    failed = [fact for fact in facts if fact.state == "failed"]
    if failed:
        raise SourceError("; ".join(f"{fact.name}: {fact.last_error}" for fact in failed))


@contextmanager
def supervising(settings: "Settings", producer: "BoundedProducer") -> Iterator[None]:
    """Read the cameras that the API registered, meanwhile."""
    import os
    import secrets
    import socket

    from streamer.camera_store import CameraStore
    from streamer.ingest.managed import CameraSupervisor
    from streamer.redis_client import connect_redis

    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    with closing(connect_redis(settings.redis.url)) as client:
        supervisor = CameraSupervisor(CameraStore(client, settings.redis.prefix), settings, producer, owner)
        supervisor.start()
        try:
            yield
        finally:
            supervisor.close()


def parse_rate(text: str) -> float | None:
    """Times real time; None: as fast as possible.

    Raises:
        UsageError: It is something else.
    """
    from streamer.errors import UsageError

    if text in {"realtime", "max"}:
        return 1.0 if text == "realtime" else None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise UsageError(f"--rate {text!r} is not allowed; realtime, max or a number over 0 is")
    return rate


def _watch(ingestor: "Ingestor", *, is_quiet: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if is_quiet or not console.is_terminal:
        while not ingestor.wait(_REFRESH_S):
            pass
        if not is_quiet:
            console.print(_table(ingestor.facts()))
        return
    with Live(_table(ingestor.facts()), console=console, auto_refresh=False) as live:
        while not ingestor.wait(_REFRESH_S):
            live.update(_table(ingestor.facts()), refresh=True)
        live.update(_table(ingestor.facts()), refresh=True)


def _table(facts: "list[SourceFacts]") -> "Table":
    from rich.table import Table

    table = Table(
        "stream", "source", "state", "chunks", "MB", "dropped", "reconnects", "errors", box=None, pad_edge=False
    )
    for fact in facts:
        numbers = (fact.chunks, f"{fact.bytes / 1e6:.1f}", fact.dropped, fact.reconnects, fact.errors)
        table.add_row(fact.name, fact.source, fact.state, *map(str, numbers))
    return table


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends this as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
