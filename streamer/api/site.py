"""The stores behind the API, opened once."""

from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from streamer.api.event_index import EventIndex
from streamer.api.feed import Hub
from streamer.api.reader import EventReader
from streamer.api.shelf import PromptShelf
from streamer.audit import AuditLog
from streamer.camera_store import CameraStore
from streamer.event_log import EventLog
from streamer.live import LiveBoard
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.reviews import ReviewStore
from streamer.settings import Settings
from streamer.stream_follower import StreamFollower
from streamer.stream_store import StreamStore
from streamer.tokens import TokenStore

_MORE_CONNECTIONS = 4  # the reader of events, and what runs beside requests


@dataclass(frozen=True, slots=True)
class Site:
    """What handlers use. Everything in it may be shared between threads; made by `open_site`."""

    settings: Settings
    redis: Redis
    prompts: PromptStore
    shelf: PromptShelf
    log: EventLog
    index: EventIndex
    hub: Hub
    reader: EventReader
    board: LiveBoard
    streams: StreamStore
    followed: StreamFollower
    cameras: CameraStore
    reviews: ReviewStore
    tokens: TokenStore
    audit: AuditLog

    def labels(self, stream: str) -> Mapping[str, str]:
        """What is set for a stream."""
        return self.followed.of(stream).labels

    def close(self) -> None:
        """Let go of Redis."""
        self.redis.close()


def open_site(settings: Settings) -> Site:
    """Clients and stores as the settings say; nothing is asked of Redis yet.

    Raises:
        SettingsError: There is no usable Redis URL.
    """
    redis = connect_redis(settings.redis.url, max_connections=settings.api.threads + _MORE_CONNECTIONS)
    prefix = settings.redis.prefix
    prompts, log = PromptStore(redis, prefix), EventLog(redis, prefix)
    index, hub = EventIndex(), Hub(settings.api.feed_queue)
    streams = StreamStore(redis, prefix)
    return Site(
        settings=settings,
        redis=redis,
        prompts=prompts,
        shelf=PromptShelf(prompts),
        log=log,
        index=index,
        hub=hub,
        reader=EventReader(redis, prefix, log, index, hub),
        board=LiveBoard(redis, prefix, settings.events.live_ttl_s),
        streams=streams,
        followed=StreamFollower(streams, settings),
        cameras=CameraStore(redis, prefix),
        reviews=ReviewStore(redis, prefix, settings.events.max_age_s),
        tokens=TokenStore(redis, prefix),
        audit=AuditLog(redis, prefix, settings.api.audit_length),
    )
