"""Events, state and offsets into Redis: one atomic script a commit, fenced by the partition's owner.

Under the prefix:

- ``partition:{n}``: hash with ``owner``, ``epoch``, ``state``, ``offset:TOPIC``, and ``serial`` and ``digest`` of the
  last commit.
- ``events``: stream, one entry per change of state.
- ``event:{id}``: hash, the latest document; ``events:times``, ``events:stream:{stream}``, ``events:prompt:{prompt}``:
  sorted sets of event ids by start, in microseconds.
- ``snapshot:{id}``: JPEG.

A commit whose answer got lost may be sent again as it was: the serial and the digest tell that it is written already.
One that arrives after its successor, on a connection given up for dead, is refused by its serial.
"""

import hashlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis import Redis

from streamer.errors import ContractError, FencedError
from streamer.events import Event
from streamer.redis_client import reaching
from streamer.types import Claim, Offsets

TIDY_BATCH = 500  # events removed at once


@dataclass(frozen=True, slots=True)
class EventLimits:
    """How long results are kept.

    Attributes:
        max_length: Entries in the event stream, about; also events in the index.
        max_age_s: Age of entries, events and index.
        snapshot_ttl_s: Age of snapshots.
    """

    max_length: int
    max_age_s: int
    snapshot_ttl_s: int


@dataclass(frozen=True, slots=True)
class _Held:
    epoch: int
    serial: int


