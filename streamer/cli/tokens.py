"""`watchword tokens`: who may use the API, for what, and whose pictures they may see."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from streamer.tokens import Token, TokenStore

app = typer.Typer(
    name="tokens",
    help="Tokens of the API: for what, and whose pictures. Only digests are stored.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Redis = Annotated[str, typer.Option("--redis", metavar="URL", help="redis://HOST:PORT/DB of the site.")]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings file.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scope: Annotated[
        list[str],
        typer.Option("--scope", help="prompts:write, events:read, events:write, streams:write or admin. Repeatable."),
    ],
    streams: Annotated[
        str, typer.Option("--streams", metavar="WHICH", help="Globs ('yard-*') or labels ('site=north') it may see.")
    ] = "*",
    redis: Redis = "",
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once.

    For example:

    watchword tokens add console --scope admin

    watchword tokens add guard-house --scope events:read --scope events:write --streams site=north
    """
    with _store(redis, config) as store:
        token, secret = store.add(name, scope, streams, time.time_ns() // 1000)
    if as_json:
        sys.stdout.write(json.dumps(_document(token) | {"token": secret}) + "\n")
    else:
        sys.stdout.write(f"{secret}\n")
        typer.echo(f"token {token.id} for {token.name}: keep it, it cannot be shown again", err=True)


@app.command("list")
def list_(redis: Redis = "", config: Config = None, *, as_json: AsJson = False) -> None:
    """List tokens, without what makes them work. For example: watchword tokens list."""
    with _store(redis, config) as store:
        tokens = store.list()
    for token in tokens:
        if as_json:
            sys.stdout.write(json.dumps(_document(token)) + "\n")
        else:
            shown = (token.id, token.name, ",".join(token.scopes), token.streams.text, token.created[:19])
            sys.stdout.write("\t".join(shown) + "\n")


@app.command()
def remove(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `tokens list` shows it.")],
    redis: Redis = "",
    config: Config = None,
) -> None:
    """Take a token out of use, within a second. For example: watchword tokens remove 1f0c8e5b2a7d."""
    with _store(redis, config) as store:
        store.remove(token_id)
    sys.stdout.write(f"removed {token_id}\n")


def _document(token: "Token") -> dict[str, Any]:
    return asdict(token) | {"streams": token.streams.text}


@contextmanager
def _store(redis_url: str, config: Path | None) -> "Iterator[TokenStore]":
    from streamer.errors import UsageError
    from streamer.redis_client import connect_redis
    from streamer.settings import load_settings
    from streamer.tokens import TokenStore

    settings = load_settings(config, {"redis.url": redis_url} if redis_url else {})
    if not settings.redis.url:
        raise UsageError("no Redis is named; give --redis redis://HOST:PORT/DB or set redis.url")
    with closing(connect_redis(settings.redis.url)) as client:
        yield TokenStore(client, settings.redis.prefix)
