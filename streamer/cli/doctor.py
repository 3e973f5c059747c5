"""`watchword doctor`: is everything there, and if not, what to do."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    kafka: Annotated[str, typer.Option(help="Kafka to look at, HOST:PORT.")] = "",
    redis: Annotated[str, typer.Option(help="Redis to look at, redis://HOST:PORT/0.")] = "",
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One finding per line.")] = False,
) -> None:
    """Check the installation and the servers it is set to use, and say how to mend what is wrong.

    Exit status 1 if anything will not work.

    For example: watchword doctor --kafka broker:9092 --redis redis://cache:6379/0
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from streamer.doctor import examine
    from streamer.settings import load_settings

    flags = {key: value for key, value in (("kafka.bootstrap", kafka), ("redis.url", redis)) if value}
    settings = load_settings(config, flags)
    findings = []
    table = Table("", "what", "found", "to do", box=None, pad_edge=False)
    marks = {"ok": "[green]ok[/]", "warn": "[yellow]look[/]", "fail": "[bold red]mend[/]"}
    for finding in examine(settings):
        findings.append(finding)
        if as_json:
            sys.stdout.write(json.dumps(asdict(finding)) + "\n")
        table.add_row(marks[finding.status], *map(escape, (finding.name, finding.found, finding.mend)))
    if not as_json:
        Console().print(table)
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)
