"""Everything on one machine: embedded servers where none are named, and settings that point at them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from streamer.embedded import BrokerKind, EmbeddedRedis, EmbeddedServer, choose_broker
from streamer.kafka_client import DEAD_LETTER_ROOM_BYTES, ensure_topics, topic_facts
from streamer.settings import Settings

_RETENTION_S = 3600.0
_RETENTION_BYTES = 1 << 30
_SESSION_TIMEOUT_S = 2.0  # a group's first member waits half of this on Tansu


@contextmanager
def local_servers(
    settings: Settings, *, broker: BrokerKind = "auto", is_long_run: bool, folder: Path | None = None
) -> Iterator[tuple[Settings, tuple[EmbeddedServer, ...]]]:
    """Start what the settings do not name, and stop it at the end.

    Args:
        settings: Their ``kafka.bootstrap`` and ``redis.url`` are used where set.
        broker: Which broker to embed.
        is_long_run: The run has no end of its own: prefer the broker with retention.
        folder: Where the servers keep their data; None: temporary folders.

    Yields:
        Settings that name running servers, and the servers that were started.

    Raises:
        UnavailableError: A server does not start, or one that was named does not answer.
    """
    with ExitStack() as stack:
        started: list[EmbeddedServer] = []
        if not settings.redis.url:
            redis = stack.enter_context(EmbeddedRedis(folder / "redis" if folder else None))
            settings = settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": redis.url})})
            started.append(redis)
        kafka = settings.kafka
        if not kafka.bootstrap:
            server = choose_broker(
                broker,
                is_long_run=is_long_run,
                message_max_bytes=kafka.message_max_bytes,
                folder=folder / "kafka" if folder else None,
            )
            stack.enter_context(server)
            timeout_s = min(_SESSION_TIMEOUT_S, kafka.session_timeout_s)
            kafka = kafka.model_copy(update={"bootstrap": server.bootstrap, "session_timeout_s": timeout_s})
            settings = settings.model_copy(update={"kafka": kafka})
            started.append(server)
            prepare_topics(settings, is_ours=True)
        else:
            prepare_topics(settings)
        yield settings, tuple(started)


def prepare_topics(settings: Settings, *, is_ours: bool = False) -> None:
    """Create the media and dead-letter topics where they are missing, and check that they fit the settings.

    Args:
        settings: Name the broker and the topics.
        is_ours: The broker is embedded: keep media for an hour and a gigabyte, no longer.

    Raises:
        UnavailableError: The broker does not answer.
        SettingsError: A topic takes only smaller messages, or partition counts differ.
    """
    kafka = settings.kafka
    ensure_topics(
        kafka.bootstrap,
        kafka.topics,
        partitions=kafka.partitions,
        message_max_bytes=kafka.message_max_bytes,
        retention_bytes=_RETENTION_BYTES if is_ours else None,
        retention_s=_RETENTION_S if is_ours else None,
    )
    # A dead letter is the message and the reason beside it; a topic that is there already may be smaller.
    room = 0 if topic_facts(kafka.bootstrap, [kafka.dead_topic]) else DEAD_LETTER_ROOM_BYTES
    limit = kafka.message_max_bytes + room
    ensure_topics(kafka.bootstrap, [kafka.dead_topic], partitions=1, message_max_bytes=limit)
