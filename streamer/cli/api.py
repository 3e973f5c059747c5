"""`watchword api`: the HTTP API of a site."""

import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streamer.api.server import ApiServer

_POLL_S = 0.02


def api(
    redis: Annotated[str, typer.Option(help="Redis of the site, redis://HOST:PORT/0.")] = "",
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. Default: as set (127.0.0.1).")] = "",
    port: Annotated[
        int, typer.Option(help="Port; 0: a free one, printed. Default: as set (0).", show_default=False)
    ] = -1,
    *,
    as_json: Annotated[bool, typer.Option("--json", help='Print {"api": URL} once it answers.')] = False,
) -> None:
    """Serve prompts, events and streams over HTTP until Ctrl-C.

    It asks for tokens (`watchword tokens add`) unless `api.auth` is off. The OpenAPI document is at /v1/openapi.json.

    For example:

    watchword api --redis redis://cache:6379/0 --port 8080
    """
    from streamer.api.server import ApiServer
    from streamer.errors import UsageError
    from streamer.logs import set_up_logging
    from streamer.settings import load_settings

    flags: dict[str, object] = {key: value for key, value in (("redis.url", redis), ("api.host", host)) if value}
    if port >= 0:
        flags["api.port"] = port
    settings = load_settings(config, flags)
    if not settings.redis.url:
        raise UsageError(
            "no Redis is named; give --redis redis://HOST:PORT/DB or set redis.url (`watchword up` starts one)"
        )
    set_up_logging(settings.log)
    server = ApiServer(settings)
    threading.Thread(target=_announce, args=(server,), kwargs={"as_json": as_json}, daemon=True).start()
    server.run()


def _announce(server: "ApiServer", *, as_json: bool) -> None:
    waiting = threading.Event()
    while not server.is_started:
        waiting.wait(_POLL_S)
    sys.stdout.write(json.dumps({"api": server.url}) + "\n" if as_json else f"{server.url}\n")
    sys.stdout.flush()
