"""An API over a Redis prefix of a test's own, on a real socket."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
from redis import Redis

from streamer.api.server import ApiServer
from streamer.emit import Emitter, EventLimits
from streamer.events import Event
from streamer.redis_client import connect_redis
from streamer.settings import Settings, load_settings
from streamer.tokens import TokenStore

JSON_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Served:
    """What a test talks to."""

    url: str
    client: httpx.Client
    settings: Settings
    redis: Redis

    @property
    def prefix(self) -> str:
        return self.settings.redis.prefix

    def emit(self, events: Sequence[Event], partition: int = 0) -> None:
        """Commit events as a worker does."""
        events_of = self.settings.events
        limits = EventLimits(events_of.max_length, events_of.max_age_s, events_of.snapshot_ttl_s)
        emitter = Emitter(self.redis, self.prefix, limits)
        claim = emitter.claim(partition)
        emitter.commit(partition, claim.epoch, {"media": 1}, {}, events)

    def token(self, *scopes: str, streams: str = "*", name: str = "tester") -> dict[str, str]:
        """Headers with a new token."""
        _, secret = TokenStore(self.redis, self.prefix).add(name, scopes, streams, time.time_ns() // 1000)
        return {"authorization": f"Bearer {secret}"}

    def problem(self, method: str, path: str, status: int, **how: Any) -> dict[str, Any]:
        """The problem that a request ends with."""
        answer = self.client.request(method, path, **how)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = answer.json()
        assert problem["status"] == status
        assert problem["detail"]
        return problem


@contextlib.contextmanager
def serving(redis_url: str, *, is_embedded: bool = True, **flags: Any) -> Iterator[Served]:
    """An API that asks for no tokens unless ``api__auth`` is on."""
    settings = load_settings(
        flags={
            "redis.url": redis_url,
            "redis.prefix": f"api-{uuid.uuid4().hex[:10]}:",
            **{name.replace("__", "."): value for name, value in flags.items()},
        }
    )
    redis = connect_redis(redis_url)
    with (
        ApiServer(settings, is_embedded=is_embedded) as server,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        deadline_s = time.monotonic() + 20
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline_s, "the API did not get ready"
            time.sleep(0.01)
        yield Served(server.url, client, settings, redis)
    redis.close()
