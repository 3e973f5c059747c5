"""How many cameras this machine carries in real time, and what a second of one costs."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamer.bench.footage import CAMERA
from streamer.bench.prompts import distinct_prompts
from streamer.bench.site import Scrape, Site, said, start_worker
from streamer.embedded import BrokerKind
from streamer.embedded.child import Child
from streamer.local import local_servers
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.settings import Settings

PROMPTS = 100
MIXES = {"mixed": 0.25, "quiet": 0.0, "busy": 1.0}  # share of busy cameras
LIMIT_S = 2.0  # p95 latency under which a number of cameras counts as carried
_WARM_UP_S = 8.0
_START_S = 120.0  # films are made the first time
_STAGES = ("decode", "encode", "align", "track")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """How a number of cameras fared.

    Attributes:
        cameras: How many played.
        p95_latency_s: From the capture of a window's last sample until it was tracked.
        windows_per_camera_second: 1 when every window was tracked.
        skipped: Chunks that the overload policy passed over.
        cpu_ms_per_camera_second: Processor time of the worker, and of the servers, by process.
        stage_ms_per_camera_second: Time inside each stage of the worker.
    """

    cameras: int
    p95_latency_s: float
    windows_per_camera_second: float
    skipped: int
    cpu_ms_per_camera_second: Mapping[str, float]
    stage_ms_per_camera_second: Mapping[str, float]

    @property
    def is_carried(self) -> bool:
        """Every camera was watched, all the time, in time."""
        return self.p95_latency_s < LIMIT_S and self.windows_per_camera_second > 0.97 and self.skipped == 0


def measure_cameras(settings: Settings, say: Say, *, seconds: float, most: int, broker: BrokerKind) -> dict[str, Any]:
    """Find the largest number of cameras that is carried, for each mix."""
    found: dict[str, Load | None] = {}
    for mix, share in MIXES.items():
        found[mix] = _largest(settings, say, broker, mix, share, seconds, most)
    mixed = found["mixed"]
    return {
        "cameras": mixed.cameras if mixed else 0,
        "p95_latency_s": round(mixed.p95_latency_s, 3) if mixed else None,
        "stage_ms_per_camera_second": dict(mixed.stage_ms_per_camera_second) if mixed else {},
        "prompts": PROMPTS,
        "mix": "three quarters quiet (an empty room), one quarter busy (a street); 1280x720, 25 Hz, H.264, AAC",
        "loads": {mix: asdict(load) if load else None for mix, load in found.items()},
    }


def _largest(
    settings: Settings, say: Say, broker: BrokerKind, mix: str, share: float, seconds: float, most: int
) -> Load | None:
    """Up in steps of ten until one is not carried."""
    best: Load | None = None
    with camera_site(settings, broker) as site:
        for cameras in range(10, most + 1, 10):
            load = play_load(site, cameras, share, seconds)
            say(
                f"{mix}: {cameras} cameras, p95 {load.p95_latency_s:.2f} s, "
                f"{load.windows_per_camera_second:.2f} windows a camera-second, {load.skipped} chunks skipped"
            )
            if not load.is_carried:
                break
            best = load
    return best


@contextmanager
def camera_site(settings: Settings, broker: BrokerKind) -> Iterator[Site]:
    """Servers, `PROMPTS` prompts and a worker."""
    with (
        tempfile.TemporaryDirectory(prefix="watchword-bench-") as folder,
        local_servers(settings, broker=broker, is_long_run=True) as (running, servers),
    ):
        redis = connect_redis(running.redis.url)
        PromptStore(redis, running.redis.prefix).import_many(distinct_prompts(PROMPTS))
        redis.close()
        with start_worker(running, servers, Path(folder)) as site:
            yield site


def play_load(site: Site, cameras: int, busy_share: float, seconds: float) -> Load:
    """Play cameras for a while and see how the worker fares once it is warm."""
    with playing(site, cameras, busy_share, _WARM_UP_S + seconds):
        time.sleep(_WARM_UP_S)
        before, spent_before = site.scrape(), site.cpu_s()
        time.sleep(seconds)
        after, spent_after = site.scrape(), site.cpu_s()
    camera_seconds = cameras * (after.at_s - before.at_s)
    return Load(
        cameras=cameras,
        p95_latency_s=after.quantile("watchword_window_latency_seconds", 0.95, before),
        windows_per_camera_second=round(_grown(before, after, "watchword_windows_total") / camera_seconds, 3),
        skipped=round(_skipped(after) - _skipped(before)),
        cpu_ms_per_camera_second={
            name: round((spent_after[name] - spent_before[name]) / camera_seconds * 1000, 2) for name in spent_after
        },
        stage_ms_per_camera_second={
            stage: round(_grown(before, after, "watchword_stage_seconds_sum", stage=stage) / camera_seconds * 1000, 2)
            for stage in _STAGES
        },
    )


@contextmanager
def playing(site: Site, cameras: int, busy_share: float, duration_s: float) -> Iterator[None]:
    """Cameras in a process of their own, in real time, while the block runs."""
    busy = round(cameras * busy_share)
    films = {f"camera-{number:03}": "street" if number < busy else "room" for number in range(cameras)}
    orders = {
        "bootstrap": site.settings.kafka.bootstrap,
        "topic": site.settings.kafka.topics[0],
        "duration_s": duration_s,
        "shape": asdict(CAMERA),
        "cameras": films,
    }
    with tempfile.TemporaryDirectory(prefix="watchword-bench-") as folder:
        command = [sys.executable, "-m", "streamer.bench.feed", json.dumps(orders)]
        feeder = Child(command, Path(folder) / "feeder.log")
        try:
            said(feeder, "playing", _START_S)
            yield
        finally:
            feeder.kill()


def _grown(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    return after.total(name, **labels) - before.total(name, **labels)


def _skipped(scrape: Scrape) -> float:
    return sum(scrape.total("watchword_chunks_total", result=f"skipped-{reason}") for reason in ("age", "full"))


def table_rows(figures: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """One row a mix, for a table."""
    rows = []
    for mix, load in figures["loads"].items():
        if load is None:
            rows.append([mix, "under 10", "-", "-", "-"])
            continue
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in load["stage_ms_per_camera_second"].items())
        worker = f"{load['cpu_ms_per_camera_second']['worker']:.1f}"
        rows.append([mix, str(load["cameras"]), f"{load['p95_latency_s']:.2f} s", worker, stages])
    return rows
