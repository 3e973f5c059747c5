"""Cameras that are ingested on demand, in Redis: registered by the API, followed by supervisors.

Under the prefix, ``cameras``: hash, stream id -> JSON document; ``cameras:serial`` counts changes;
``camera:{id}:lease``: which supervisor reads it; ``camera:{id}:status``: JSON, how it fares. An address may hold a
password: whoever can read this Redis can read it. It is shown nowhere.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from redis import Redis

from streamer.errors import ExistsError, MissingError
from streamer.redis_client import reaching

STATUS_TTL_S: Final = 10
LEASE_TTL_MS: Final = 8_000

_ADD = """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('INCR', KEYS[2])
return 1
"""
_REMOVE = """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('INCR', KEYS[2])
return 1
"""
# Takes or keeps a lease; 0: somebody else has it.
_LEASE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera.

    Attributes:
        url: Where it is. Holds credentials.
        created: When it was registered, RFC 3339; also tells one from another of the same name.
        by: Who registered it.
    """

    url: str
    created: str
    by: str


class CameraStore:
    """Under a prefix. Safe to share between threads; every method may raise `UnavailableError`."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._keys = [f"{prefix}cameras", f"{prefix}cameras:serial"]
        self._add, self._remove = redis.register_script(_ADD), redis.register_script(_REMOVE)
        self._lease, self._release = redis.register_script(_LEASE), redis.register_script(_RELEASE)

    def add(self, stream: str, camera: Camera) -> None:
        """Register a camera.

        Raises:
            ExistsError: There is one of this name.
        """
        with reaching(self._redis):
            is_new = self._add(keys=self._keys, args=[stream, json.dumps(asdict(camera))])
        if not is_new:
            raise ExistsError(f"stream {stream!r} has a camera already; remove it first, or choose another id")

    def remove(self, stream: str) -> None:
        """Forget a camera; whoever reads it stops.

        Raises:
            MissingError: There is none of this name.
        """
        with reaching(self._redis):
            was_there = self._remove(keys=self._keys, args=[stream])
        if not was_there:
            raise MissingError(f"stream {stream!r} has no camera that was registered here")

    def load(self) -> dict[str, Camera]:
        """All cameras by stream id."""
        with reaching(self._redis):
            found: Any = self._redis.hgetall(self._keys[0])
        return {key.decode(): Camera(**json.loads(raw)) for key, raw in sorted(found.items())}

    def serial(self) -> int:
        """How many changes were ever made."""
        with reaching(self._redis):
            found: Any = self._redis.get(self._keys[1])
        return int(found or 0)

    def lease(self, stream: str, owner: str) -> bool:
        """Take or keep the right to read a camera for `LEASE_TTL_MS`; False: another has it."""
        with reaching(self._redis):
            return bool(self._lease(keys=[f"{self._prefix}camera:{stream}:lease"], args=[owner, LEASE_TTL_MS]))

    def release(self, stream: str, owner: str) -> None:
        """Give it back."""
        with reaching(self._redis):
            self._release(keys=[f"{self._prefix}camera:{stream}:lease"], args=[owner])

    def tell(self, statuses: Mapping[str, Mapping[str, Any]]) -> None:
        """Say how cameras fare."""
        pipeline = self._redis.pipeline(transaction=False)
        for stream, status in statuses.items():
            pipeline.set(f"{self._prefix}camera:{stream}:status", json.dumps(dict(status)), ex=STATUS_TTL_S)
        with reaching(self._redis):
            pipeline.execute()

    def statuses(self, streams: list[str]) -> dict[str, dict[str, Any]]:
        """How some cameras fare; those that nobody reads are left out."""
        if not streams:
            return {}
        with reaching(self._redis):
            found: Any = self._redis.mget([f"{self._prefix}camera:{stream}:status" for stream in streams])
        return {stream: json.loads(raw) for stream, raw in zip(streams, found, strict=True) if raw is not None}
