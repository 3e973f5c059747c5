"""From a camera's capture to the event in Redis, at half the load that this machine carries."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from streamer.bench.cameras import camera_site, playing
from streamer.embedded import BrokerKind
from streamer.errors import UnavailableError
from streamer.event_log import Entry, EventLog
from streamer.events import STAGES
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.settings import Settings

Say = Callable[[str], None]
BUSY_SHARE = 0.25
WARM_UP_S = 6.0
PROBE_INTERVAL_S = 2.0


def measure_latency(
    settings: Settings, say: Say, *, cameras: int, seconds: float, broker: BrokerKind
) -> dict[str, Any]:
    """Latencies of opening events. A new prompt that matches everything comes every other second, so that they do open.

    Latency is from the capture of the first sample of the event until Redis had it: the window's span is part of it.
    The stages are those of the event documents, and ``emit`` the rest until Redis had it.
    """
    total: list[float] = []
    stages: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with camera_site(settings, broker) as site:
        redis = connect_redis(site.settings.redis.url)
        log, store = EventLog(redis, site.settings.redis.prefix), PromptStore(redis, site.settings.redis.prefix)
        last_id = log.last_id()
        with playing(site, cameras, BUSY_SHARE, seconds + WARM_UP_S):
            time.sleep(WARM_UP_S)
            for number in range(round(seconds / PROBE_INTERVAL_S)):
                store.add({"id": f"probe-{number}", "text": "anything", "threshold": 0.0, "modality": "video"})
                deadline_s = time.monotonic() + PROBE_INTERVAL_S
                while time.monotonic() < deadline_s:
                    last_id, entries = log.read(last_id, block_s=0.2)
                    for entry in entries:
                        if entry.event.state == "open" and not entry.event.prompt.system:
                            _note(entry, total, stages)
                store.remove(f"probe-{number}")
        redis.close()
    say(f"{len(total)} events opened on {cameras} cameras")
    if not total:
        raise UnavailableError(
            "no event opened, so there is no latency to tell; is the machine too slow for --cameras?"
        )
    return {
        **{f"p{q}_s": round(float(np.percentile(total, q)), 3) for q in (50, 95, 99)},
        "window_s": settings.window.span_s,
        "stages": {stage: round(float(np.mean(values)), 4) for stage, values in stages.items()},
        "mean_s": round(float(np.mean(total)), 4),
        "events": len(total),
        "cameras": cameras,
    }


def _note(entry: Entry, total: list[float], stages: dict[str, list[float]]) -> None:
    event = entry.event
    whole_s = (entry.told_us - event.start_us) / 1e6
    total.append(whole_s)
    before_s = 0.0
    for stage in STAGES:
        if stage != "emit":
            spent_s = getattr(event.latency.stages, stage)
            stages[stage].append(spent_s)
            before_s += spent_s
    stages["emit"].append(whole_s - before_s)