class Emitter:
    """Writes for one worker. Commits come from one thread, claims from any.

    Every method may raise `UnavailableError`; `commit` may then be called again with the same arguments.

    Args:
        redis: Client that answers in bytes.
        prefix: Before every key.
        limits: How long results are kept.
        owner: Unique to this worker; None: made from host, process and chance.
    """

    def __init__(self, redis: Redis, prefix: str, limits: EventLimits, owner: str | None = None) -> None:
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._redis = redis
        self._prefix = prefix
        self._limits = limits
        self._claim = redis.register_script(_script("claim.lua"))
        self._commit = redis.register_script(_script("commit.lua"))
        self._held: dict[int, _Held] = {}
        self._holding = threading.Lock()

    def claim(self, partition: int) -> Claim:
        """Take a partition over, from whoever had it.

        Raises:
            ContractError: What was committed there cannot be read.
        """
        with reaching(self._redis):
            epoch, serial, *pairs = self._claim(keys=[self._key(partition)], args=[self.owner])
        stored = dict(zip((field.decode() for field in pairs[::2]), pairs[1::2], strict=True))
        state = stored.pop("state", None)
        offsets = {field.removeprefix("offset:"): int(value) for field, value in stored.items()}
        with self._holding:
            self._held[partition] = _Held(int(epoch), int(serial))
        return Claim(partition, int(epoch), offsets, None if state is None else self._parsed(state, partition))

    def commit(
        self, partition: int, epoch: int, offsets: Offsets, state: Mapping[str, Any], events: Sequence[Event]
    ) -> None:
        """Write a step forward, all or nothing.

        Args:
            partition: Kafka partition number.
            epoch: Of the claim it was made under.
            offsets: Topic to next offset.
            state: What a successor needs to go on; JSON.
            events: In order.

        Raises:
            FencedError: Another worker took the partition, or Redis lost earlier commits of this claim. Nothing was
                written: claim the partition again, if it is still assigned, and go on from there.
        """
        with self._holding:
            held = self._held.get(partition)
        if held is None or held.epoch != epoch:
            raise FencedError(f"partition {partition} is not held under epoch {epoch} here; claim it first")
        after = _Held(epoch, held.serial + 1)
        keys, arguments = self._arguments(after, offsets, state, events)
        with reaching(self._redis):
            outcome, owner, held_epoch, held_serial = self._commit(keys=[self._key(partition), *keys], args=arguments)
        if outcome in (b"done", b"again"):
            self._replace(partition, held, after)
            return
        self._replace(partition, held, None)
        if outcome == b"fenced":
            raise FencedError(
                f"partition {partition} was taken over by {owner.decode() or 'nobody'} (epoch {held_epoch.decode()}; "
                f"ours was {epoch}); what is in flight for it is dropped and read again there"
            )
        raise FencedError(
            f"partition {partition} stands at commit {held_serial} in redis, ours is {after.serial}: redis lost "
            "commits, or this one came too late; claim the partition again"
        )

    def write_snapshots(self, jpegs: Mapping[str, bytes]) -> None:
        """Keep pictures of events, by event id, for a while; in one go."""
        pipeline = self._redis.pipeline(transaction=False)
        for event_id, jpeg in jpegs.items():
            pipeline.set(self.snapshot_key(event_id), jpeg, ex=self._limits.snapshot_ttl_s)
        with reaching(self._redis):
            pipeline.execute()

    def snapshot_key(self, event_id: str) -> str:
        """Where an event's picture lies, if there is one."""
        return f"{self._prefix}snapshot:{event_id}"

    def tidy(self, now_us: int) -> int:
        """Forget events that are too old or too many. Call it now and then; it is not atomic and need not be.

        Returns:
            How many were forgotten.
        """
        times = f"{self._prefix}events:times"
        oldest_us = now_us - self._limits.max_age_s * 1_000_000
        with reaching(self._redis):
            excess = self._redis.zcard(times) - self._limits.max_length
            ids = [*self._redis.zrangebyscore(times, "-inf", f"({oldest_us}", start=0, num=TIDY_BATCH)]
            if excess > len(ids):
                ids = self._redis.zrange(times, 0, min(excess, TIDY_BATCH) - 1)
            if ids:
                self._forget([event_id.decode() for event_id in ids], times)
        return len(ids)

    def _forget(self, event_ids: Sequence[str], times: str) -> None:
        reading = self._redis.pipeline(transaction=False)
        for event_id in event_ids:
            reading.hmget(f"{self._prefix}event:{event_id}", "stream", "prompt")
        found = reading.execute()
        writing = self._redis.pipeline(transaction=False)
        for event_id, (stream, prompt) in zip(event_ids, found, strict=True):
            for kind, name in (("stream", stream), ("prompt", prompt)):
                if name is not None:
                    writing.zrem(f"{self._prefix}events:{kind}:{name.decode()}", event_id)
            writing.delete(f"{self._prefix}event:{event_id}")
        writing.zrem(times, *event_ids)
        writing.execute()

    def _replace(self, partition: int, before: _Held, after: _Held | None) -> None:
        """Unless the partition was claimed anew meanwhile."""
        with self._holding:
            if self._held.get(partition) != before:
                return
            if after is None:
                del self._held[partition]
            else:
                self._held[partition] = after

    def _arguments(
        self, held: _Held, offsets: Offsets, state: Mapping[str, Any], events: Sequence[Event]
    ) -> tuple[list[str], list[str | int]]:
        """Keys after the first and arguments of ``commit.lua``."""
        keys = [f"{self._prefix}events", f"{self._prefix}events:times"]
        rest: list[str | int] = [part for topic, offset in sorted(offsets.items()) for part in (topic, offset)]
        for event in events:
            keys += [
                f"{self._prefix}event:{event.id}",
                f"{self._prefix}events:stream:{event.stream}",
                f"{self._prefix}events:prompt:{event.prompt.id}",
            ]
            rest += [event.id, event.to_json(), event.state, event.stream, event.prompt.id, event.severity]
            rest.append(event.start_us)
        written = json.dumps(state, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        digest = hashlib.sha256("\0".join((written, *map(str, rest))).encode()).hexdigest()
        limits = [self._limits.max_length, self._limits.max_age_s * 1000]
        return keys, [self.owner, held.epoch, held.serial, digest, written, len(offsets), *limits, *rest]

    def _parsed(self, state: bytes, partition: int) -> Mapping[str, object]:
        try:
            document = json.loads(state)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ContractError(
                f"the state of partition {partition} in redis is not a JSON object; delete key "
                f"{self._key(partition)} to start it afresh"
            )
        return document

    def _key(self, partition: int) -> str:
        return f"{self._prefix}partition:{partition}"


def _script(name: str) -> str:
    return (files("streamer") / name).read_text(encoding="utf-8")
