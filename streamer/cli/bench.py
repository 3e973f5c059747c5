"""`watchword bench`: what this machine carries."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from streamer.embedded import BrokerKind

app = typer.Typer(
    help="Measure this machine. Each command starts servers and workers of its own and prints a table, or --json.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Broker = Annotated[
    str,
    typer.Option(help="kafka, tansu, or auto: Apache Kafka where Java and Maven are. Tansu adds 0.13 s of latency."),
]
Config = Annotated[Path | None, typer.Option(help="Settings file.")]


@app.command()
def pipeline(config: Config = None, *, as_json: AsJson = False) -> None:
    """Frames a second from Kafka bytes to Redis, against the bare encoder; by streams and by prompts.

    For example: watchword bench pipeline --json
    """
    from streamer.bench.pipeline import measure_pipeline
    from streamer.settings import load_settings

    figures = measure_pipeline(load_settings(config), _say).document()
    if as_json:
        return _json(figures)
    _table(
        f"{figures['pipeline_fps']} frames/s of the encoder's {figures['ceiling_fps']}: ratio {figures['ratio']}",
        ["what", "frames/s", "ratio"],
        [
            [f"{count} {what}", str(fps), f"{fps / figures['ceiling_fps']:.2f}"]
            for what in ("streams", "prompts")
            for count, fps in figures[what].items()
        ],
    )
    return None


@app.command()
def cameras(
    seconds: Annotated[float, typer.Option(help="How long each number of cameras plays.")] = 20.0,
    most: Annotated[int, typer.Option(help="Try no more than this.")] = 120,
    broker: Broker = "auto",
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """How many 720p25 cameras with sound are watched in real time, with 100 prompts, p95 latency under 2 s.

    For example: watchword bench cameras --seconds 30
    """
    from streamer.bench.cameras import measure_cameras, table_rows
    from streamer.settings import load_settings

    figures = measure_cameras(load_settings(config), _say, seconds=seconds, most=most, broker=_broker(broker))
    if as_json:
        return _json(figures)
    _table(
        figures["mix"],
        ["mix", "cameras", "p95", "worker CPU, ms a camera-second", "ms a camera-second by stage"],
        table_rows(figures),
    )
    return None


@app.command()
def latency(
    cameras: Annotated[int, typer.Option(help="Half of what `bench cameras` found.")] = 20,
    seconds: Annotated[float, typer.Option(help="How long they play.")] = 30.0,
    broker: Broker = "auto",
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """From the capture of an event's first sample until Redis has the event.

    For example: watchword bench latency --cameras 20
    """
    from streamer.bench.latency import measure_latency
    from streamer.settings import load_settings

    figures = measure_latency(load_settings(config), _say, cameras=cameras, seconds=seconds, broker=_broker(broker))
    if as_json:
        return _json(figures)
    rows = [[stage, f"{spent_s:.4f}"] for stage, spent_s in figures["stages"].items()]
    _table(
        f"p50 {figures['p50_s']} s, p95 {figures['p95_s']} s, p99 {figures['p99_s']} s; a window is "
        f"{figures['window_s']} s of it",
        ["stage", "mean seconds"],
        [*rows, ["together", f"{figures['mean_s']:.4f}"]],
    )
    return None


@app.command()
def memory(
    streams: Annotated[int, typer.Option(help="Cameras that loop.")] = 16,
    minutes: Annotated[float, typer.Option(help="How long.")] = 15.0,
    broker: Broker = "auto",
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Resident memory of worker, broker and Redis over time: does it stay flat?

    For example: watchword bench memory --minutes 15
    """
    from streamer.bench.memory import measure_memory
    from streamer.settings import load_settings

    figures = measure_memory(
        load_settings(config),
        _say,
        streams=streams,
        seconds=minutes * 60,
        broker=_broker(broker),
    )
    if as_json:
        return _json(figures)
    rows = [[name, *(f"{part:.1f}" for part in parts)] for name, parts in figures["mb_by_third"].items()]
    together = [f"{part:.1f}" for part in figures["together_mb_by_third"]]
    _table(
        f"last third against the middle one: {figures['growth']:+.1%}",
        ["process", "first third, MB", "middle", "last"],
        [*rows, ["together", *together]],
    )
    return None


