"""`watchword demo`: see it work."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from streamer.demo import Feed, Script
    from streamer.events import Event
    from streamer.session import Progress, Session

_BAR = 20
_TELL_S = 2.0
_COLOURS = {"info": "cyan", "warning": "yellow", "critical": "bold red"}


def demo(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="Yours instead of the built-in cameras.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="What to watch for; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where events and snapshots are written.")] = Path("out/demo"),
) -> None:
    """Watch two cameras at once and see events as they come: a real street, and a generated scene with a fire.

    For example:

    watchword demo

    watchword demo rtsp://10.0.0.7/stream --prompt "a person at the door"
    """
    from rich.console import Console
    from rich.live import Live

    from streamer.demo import Feed, built_in_script, own_script, save_snapshots
    from streamer.logs import set_up_logging
    from streamer.session import open_session
    from streamer.settings import load_settings

    console = Console()
    settings = load_settings(flags={"overload.policy": "lossless", "log.level": "error"})
    set_up_logging(settings.log)
    out.mkdir(parents=True, exist_ok=True)
    with console.status("Making the cameras' films, starting a broker and a Redis, loading the models ..."):
        script = own_script(sources, prompt or ()) if sources else built_in_script(out, prompt or ())
        opened = open_session(settings, script.sources, script.prompts)
        session = opened.__enter__()
    feed = Feed()
    started_s = time.monotonic()
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def refresh() -> None:
                live.update(_view(session.progress(), script, feed, time.monotonic() - started_s), refresh=True)

            try:
                for event in session.events(on_wait=refresh):
                    feed.add(event)
                    if not console.is_terminal and event.state != "update":
                        console.print(_line(event))
            except KeyboardInterrupt:
                console.print("[dim]stopped[/]")
        final = _final(session)
        pictures = save_snapshots(session, feed.all, out)
        (out / "events.jsonl").write_text("".join(event.to_json() + "\n" for event in feed.all), encoding="utf-8")
        shown = _view(final, script, feed, time.monotonic() - started_s)
        console.print(shown)
        _save_screen(shown, out / "screen.svg")
        _conclude(feed, out, pictures)
    finally:
        opened.__exit__(None, None, None)


def _final(session: "Session") -> "Progress":
    """The last progress. Workers tell of their streams now and then: a short film's end comes a moment later."""
    deadline_s = time.monotonic() + _TELL_S
    while True:
        progress = session.progress()
        if time.monotonic() > deadline_s or all(fact.name in progress.streams for fact in progress.sources):
            return progress
        time.sleep(0.05)


def _view(progress: "Progress", script: "Script", feed: "Feed", elapsed_s: float) -> "Group":
    from rich.console import Group
    from rich.panel import Panel

    return Group(
        Panel(_cameras(progress, script), title=f"cameras, {elapsed_s:.0f} s", title_align="left", border_style="dim"),
        Panel(_prompts(progress, script), title="prompts, confidence now", title_align="left", border_style="dim"),
        Panel(_events(feed), title="events", title_align="left", border_style="dim"),
    )


def _cameras(progress: "Progress", script: "Script") -> "RenderableType":
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "camera", "state", "chunks", "frames/s", "windows", "what it is", box=None, pad_edge=False, expand=True
    )
    for fact in progress.sources:
        status = progress.streams.get(fact.name, {})
        rate, windows = status.get("rate_hz", "0"), status.get("windows", "0")
        note = script.notes.get(fact.name, fact.source)
        table.add_row(f"[bold]{fact.name}[/]", fact.state, str(fact.chunks), rate, windows, f"[dim]{escape(note)}[/]")
    return table


def _prompts(progress: "Progress", script: "Script") -> "RenderableType":
    from rich.table import Table

    from streamer.prompts import slug

    names = list(script.sources)
    table = Table("prompt", *names, box=None, pad_edge=False, expand=True)
    thresholds = {slug(str(prompt["text"])): float(str(prompt.get("threshold", 0.5))) for prompt in script.prompts}
    ids = sorted({prompt for found in progress.confidences.values() for prompt in found})
    for prompt in ids:
        threshold = thresholds.get(prompt, 0.5)
        bars = [_bar(progress.confidences.get(name, {}).get(prompt), threshold) for name in names]
        table.add_row(f"[bold]{prompt}[/] [dim]from {threshold:g}[/]", *bars)
    return table


def _bar(confidence: float | None, threshold: float) -> str:
    if confidence is None:
        return "[dim]-[/]"
    filled = round(confidence * _BAR)
    colour = "red" if confidence >= threshold else "cyan"
    return f"[{colour}]{'█' * filled}[/][dim]{'░' * (_BAR - filled)}[/] {confidence:.2f}"


def _events(feed: "Feed") -> "RenderableType":
    from rich.text import Text

    if not feed.newest:
        return Text("none yet", style="dim")
    return Text.from_markup("\n".join(_line(event) for event in feed.newest))


def _line(event: "Event") -> str:
    from rich.markup import escape

    colour = _COLOURS[event.severity]
    senses = [
        f"{name} {value:.2f}" for name, value in (("seen", event.seen), ("heard", event.heard)) if value is not None
    ]
    return (
        f"[dim]{event.start[11:19]}[/] [{colour}]{event.state:6}[/] {event.stream:8} "
        f"[bold]{escape(event.prompt.text)}[/] {event.confidence:.2f} [dim]{', '.join(senses)}[/]"
    )


def _save_screen(shown: "Group", path: Path) -> None:
    """The last screen as a picture, for a README or a report."""
    from io import StringIO

    from rich.console import Console

    console = Console(record=True, width=118, file=StringIO(), force_terminal=True)
    console.print(shown)
    console.save_svg(str(path), title="watchword demo")


def _conclude(feed: "Feed", out: Path, pictures: int) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    by_camera: dict[str, list[str]] = {}
    for event in feed.latest.values():
        by_camera.setdefault(event.stream, []).append(f"{event.prompt.text} (peak {event.peak:.2f})")
    console.print(f"\n[bold]Saw {len(feed.latest)} event{'s' * (len(feed.latest) != 1)}.[/]")
    for camera, found in sorted(by_camera.items()):
        console.print(f"  {camera}: {escape(', '.join(found))}")
    console.print(f"\nEvents: {out / 'events.jsonl'}   snapshots: {pictures} in {out}/", markup=False)
    console.print(
        "An event says in `model` whether its prompt was trained for and its confidence is calibrated.", markup=False
    )
    console.print("\nTry next:")
    console.print("  make demo SOURCE=clip.mp4                                   your own film or camera")
    console.print('  .venv/bin/watchword run clip.mp4 --prompt "a person lying on the floor"')
    console.print("  .venv/bin/watchword up                                      a site that keeps running")
