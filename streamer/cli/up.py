"""`watchword up`: a whole site on this machine, until it is stopped."""

import json
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer


def up(  # noqa: PLR0913  # one argument an option
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=URL", help="Cameras to ingest right away.")
    ] = None,
    broker: Annotated[str, typer.Option(help="auto, tansu, or kafka (Apache Kafka; needs Java).")] = "auto",
    folder: Annotated[
        Path | None, typer.Option("--data", help="Keep the servers' data here. Default: a temporary folder.")
    ] = None,
    kafka: Annotated[str, typer.Option(help="A Kafka of yours, HOST:PORT.")] = "",
    redis: Annotated[str, typer.Option(help="A Redis of yours, redis://HOST:PORT/0.")] = "",
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    policy: Annotated[str, typer.Option(help="When slower than the cameras: live skips, lossless lags.")] = "",
    *,
    loop: Annotated[bool, typer.Option("--loop", help="Begin files again at their end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line with every address, once ready.")] = False,
) -> None:
    """Start servers, the API and a worker here and keep them running until Ctrl-C.

    With --json one line says where everything is: {"kafka": ..., "redis": ..., "metrics": ..., "api": ...}.
    The API asks for no token on loopback with a Redis that was started here.

    For example:

    watchword up yard=rtsp://10.0.0.7/stream

    watchword up --broker kafka --data site/
    """
    from contextlib import ExitStack

    from streamer.api.embedded import EmbeddedApi
    from streamer.cli.ingest import supervising
    from streamer.embedded import Guard
    from streamer.errors import UsageError
    from streamer.ingest.ingestor import Ingestor
    from streamer.ingest.spec import SourceSpec, parse_sources
    from streamer.kafka_producer import BoundedProducer
    from streamer.local import local_servers
    from streamer.logs import set_up_logging
    from streamer.settings import load_settings
    from streamer.ssrf import PRIVATE_NETWORKS

    if broker not in {"auto", "tansu", "kafka"}:
        raise UsageError(f"--broker {broker!r} is not allowed; auto, tansu or kafka is")
    specs = {name: SourceSpec(url, loop=loop) for name, url in parse_sources(sources).items()} if sources else {}
    flags: dict[str, object] = {
        key: value
        for key, value in (("kafka.bootstrap", kafka), ("redis.url", redis), ("overload.policy", policy))
        if value
    }
    # Whoever starts it all here may watch cameras of this network; `api.allowed_networks` narrows it.
    settings = load_settings(config, flags, {"api.allowed_networks": PRIVATE_NETWORKS})
    set_up_logging(settings.log)
    from streamer.worker import Worker  # not before all else is in order: it takes seconds

    with ExitStack() as stack:
        running, servers = stack.enter_context(
            local_servers(settings, broker=broker, is_long_run=True, folder=folder)  # type: ignore[arg-type]  # checked
        )
        api = stack.enter_context(EmbeddedApi(running, is_ours=not settings.redis.url))
        working = Worker(running)

        def leave(number: int, frame: FrameType | None) -> None:
            del number, frame
            working.stop()

        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        limit = running.kafka.message_max_bytes
        producer = stack.enter_context(BoundedProducer(running.kafka.bootstrap, message_max_bytes=limit))
        stack.enter_context(supervising(running, producer))
        if specs:
            ingestor = Ingestor(specs, running, producer)
            stack.callback(ingestor.stop)
            ingestor.start()
        addresses = {
            "kafka": running.kafka.bootstrap,
            "redis": running.redis.url,
            "metrics": f"{working.url}/metrics",
            "api": api.url,
        }

        def announce() -> None:
            if working.wait_ready():
                _say(addresses, as_json=as_json)

        threading.Thread(target=announce, name="announce", daemon=True).start()

        def give_up() -> None:
            working.stop()
            if not all(server.is_running for server in (*servers, api)):
                working.stop()  # nothing that is in flight can arrive

        with Guard((*servers, api), give_up) as guard:
            working.run()
        guard.raise_failure()


def _say(addresses: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        return
    from rich.console import Console

    kafka, redis = addresses["kafka"], addresses["redis"]
    console = Console(highlight=False, soft_wrap=True)
    for name, address in addresses.items():
        console.print(f"[bold]{name:8}[/] {address}")
    console.print("\nReady. Next, in another terminal:")
    console.print(f'  watchword prompts add "a person lying on the floor" --redis {redis}')
    console.print(f"  watchword ingest yard=rtsp://CAMERA/STREAM --kafka {kafka}")
    console.print(f"  watchword events tail -f --redis {redis}")
    console.print(f"  curl -N {addresses['api']}/v1/events/feed")