@app.command()
def effort(
    films: Annotated[
        list[Path] | None, typer.Argument(metavar="FILM", help="Films of yours. Default: a busy and a quiet one.")
    ] = None,
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """What following activity saves, and what it costs in confidence, against looking at every frame.

    For example: watchword bench effort yard.mp4 gate.mp4
    """
    from streamer.bench.effort import measure_effort
    from streamer.settings import load_settings

    figures = measure_effort(load_settings(config), _say, films or ())
    if as_json:
        return _json(figures)
    rows = []
    for name, row in figures["films"].items():
        pairs = [" -> ".join(map(str, row[key])) for key in ("decoded_frames", "encoded_frames")]
        errors = [f"{row[f'confidence_error_{which}']:.4f}" for which in ("mean", "p99", "max")]
        rows.append([name, str(row["windows"]), *pairs, f"{row['cpu_ratio']:.2f}", *errors])
    _table(
        f"by activity against every frame, {figures['prompts']} prompts",
        ["film", "windows", "decoded", "encoded", "CPU", "mean error", "p99", "max"],
        rows,
    )
    return None


def _broker(name: str) -> "BrokerKind":
    from typing import cast

    from streamer.errors import UsageError

    if name not in {"auto", "kafka", "tansu"}:
        raise UsageError(f"--broker {name!r} is not allowed; auto, kafka or tansu is")
    return cast("BrokerKind", name)


@app.command()
def prefilter(
    films: Annotated[list[Path] | None, typer.Argument(help="Films of yours. Default: a busy and a quiet one.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompts, one a line. Default: 10,000 made from words.")] = None,
    threshold: Annotated[float, typer.Option(min=0.01, max=0.99, help="Of every prompt.")] = 0.5,
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """What 10,000 prompts cost beside encoding, how many are looked at, and whether a match is lost.

    For example: watchword bench prefilter yard.mp4 --prompts words.txt
    """
    from streamer.bench.prefilter import measure_prefilter
    from streamer.settings import load_settings

    texts = [] if prompts is None else [line for line in prompts.read_text().splitlines() if line.strip()]
    figures = measure_prefilter(load_settings(config), _say, films or (), texts, threshold)
    if as_json:
        return _json(figures)
    columns = ("frames", "encode_ms", "align_ms", "cost", "looked_at", "matches", "lost", "lifted")
    _table(
        f"{figures['prompts']} prompts, one thread, milliseconds a frame",
        ["film", *(column.replace("_", " ") for column in columns)],
        [[name, *(str(row[column]) for column in columns)] for name, row in figures["films"].items()],
    )
    return None


Manifest = Annotated[Path, typer.Option(help="CSV with columns path, kind, labels, split.", exists=True)]
Root = Annotated[Path, typer.Option(help="Folder that the manifest's paths are relative to.", exists=True)]
Split = Annotated[str, typer.Option(help="Only items of this split; empty: all.")]
Keep = Annotated[Path | None, typer.Option(help="Folder to keep the composed clips in. Default: they are deleted.")]


@app.command()
def evidence(
    manifest: Manifest,
    root: Root,
    split: Split = "dev",
    clips: Annotated[int, typer.Option(help="Clips to compose of each sort.", min=1)] = 60,
    keep: Keep = None,
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Whether evidence is true: fire planted at known places, sounds under other films, events scored again.

    The clips are composed from files of yours: films and sounds without labels, fire, gunshots, sirens, screams,
    explosions.

    For example: watchword bench evidence --manifest data/manifest.csv --root data
    """
    from streamer.cli.progress import counted
    from streamer.evaluate.evidence import measure_evidence
    from streamer.settings import load_settings
    from streamer.stages import open_stages

    stages = open_stages(load_settings(config))
    with counted("composing") as progress, _folder(keep) as folder:
        figures = measure_evidence(stages, manifest, root, folder, split=split or None, count=clips, progress=progress)
    if as_json:
        return _json(figures)
    rows = [
        [name, key.replace("_", " "), str(value)]
        for name in ("pointing", "senses", "again")
        for key, value in figures[name].items()
    ]
    _table("evidence of composed clips", ["what", "figure", "value"], rows)
    return None


@app.command()
def fusion(
    manifest: Manifest,
    root: Root,
    split: Split = "dev",
    clips: Annotated[int, typer.Option(help="Clips to compose of each sort.", min=1)] = 32,
    keep: Keep = None,
    config: Config = None,
    *,
    as_json: AsJson = False,
) -> None:
    """What two senses are worth together, and what is lost with one of them, on composed clips.

    For example: watchword bench fusion --manifest data/manifest.csv --root data
    """
    from streamer.cli.progress import counted
    from streamer.evaluate.fusion import measure_fusion
    from streamer.settings import load_settings
    from streamer.stages import open_stages

    stages = open_stages(load_settings(config))
    with counted("composing") as progress, _folder(keep) as folder:
        figures = measure_fusion(stages, manifest, root, folder, split=split or None, count=clips, progress=progress)
    if as_json:
        return _json(figures)
    rows = [
        [f"{gone} lost", *(str(one[key]) for key in ("alone", "fused_without_it", "cost", "fused_beside_it"))]
        for gone, one in figures["lost"].items()
    ]
    _table(
        f"average precision of {figures['clips']} composed clips: fused {figures['fused_ap']}, seen alone "
        f"{figures['seen_ap']}, heard alone {figures['heard_ap']}",
        ["", "single sense", "fused without the other", "cost", "fused beside it"],
        rows,
    )
    return None


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="watchword-composed-") as folder:
        yield Path(folder)


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _json(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
