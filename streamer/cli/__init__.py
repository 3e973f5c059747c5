"""The command `watchword`: one file per command group; here they are put together and errors become exit codes."""

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from streamer.errors import UsageError, WatchwordError

_EPILOG = """
Examples:

  watchword demo                                  see it work

  watchword run street.mp4 --prompt bicycle       events of one file

  watchword up                                    servers and a worker, here

  watchword ingest yard=rtsp://10.0.0.7/stream    a camera into Kafka

  watchword prompts add "glass breaking"          watched for from now on

  watchword events tail --json                    what was seen and heard

Exit status: 0 done, 1 failed, 2 wrong usage. Results go to stdout, everything else to stderr.
"""

_PANELS = {
    "Begin": ("demo", "doctor"),
    "Run": ("run", "up", "ingest", "worker", "api"),
    "Watch": ("prompts", "events", "streams", "why", "tokens"),
    "Measure": ("evaluate", "train", "bench"),
}


class _InOrder(TyperGroup):
    """Lists commands in the order of the panels; left alone it puts groups behind single commands."""

    def list_commands(self, ctx: object) -> list[str]:
        del ctx
        return [name for names in _PANELS.values() for name in names]


app = typer.Typer(
    name="watchword",
    cls=_InOrder,
    help="Standing text prompts over live video and sound.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        sys.stdout.write(f"watchword {version('watchword')}\n")
        raise typer.Exit


@app.callback()
def _options(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    del show_version
    del debug  # read by `main`, which also sees what goes wrong before any option is parsed


def _register() -> None:
    """Put the commands together. Each imports what it needs only when it runs, so that `--help` is quick."""
    from streamer.cli import api as api_command
    from streamer.cli import (
        bench,
        demo,
        doctor,
        evaluate,
        events,
        ingest,
        prompts,
        run,
        streams,
        tokens,
        train,
        up,
        why,
    )
    from streamer.cli import worker as worker_command

    groups: dict[str, typer.Typer] = {
        "prompts": prompts.app,
        "events": events.app,
        "bench": bench.app,
        "tokens": tokens.app,
    }
    watching = (demo.demo, doctor.doctor, run.run, up.up, ingest.ingest, streams.streams, why.why)
    single = (*watching, worker_command.worker, api_command.api, evaluate.evaluate, train.train)
    commands: dict[str, Callable[..., None]] = {command.__name__: command for command in single}
    for panel, names in _PANELS.items():
        for name in names:
            if name in groups:
                app.add_typer(groups[name], name=name, rich_help_panel=panel)
            else:
                app.command(name, rich_help_panel=panel)(commands[name])


def main() -> NoReturn:
    """Run the command line; errors end as one sentence on stderr and an exit status."""
    is_debug = "--debug" in sys.argv[1:]
    try:
        status = _run()
    except WatchwordError as error:
        if is_debug:
            raise
        _say(str(error))
        status = 2 if isinstance(error, UsageError) else 1
    except Exception as error:
        if is_debug:
            raise
        _say(f"unexpected {type(error).__name__}: {error}; run again with `watchword --debug ...` and report it")
        status = 1
    sys.exit(status)


def _run() -> int:
    """The exit status of the command. Of one whose reader has left, as `head` does, 0: it read what it wanted."""
    try:
        try:
            _register()
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
        return 0
    except SystemExit as end:
        # typer and rich make an exit of it, which keeps the cause.
        if isinstance(end.__context__, BrokenPipeError):
            _close_stdout()
            return 0
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _close_stdout() -> None:
    """Send what is still buffered nowhere, or the interpreter fails to write it at its end."""
    if sys.__stdout__ is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _say(message: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]watchword:[/] ", end="")
    sys.stderr.write(f"{message}\n")
