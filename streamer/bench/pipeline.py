"""How close the whole path comes to the bare encoder: frames a second from Kafka bytes to Redis."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.encoders import PictureEncoder
from models.load import load_chosen
from streamer.bench.feed import fill
from streamer.bench.footage import SMALL, street
from streamer.bench.prompts import distinct_prompts
from streamer.bench.site import Site, start_worker
from streamer.decode import DecodeOptions, decode_chunk
from streamer.kafka_producer import BoundedProducer
from streamer.local import local_servers
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.settings import Settings

BATCHES = (1, 2, 4, 8, 16, 32)
_CEILING_S = 2.0
STREAMS = (1, 8, 32)
PROMPTS = (1, 100, 1_000, 10_000)
_CHUNKS = 320
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PipelineFigures:
    """What `watchword bench pipeline` prints. Frames a second, each frame encoded, none reused."""

    ceiling_fps: float
    pipeline_fps: float
    streams: Mapping[str, float]
    prompts: Mapping[str, float]
    ceilings: Sequence[float]

    def document(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "ceiling_fps": round(self.ceiling_fps, 1),
            "pipeline_fps": round(self.pipeline_fps, 1),
            "ratio": round(self.pipeline_fps / self.ceiling_fps, 3),
            "streams": {key: round(value, 1) for key, value in self.streams.items()},
            "prompts": {key: round(value, 1) for key, value in self.prompts.items()},
            "ceilings_fps": [round(value, 1) for value in self.ceilings],
        }


def measure_pipeline(settings: Settings, say: Say) -> PipelineFigures:
    """Ceiling and pipeline in turn, so that a machine whose speed wanders treats both alike."""
    settings = settings_for_every_frame(settings)
    chunks = street(SMALL, settings)
    frames = _frames(chunks, settings)
    encoder = _encoder(settings)
    ceilings = [ceiling_fps(encoder, frames, say)]
    per_chunk = len(frames) / len(chunks)
    rounds: dict[tuple[int, int], float] = {}
    for streams, prompts in [*((count, 100) for count in STREAMS), *((8, count) for count in PROMPTS if count != 100)]:
        rounds[streams, prompts] = _worked_off_fps(settings, chunks, streams, prompts, per_chunk)
        say(f"{streams} streams, {prompts} prompts: {rounds[streams, prompts]:.0f} frames/s")
        ceilings.append(ceiling_fps(encoder, frames, say))
    return PipelineFigures(
        ceiling_fps=float(np.mean(ceilings)),
        pipeline_fps=rounds[8, 100],
        streams={str(count): rounds[count, 100] for count in STREAMS},
        prompts={str(count): rounds[8, count] for count in PROMPTS},
        ceilings=ceilings,
    )


def settings_for_every_frame(settings: Settings) -> Settings:
    """Every frame decoded and encoded, none skipped, none reused."""
    changes = {
        "decode": {"effort": "motion", "motion_rate_hz": 1000.0},
        "encode": {"rate_hz": 1000.0, "reuse_max_age_s": 0.0},
        "overload": {"policy": "lossless"},
    }
    sections = {name: getattr(settings, name).model_copy(update=update) for name, update in changes.items()}
    return settings.model_copy(update=sections)


def ceiling_fps(encoder: PictureEncoder, frames: np.ndarray[Any, np.dtype[np.uint8]], say: Say) -> float:
    """The encoder alone, at its best batch size, which a first round finds."""
    best = max(BATCHES, key=lambda batch: _encoded_fps(encoder, frames[:batch], _CEILING_S / len(BATCHES)))
    fps = _encoded_fps(encoder, frames[:best], _CEILING_S)
    say(f"encoder alone: {fps:.0f} frames/s, {best} at once")
    return fps


def _encoded_fps(encoder: PictureEncoder, frames: np.ndarray[Any, np.dtype[np.uint8]], seconds: float) -> float:
    encoder.encode(frames)
    count, began_s = 0, time.perf_counter()
    while (spent_s := time.perf_counter() - began_s) < seconds:
        encoder.encode(frames)
        count += len(frames)
    return count / spent_s


def _encoder(settings: Settings) -> PictureEncoder:
    return load_chosen(settings.encode).picture


def _frames(chunks: Sequence[Any], settings: Settings) -> np.ndarray[Any, np.dtype[np.uint8]]:
    options = DecodeOptions.of(settings.decode, 224)
    return np.concatenate([decode_chunk(chunk, options).pixels for chunk in chunks])


def _worked_off_fps(
    settings: Settings, chunks: Sequence[Any], streams: int, prompts: int, frames_per_chunk: float
) -> float:
    """Fill Kafka, then start a worker and time it between a tenth and nineteen twentieths of the way."""
    names = [f"camera-{number}" for number in range(streams)]
    with (
        tempfile.TemporaryDirectory(prefix="watchword-bench-") as folder,
        local_servers(settings, broker="tansu", is_long_run=False) as (running, servers),
    ):
        redis = connect_redis(running.redis.url)
        PromptStore(redis, running.redis.prefix).import_many(distinct_prompts(prompts))
        with BoundedProducer(running.kafka.bootstrap, message_max_bytes=running.kafka.message_max_bytes) as producer:
            total = fill(producer, running.kafka.topics[0], names, chunks, max(1, _CHUNKS // streams))
        with start_worker(running, servers, Path(folder)) as site:
            return _slope(site, total) * frames_per_chunk


def _slope(site: Site, total: int) -> float:
    """Chunks a second."""
    kafka, prefix = site.settings.kafka, site.settings.redis.prefix
    redis = connect_redis(site.settings.redis.url)
    first: tuple[float, int] | None = None
    while True:
        pipeline = redis.pipeline(transaction=False)
        for partition in range(kafka.partitions):
            pipeline.hget(f"{prefix}partition:{partition}", f"offset:{kafka.topics[0]}")
        done = sum(int(value) for value in pipeline.execute() if value is not None)
        now_s = time.monotonic()
        if first is None and done >= total * 0.1:
            first = (now_s, done)
        if first is not None and done >= total * 0.9:
            redis.close()
            return (done - first[1]) / (now_s - first[0])
        time.sleep(0.01)
