"""A site for measuring: embedded servers and workers of their own processes, watched through their metrics."""

import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from streamer.embedded import BrokerKind, EmbeddedServer
from streamer.embedded.child import Child
from streamer.errors import UnavailableError
from streamer.local import local_servers
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.settings import Settings

_START_S = 300.0  # ten thousand new prompts are embedded first
_END_S = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples of a worker's metrics at one moment.

    Attributes:
        at_s: Monotonic seconds.
        samples: Name and labels to value.
    """

    at_s: float
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def total(self, name: str, **labels: str) -> float:
        """Sum of a metric over all series that carry these labels."""
        wanted = set(labels.items())
        return sum(value for (found, having), value in self.samples.items() if found == name and wanted <= having)

    def quantile(self, name: str, share: float, since: "Scrape") -> float:
        """A quantile of a histogram between two scrapes, interpolated in its bucket; NaN without observations.

        Its series, of several streams say, are taken together.
        """
        counts: dict[float, float] = {}
        for (found, labels), value in self.samples.items():
            if found == f"{name}_bucket":
                bound = float(dict(labels)["le"])
                counts[bound] = counts.get(bound, 0.0) + value - since.samples.get((found, labels), 0.0)
        buckets = sorted(counts.items())
        if not buckets or buckets[-1][1] <= 0:
            return float("nan")
        wanted = share * buckets[-1][1]
        lower, below = 0.0, 0.0
        for upper, count in buckets:
            if count >= wanted:
                inside = (wanted - below) / (count - below) if count > below else 1.0
                return lower + (min(upper, 2 * lower + 1) - lower) * inside
            lower, below = upper, count
        return lower


@dataclass(slots=True)
class Site:
    """Running servers and one worker."""

    settings: Settings
    servers: Sequence[EmbeddedServer]
    worker: Child
    metrics_url: str

    def scrape(self) -> Scrape:
        """The worker's metrics now."""
        try:
            with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:  # noqa: S310  # our own loopback URL
                text = answer.read().decode()
        except OSError as error:
            raise UnavailableError(
                f"the worker does not answer ({error}); it wrote last:\n{self.worker.log_tail()}"
            ) from error
        samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        return Scrape(time.monotonic(), samples)

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds spent so far by the worker and by each server."""
        spent = {"worker": process_cpu_s(self.worker.pid)}
        for server in self.servers:
            spent[server.kind] = process_cpu_s(server.pid)
        return spent

    def resident_bytes(self) -> dict[str, int]:
        """Memory held now by the worker and by each server."""
        held = {"worker": process_resident_bytes(self.worker.pid)}
        return held | {server.kind: server.resident_bytes for server in self.servers}


def process_cpu_s(pid: int) -> float:
    """Processor seconds that a process and its threads have spent, from ``/proc/PID/stat`` (proc(5), fields 14, 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def process_resident_bytes(pid: int) -> int:
    """Resident memory of a process, from ``/proc/PID/status``."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def open_site(settings: Settings, prompts: Sequence[Mapping[str, object]], *, broker: BrokerKind) -> Iterator[Site]:
    """Start servers and a worker, register prompts, wait until the worker is ready."""
    with (
        tempfile.TemporaryDirectory(prefix="watchword-bench-") as folder,
        local_servers(settings, broker=broker, is_long_run=True) as (running, servers),
    ):
        redis = connect_redis(running.redis.url)
        PromptStore(redis, running.redis.prefix).import_many(prompts)
        redis.close()
        place = Path(folder)
        with start_worker(running, servers, place) as site:
            yield site


@contextmanager
def start_worker(settings: Settings, servers: Sequence[EmbeddedServer], folder: Path) -> Iterator[Site]:
    """One worker process with these settings."""
    config = folder / "settings.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "streamer", "worker", "--config", str(config), "--metrics-port", "0", "--json"]
    worker = Child(command, folder / "worker.log")
    try:
        line = said(worker, '{"metrics"', _START_S)
        yield Site(settings, servers, worker, str(json.loads(line)["metrics"]) + "/metrics")
    finally:
        worker.terminate(_END_S)


def said(child: Child, start: str, timeout_s: float) -> str:
    """The first line of a child's output that begins so, once it is there.

    Raises:
        UnavailableError: The child ended, or did not say it in time; with what it wrote last.
    """
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        for line in child.log_end().splitlines():
            if line.startswith(start):
                return line
        if child.wait(0.05):
            break
    raise UnavailableError(f"a measured process did not get ready; it wrote last:\n{child.log_tail()}")
