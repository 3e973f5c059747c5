"""The command `watchword`: one file per command group; here they are put together and errors become exit codes."""

import sys
from typing import Annotated, NoReturn

import typer

from streamer.errors import UsageError, WatchwordError

_EPILOG = """
Examples:

  watchword run street.mp4 --prompt bicycle                         one file, events on the terminal

  watchword up                                                      servers and a worker on this machine

  watchword ingest yard=rtsp://10.0.0.7/stream                      a camera into Kafka

  watchword prompts add "glass breaking" --modality audio           a standing prompt, live in under a second

  watchword events tail --json                                      what was seen and heard, one document a line

Exit status: 0 done, 1 failed, 2 wrong usage. Results go to stdout, everything else to stderr.
"""

app = typer.Typer(
    name="watchword",
    help="Standing text prompts over live video and sound.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    del debug  # read by `main`, which also sees what goes wrong before any option is parsed


def _register() -> None:
    """Put the commands together. Each imports what it needs only when it runs, so that `--help` is quick."""
    from streamer.cli import demo, doctor, evaluate, events, ingest, prompts, run, streams, up, why, worker
    from streamer.cli.bench import app as bench

    for command in (run.run, up.up, ingest.ingest, worker.worker):
        app.command(rich_help_panel="Run")(command)
    for group in (prompts.app, events.app):
        app.add_typer(group, rich_help_panel="Watch")
    app.command(rich_help_panel="Watch")(streams.streams)
    app.command(rich_help_panel="Watch")(why.why)
    app.command(rich_help_panel="Measure")(evaluate.evaluate)
    app.add_typer(bench, name="bench", rich_help_panel="Measure")
    app.command(rich_help_panel="Measure")(doctor.doctor)
    app.command(rich_help_panel="Measure")(demo.demo)


def main() -> NoReturn:
    """Run the command line; errors end as one sentence on stderr and an exit status."""
    is_debug = "--debug" in sys.argv[1:]
    try:
        _register()
        app()
    except WatchwordError as error:
        if is_debug:
            raise
        _say(str(error))
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except Exception as error:
        if is_debug:
            raise
        _say(f"unexpected {type(error).__name__}: {error}; run again with `watchword --debug ...` and report it")
        sys.exit(1)
    sys.exit(0)


def _say(message: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]watchword:[/] ", end="")
    sys.stderr.write(f"{message}\n")
