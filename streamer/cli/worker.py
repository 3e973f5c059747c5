"""`watchword worker`: one worker of a site."""

import json
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streamer.worker import Worker


def worker(
    kafka: Annotated[str, typer.Option(help="Kafka to read from, HOST:PORT[,HOST:PORT...].")] = "",
    redis: Annotated[str, typer.Option(help="Redis for prompts and events, redis://HOST:PORT/0.")] = "",
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    metrics_port: Annotated[
        int,
        typer.Option(
            help="Port of /metrics, /healthz and /readyz; 0: a free one. Default: as set.", show_default=False
        ),
    ] = -1,
    policy: Annotated[str, typer.Option(help="When slower than the cameras: live skips, lossless lags.")] = "",
    *,
    as_json: Annotated[bool, typer.Option("--json", help='Print {"metrics": URL} once ready.')] = False,
) -> None:
    """Watch what Kafka brings for the prompts in Redis, and write events to Redis.

    Start as many as there are devices: they share the partitions. SIGTERM: finish what is in flight, commit, leave;
    a second one: leave now. Nothing is lost either way.

    For example: watchword worker --kafka broker:9092 --redis redis://cache:6379/0
    """
    from streamer.errors import UsageError
    from streamer.local import prepare_topics
    from streamer.logs import set_up_logging
    from streamer.settings import load_settings

    flags: dict[str, object] = {
        key: value
        for key, value in (("kafka.bootstrap", kafka), ("redis.url", redis), ("overload.policy", policy))
        if value
    }
    if metrics_port >= 0:
        flags["metrics.port"] = metrics_port
    settings = load_settings(config, flags)
    for name, value, flag in (("Kafka", settings.kafka.bootstrap, "kafka"), ("Redis", settings.redis.url, "redis")):
        if not value:
            raise UsageError(f"no {name} is named; give --{flag}, or start everything at once with `watchword up`")
    set_up_logging(settings.log)
    prepare_topics(settings)
    from streamer.worker import Worker  # not before all else is in order: it takes seconds

    serve(Worker(settings), as_json=as_json)


def serve(working: "Worker", *, as_json: bool) -> None:
    """Run a worker until SIGTERM or SIGINT; the first lets it finish what is in flight, a second does not."""

    def leave(number: int, frame: FrameType | None) -> None:
        del number, frame
        working.stop()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    if as_json:
        threading.Thread(target=_announce, args=(working,), daemon=True).start()
    working.run()


def _announce(working: "Worker") -> None:
    if working.wait_ready():
        sys.stdout.write(json.dumps({"metrics": working.url}) + "\n")
        sys.stdout.flush()
