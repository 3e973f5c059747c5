"""Whether memory stays flat: streams that loop for a long time, every process watched."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from streamer.bench.cameras import playing
from streamer.bench.prompts import distinct_prompts
from streamer.bench.site import open_site
from streamer.embedded import BrokerKind
from streamer.settings import Settings

Say = Callable[[str], None]
_INTERVAL_S = 2.0
_BUSY_SHARE = 0.25


def measure_memory(settings: Settings, say: Say, *, streams: int, seconds: float, broker: BrokerKind) -> dict[str, Any]:
    """Resident memory of worker and servers; the last third of the time against the middle one."""
    samples: dict[str, list[int]] = {}
    with (
        open_site(settings, distinct_prompts(100), broker=broker) as site,
        playing(site, streams, _BUSY_SHARE, seconds + 60),
    ):
        began_s = time.monotonic()
        last_said = 0
        while (elapsed_s := time.monotonic() - began_s) < seconds:
            for name, held in site.resident_bytes().items():
                samples.setdefault(name, []).append(held)
            if elapsed_s // 60 > last_said:
                last_said = int(elapsed_s // 60)
                now = ", ".join(f"{name} {held[-1] / 1e6:.0f} MB" for name, held in samples.items())
                say(f"{last_said} min: {now}")
            time.sleep(_INTERVAL_S)
    return summary(samples, streams, seconds)


def summary(samples: Mapping[str, Sequence[int]], streams: int, seconds: float) -> dict[str, Any]:
    """Means of the thirds by process and together, and how much the last grew over the middle one."""
    thirds = {
        name: [float(np.mean(part)) for part in np.array_split(np.array(held), 3)] for name, held in samples.items()
    }
    whole = [sum(parts[third] for parts in thirds.values()) for third in range(3)]
    return {
        "streams": streams,
        "seconds": seconds,
        "growth": round(whole[2] / whole[1] - 1, 4),
        "mb_by_third": {name: [round(part / 1e6, 1) for part in parts] for name, parts in thirds.items()},
        "together_mb_by_third": [round(part / 1e6, 1) for part in whole],
    }
