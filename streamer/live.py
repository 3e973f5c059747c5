"""What dashboards poll and `why` reads: overwritten all the time, gone soon after its worker.

Under the prefix:

- ``live:{stream}``: hash, prompt -> latest confidence.
- ``stream:{stream}``: hash with the fields of `StreamStatus`; ``streams``: sorted set of stream ids by when they were
  last written, in seconds.
- ``why:{stream}``: hash, prompt -> JSON document of its near misses.

Written in one pipeline, never atomic with events: it may be lost, and nothing depends on it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from streamer.gates import Gate, Memory
from streamer.prompt_table import PromptTable
from streamer.redis_client import reaching

MAX_PROMPTS: Final = 256  # per stream; of more, those nearest to their thresholds
WHY_TTL_S: Final = 900
STREAM_TTL_S: Final = 86_400  # a camera that is gone stays in the list this long


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """How a stream fares.

    Attributes:
        last_frame_us: Capture time of its newest frame or sample.
        rate_hz: Frames decoded a second.
        windows: Windows tracked since the worker started.
        gaps: Gaps in its sequence.
        refused: Chunks that could not be used.
        skipped: Chunks skipped under overload.
        lag_s: From capture to tracked, of the newest window.
        partition: Kafka partition.
        labels: Of the settings.
    """

    last_frame_us: int
    rate_hz: float
    windows: int
    gaps: int
    refused: int
    skipped: int
    lag_s: float
    partition: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Glimpse:
    """What is written of one stream.

    Attributes:
        stream: Stream id.
        status: How it fares.
        table: The prompts.
        confidence: float32 ``(P,)``, of the newest window.
        memory: The best of the last minutes.
        end_us: End of the newest window, capture time.
    """

    stream: str
    status: StreamStatus
    table: PromptTable
    confidence: NDArray[np.float32]
    memory: Memory
    end_us: int


class LiveBoard:
    """Writes and reads it.

    Args:
        redis: Client that answers in bytes.
        prefix: Before every key.
        ttl_s: How long ``live:{stream}`` outlives its last write.
    """

    def __init__(self, redis: Redis, prefix: str, ttl_s: int) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl_s = ttl_s

    def write(self, glimpses: Sequence[Glimpse], now_s: float) -> None:
        """Overwrite what is known of some streams.

        Args:
            glimpses: One a stream.
            now_s: Seconds since 1970 UTC.

        Raises:
            UnavailableError: Redis is away. Nothing is lost by leaving it.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for glimpse in glimpses:
            nearest = nearest_columns(np.nan_to_num(glimpse.confidence), glimpse.table.thresholds)
            live = {
                glimpse.table.prompts[column].id: f"{glimpse.confidence[column]:.4f}"
                for column in nearest
                if not np.isnan(glimpse.confidence[column])
            }
            self._replace(pipeline, f"live:{glimpse.stream}", live, self._ttl_s)
            status = asdict(glimpse.status) | {"labels": json.dumps(dict(glimpse.status.labels)), "written_s": now_s}
            self._replace(pipeline, f"stream:{glimpse.stream}", status, STREAM_TTL_S)
            self._replace(pipeline, f"why:{glimpse.stream}", why_documents(glimpse), WHY_TTL_S)
            pipeline.zadd(f"{self._prefix}streams", {glimpse.stream: now_s})
        pipeline.zremrangebyscore(f"{self._prefix}streams", "-inf", now_s - STREAM_TTL_S)
        with reaching(self._redis):
            pipeline.execute()

    def streams(self) -> dict[str, dict[str, str]]:
        """Status fields of every known stream, by id."""
        with reaching(self._redis):
            found: Any = self._redis.zrange(f"{self._prefix}streams", 0, -1)
            names = sorted(name.decode() for name in found)
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.hgetall(f"{self._prefix}stream:{name}")
            statuses = pipeline.execute()
        return {name: _texts(status) for name, status in zip(names, statuses, strict=True) if status}

    def confidences(self, stream: str) -> dict[str, float]:
        """The latest confidences of a stream, by prompt; of very many prompts those nearest to their thresholds."""
        with reaching(self._redis):
            found: Any = self._redis.hgetall(f"{self._prefix}live:{stream}")
        return {prompt: float(value) for prompt, value in _texts(found).items()}

    def why(self, stream: str, prompt: str) -> dict[str, Any] | None:
        """What is known of a prompt on a stream, and below which confidence nothing is; None: no worker wrote any."""
        with reaching(self._redis):
            mine, rest = self._redis.hmget(f"{self._prefix}why:{stream}", [prompt, "*"])
        found = mine or rest
        return None if found is None else json.loads(found)

    def _replace(self, pipeline: Any, key: str, fields: Mapping[str, Any], ttl_s: int) -> None:
        pipeline.delete(f"{self._prefix}{key}")
        if fields:
            pipeline.hset(f"{self._prefix}{key}", mapping=fields)
            pipeline.expire(f"{self._prefix}{key}", ttl_s)


def nearest_columns(confidence: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.intp]:
    """The `MAX_PROMPTS` prompts nearest to their thresholds, in the order of the columns."""
    if len(confidence) <= MAX_PROMPTS:
        return np.arange(len(confidence))
    nearness = confidence / np.maximum(thresholds, np.float32(1e-3))
    return np.sort(np.argpartition(nearness, -MAX_PROMPTS)[-MAX_PROMPTS:])


def why_documents(glimpse: Glimpse) -> dict[str, str]:
    """Per prompt its near misses as JSON; under ``*`` what holds for those that are not listed."""
    best = glimpse.memory.best(glimpse.end_us)
    thresholds = glimpse.table.thresholds
    columns = nearest_columns(best, thresholds)
    documents = {}
    for column in columns:
        misses = glimpse.memory.near_misses(int(column), glimpse.end_us)
        documents[glimpse.table.prompts[column].id] = json.dumps(
            {
                "best": round(float(best[column]), 4),
                "gate": misses[0].gate.label if misses else Gate.THRESHOLD.label,
                "near_misses": [
                    [miss.time_us, miss.confidence, miss.gate.label] for miss in misses if miss.gate is not Gate.NONE
                ],
                "until_us": glimpse.end_us,
            }
        )
    rest = np.delete(best, columns)
    floor = round(float(rest.max(initial=0.0)), 4)
    documents["*"] = json.dumps(
        {"best": floor, "is_floor": True, "gate": Gate.THRESHOLD.label, "near_misses": [], "until_us": glimpse.end_us}
    )
    return documents


def _texts(found: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in found.items()}
