"""What dashboards poll and `why` reads: overwritten all the time, gone soon after its worker.

Under the prefix:

- ``live:{stream}``: hash, prompt -> latest confidence.
- ``stream:{stream}``: hash with the fields of `StreamStatus`; ``streams``: sorted set of stream ids by when they were
  last written, in seconds.
- ``why:{stream}``: JSON document, near misses of the last minutes.

Written in one pipeline, never atomic with events: it may be lost, and nothing depends on it. All of it is written every
`FULL_INTERVAL_S`; in between only confidences that changed, because on most cameras most do not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from redis import Redis

from streamer.errors import UnavailableError
from streamer.gates import NEAR_RATIO, Memory
from streamer.prompt_table import InForce, PromptTable
from streamer.redis_client import reaching

MAX_PROMPTS: Final = 256  # per stream; of more, those nearest to their thresholds
FULL_INTERVAL_S: Final = 5.0
CHANGE: Final = 0.005  # a confidence that moved by less is not written again before the next full write
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
        in_force: Thresholds that follow from budgets, by prompt.
    """

    stream: str
    status: StreamStatus
    table: PromptTable
    confidence: NDArray[np.float32]
    memory: Memory
    end_us: int
    in_force: Mapping[str, InForce] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """What Redis has of a stream: confidences (NaN: none) of a table, and when all of it was written last."""

    table: PromptTable
    confidence: NDArray[np.float32]
    full_s: float


class LiveBoard:
    """Writes and reads it. One thread writes.

    Args:
        redis: Client that answers in bytes.
        prefix: Before every key.
        ttl_s: How long ``live:{stream}`` outlives its last write.
    """

    def __init__(self, redis: Redis, prefix: str, ttl_s: int) -> None:
        self._redis = redis
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._written: dict[str, _Written] = {}

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
            self._write_one(pipeline, glimpse, now_s)
        pipeline.zremrangebyscore(f"{self._prefix}streams", "-inf", now_s - STREAM_TTL_S)
        try:
            with reaching(self._redis):
                pipeline.execute()
        except UnavailableError:
            self._written.clear()  # whatever of it arrived: the next write is a full one
            raise

    def _write_one(self, pipeline: Any, glimpse: Glimpse, now_s: float) -> None:
        before = self._written.get(glimpse.stream)
        live, key = f"{self._prefix}live:{glimpse.stream}", glimpse.stream
        if before is None or before.table is not glimpse.table or now_s - before.full_s >= FULL_INTERVAL_S:
            before = _Written(glimpse.table, np.full(len(glimpse.table), np.nan, np.float32), now_s)
            pipeline.delete(live)
            pipeline.set(f"{self._prefix}why:{key}", json.dumps(why_document(glimpse)), ex=WHY_TTL_S)
        columns = nearest_columns(np.nan_to_num(glimpse.confidence), glimpse.table.thresholds)
        values = glimpse.confidence[columns]
        is_new = ~(np.abs(values - before.confidence[columns]) < CHANGE) & ~np.isnan(values)
        columns, values = columns[is_new], values[is_new]
        if len(columns):
            prompts = glimpse.table.prompts
            fields = {
                prompts[column].id: round(value, 4) for column, value in zip(columns, values.tolist(), strict=True)
            }
            pipeline.hset(live, mapping=fields)
        pipeline.expire(live, self._ttl_s)
        status = asdict(glimpse.status) | {"labels": json.dumps(dict(glimpse.status.labels)), "written_s": now_s}
        pipeline.hset(f"{self._prefix}stream:{key}", mapping=status)
        pipeline.expire(f"{self._prefix}stream:{key}", STREAM_TTL_S)
        pipeline.zadd(f"{self._prefix}streams", {key: now_s})
        confidence = before.confidence.copy()
        confidence[columns] = values
        self._written[key] = replace(before, confidence=confidence)

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

    def stream(self, stream: str) -> dict[str, str] | None:
        """Status fields of one stream; None: no worker has seen it in the last day."""
        with reaching(self._redis):
            found: Any = self._redis.hgetall(f"{self._prefix}stream:{stream}")
        return _texts(found) or None

    def confidences(self, stream: str) -> dict[str, float]:
        """The latest confidences of a stream, by prompt; of very many prompts those nearest to their thresholds."""
        with reaching(self._redis):
            found: Any = self._redis.hgetall(f"{self._prefix}live:{stream}")
        return {prompt: float(value) for prompt, value in _texts(found).items()}

    def thresholds(self, prompt_id: str) -> dict[str, tuple[float, str]]:
        """By stream the threshold in force of a prompt with a budget, and why; of streams that were watched lately."""
        names = sorted(self.streams())
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.get(f"{self._prefix}why:{name}")
        with reaching(self._redis):
            documents = pipeline.execute()
        told = {
            name: json.loads(raw).get("thresholds", {}).get(prompt_id)
            for name, raw in zip(names, documents, strict=True)
            if raw is not None
        }
        return {name: (one[0], one[1]) for name, one in told.items() if one is not None}

    def why(self, stream: str) -> dict[str, Any] | None:
        """What `why_document` made of a stream; None: no worker wrote any lately."""
        with reaching(self._redis):
            found: Any = self._redis.get(f"{self._prefix}why:{stream}")
        return None if found is None else json.loads(found)


def nearest_columns(confidence: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.intp]:
    """The `MAX_PROMPTS` prompts nearest to their thresholds, in the order of the columns."""
    if len(confidence) <= MAX_PROMPTS:
        return np.arange(len(confidence))
    nearness = confidence / np.maximum(thresholds, np.float32(1e-3))
    return np.sort(np.argpartition(nearness, -MAX_PROMPTS)[-MAX_PROMPTS:])


def why_document(glimpse: Glimpse) -> dict[str, Any]:
    """How near prompts came in the last minutes.

    Returns:
        ``until_us``; ``best``, the best confidence by prompt; ``floor``, the best of all prompts not listed there;
        ``near``, for those that came over half their threshold, windows as ``[end in us, confidence, gate]``, best
        first; ``thresholds``, of prompts with a budget, that in force and why.
    """
    best = glimpse.memory.best(glimpse.end_us)
    table = glimpse.table
    columns = nearest_columns(best, table.thresholds)
    near = columns[(best[columns] >= NEAR_RATIO * table.thresholds[columns]) & (best[columns] > 0)]
    return {
        "until_us": glimpse.end_us,
        "best": {
            table.prompts[column].id: round(value, 4)
            for column, value in zip(columns, best[columns].tolist(), strict=True)
        },
        "floor": round(float(np.delete(best, columns).max(initial=0.0)), 4),
        "near": {
            table.prompts[column].id: [
                [miss.time_us, miss.confidence, miss.gate.label]
                for miss in glimpse.memory.near_misses(int(column), glimpse.end_us)
            ]
            for column in near
        },
        "thresholds": {prompt_id: [one.threshold, one.why] for prompt_id, one in glimpse.in_force.items()},
    }


def _texts(found: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in found.items()}
