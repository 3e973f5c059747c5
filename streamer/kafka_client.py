"""The one place that makes Kafka clients, with the options that matter, and speaks their errors in our words."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError, TopicAlreadyExistsError

from streamer.errors import SettingsError, UnavailableError

DEAD_LETTER_ROOM_BYTES = 65_536  # for the headers that a dead letter has and the message had not
_CONNECT_TIMEOUT_S = 3.0
_BOOTSTRAP_TIMEOUT_S = 10.0
_REQUEST_TIMEOUT_S = 15.0
# Tansu looks for new data rarely within a long wait: at the usual 500 ms a message is 145 ms on its way, at this 16.
_FETCH_WAIT_MS = 100
_METADATA_TIMEOUT_S = 5.0  # how long the first message for a topic may wait to hear where it is
_RECONNECT_MAX_S = 2.0  # the client's default of 30 s would be noticed as a hole in the pictures
_MIN_SEGMENT_BYTES = 1_048_576  # Apache Kafka refuses less


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says of a topic.

    Attributes:
        partitions: How many it has.
        message_max_bytes: Largest message it takes, or None where the broker does not tell.
    """

    partitions: int
    message_max_bytes: int | None


@contextlib.contextmanager
def translated(bootstrap: str, doing: str) -> Iterator[None]:
    """Turn what the Kafka client raises into `UnavailableError`, with the address and what to do."""
    try:
        yield
    except KafkaError as error:
        raise unavailable(bootstrap, doing, error) from error


def unavailable(bootstrap: str, doing: str, error: BaseException) -> UnavailableError:
    """The error for what failed at a broker."""
    return UnavailableError(
        f"Kafka at {bootstrap} failed {doing}: {error or type(error).__name__}; check that it runs and that"
        " kafka.bootstrap (--kafka) names it"
    )


def make_producer(bootstrap: str, *, message_max_bytes: int, delivery_timeout_s: float = 30.0) -> KafkaProducer:
    """A producer that is idempotent and refuses what the broker would refuse. Prefer `BoundedProducer`.

    Args:
        bootstrap: ``HOST:PORT[,HOST:PORT...]``.
        message_max_bytes: The broker's limit or less: one refused message ends an idempotent producer for good.
        delivery_timeout_s: After this long a message has failed.

    Raises:
        UnavailableError: No broker answers.
    """
    _check_reachable(bootstrap)
    with translated(bootstrap, "while a producer connected"):
        return KafkaProducer(
            **_common(bootstrap),
            acks="all",
            enable_idempotence=True,
            max_request_size=message_max_bytes,
            max_block_ms=_ms(_METADATA_TIMEOUT_S),
            delivery_timeout_ms=_ms(delivery_timeout_s),
            request_timeout_ms=_ms(min(_REQUEST_TIMEOUT_S, delivery_timeout_s)),
            allow_auto_create_topics=False,
        )


def make_consumer(
    bootstrap: str,
    *,
    group: str | None,
    message_max_bytes: int,
    poll_max_bytes: int,
    poll_max_records: int = 64,
    session_timeout_s: float = 10.0,
) -> KafkaConsumer:
    """A consumer that starts where it is told, or at the oldest, and commits when it is told.

    Partitions are assigned by range: of several topics a member gets the same partition numbers.

    Args:
        bootstrap: ``HOST:PORT[,HOST:PORT...]``.
        group: Consumer group; None: partitions are assigned by hand.
        message_max_bytes: Largest message expected.
        poll_max_bytes: Fetched at once.
        poll_max_records: Given by one poll.
        session_timeout_s: A member silent for this long has left. Apache Kafka takes 6 s or more unless set otherwise;
            on Tansu the first join of a group lasts half of it.

    Raises:
        UnavailableError: No broker answers.
    """
    _check_reachable(bootstrap)
    with translated(bootstrap, "while a consumer connected"):
        return KafkaConsumer(
            **_common(bootstrap),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            partition_assignment_strategy=(RangePartitionAssignor,),
            max_partition_fetch_bytes=message_max_bytes,
            fetch_max_bytes=poll_max_bytes,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            receive_message_max_bytes=max(100_000_000, 2 * poll_max_bytes),
            max_poll_records=poll_max_records,
            session_timeout_ms=_ms(session_timeout_s),
            request_timeout_ms=_ms(_REQUEST_TIMEOUT_S),
            heartbeat_interval_ms=_ms(min(3.0, session_timeout_s / 4)),
        )


def make_admin(bootstrap: str, *, timeout_s: float = _REQUEST_TIMEOUT_S) -> KafkaAdminClient:
    """An administrator.

    Args:
        bootstrap: ``HOST:PORT[,HOST:PORT...]``.
        timeout_s: For connecting, and for each request.

    Raises:
        UnavailableError: No broker answers.
    """
    _check_reachable(bootstrap)
    options = _common(bootstrap) | {"bootstrap_timeout_ms": _ms(timeout_s), "request_timeout_ms": _ms(timeout_s)}
    with translated(bootstrap, "while an administrator connected"):
        return KafkaAdminClient(**options)


@contextlib.contextmanager
def admin_of(bootstrap: str, doing: str, *, timeout_s: float = _REQUEST_TIMEOUT_S) -> Iterator[KafkaAdminClient]:
    """An administrator for a moment, its errors translated."""
    admin = make_admin(bootstrap, timeout_s=timeout_s)
    try:
        with translated(bootstrap, doing):
            yield admin
    finally:
        admin.close()


def cluster_id_of(bootstrap: str, *, timeout_s: float = 2.0) -> str | None:
    """The id of the cluster that answers there, or None where nothing does."""
    try:
        with admin_of(bootstrap, "describing itself", timeout_s=timeout_s) as admin:
            return str(admin.describe_cluster()["cluster_id"])
    except UnavailableError:
        return None


def topic_facts(bootstrap: str, topics: Sequence[str]) -> dict[str, TopicFacts]:
    """What the broker says of topics; those that it does not have are missing.

    Raises:
        UnavailableError: The broker is away.
    """
    with admin_of(bootstrap, f"describing topics {', '.join(topics)}") as admin:
        known = set(admin.list_topics())
        described = [topic for topic in topics if topic in known]
        return {
            topic["name"]: TopicFacts(len(topic["partitions"]), _message_max_bytes(admin, topic["name"]))
            for topic in (admin.describe_topics(described) if described else [])
        }


def ensure_topics(
    bootstrap: str,
    topics: Sequence[str],
    *,
    partitions: int,
    message_max_bytes: int,
    retention_bytes: int | None = None,
    retention_s: float | None = None,
) -> dict[str, TopicFacts]:
    """Create the topics that are missing and check that all can do their part.

    Args:
        bootstrap: ``HOST:PORT[,HOST:PORT...]``.
        topics: Names; they are read together, so all must have as many partitions.
        partitions: For a topic that is created.
        message_max_bytes: Largest message that they must take.
        retention_bytes: Of all partitions of a created topic together; None: the broker's default.
        retention_s: Of a created topic; None: the broker's default.

    Returns:
        The facts of each topic.

    Raises:
        UnavailableError: The broker is away or refuses to create them.
        SettingsError: A topic takes only smaller messages, or their partition counts differ.
    """
    configs = {"max.message.bytes": str(message_max_bytes)}
    if retention_bytes is not None:
        of_partition = max(retention_bytes // partitions, _MIN_SEGMENT_BYTES)
        configs["retention.bytes"] = str(of_partition)
        # Only whole, closed segments are deleted: their size is how far the limit is exceeded.
        configs["segment.bytes"] = str(max(of_partition // 4, _MIN_SEGMENT_BYTES))
    if retention_s is not None:
        configs["retention.ms"] = str(_ms(retention_s))
    with admin_of(bootstrap, f"creating topics {', '.join(topics)}") as admin:
        known = set(admin.list_topics())
        for topic in topics:
            if topic in known:
                continue
            with contextlib.suppress(TopicAlreadyExistsError):  # another process was faster
                wanted = {"num_partitions": partitions, "replication_factor": -1, "configs": configs}
                admin.create_topics({topic: wanted})
        admin.wait_for_topics(list(topics), timeout_ms=_ms(_REQUEST_TIMEOUT_S))
    facts = topic_facts(bootstrap, topics)
    _check_facts(bootstrap, facts, message_max_bytes)
    return facts


def _check_facts(bootstrap: str, facts: dict[str, TopicFacts], message_max_bytes: int) -> None:
    for topic, fact in facts.items():
        if fact.message_max_bytes is not None and fact.message_max_bytes < message_max_bytes:
            raise SettingsError(
                f"topic {topic} at {bootstrap} takes messages up to {fact.message_max_bytes} bytes,"
                f" kafka.message_max_bytes is {message_max_bytes}: raise the topic's max.message.bytes, or"
                " lower kafka.message_max_bytes and ingest.chunk_max_bytes"
            )
    if len({fact.partitions for fact in facts.values()}) > 1:
        counts = ", ".join(f"{topic} {fact.partitions}" for topic, fact in facts.items())
        raise SettingsError(
            f"topics at {bootstrap} that are read together have different numbers of partitions ({counts}); make them"
            " equal, or the sound and the picture of a stream end up at different workers"
        )


def _message_max_bytes(admin: KafkaAdminClient, topic: str) -> int | None:
    # Tansu hangs up on a request that names the settings it wants, so ask for all of them.
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    value = described.get("topic", {}).get(topic, {}).get("max.message.bytes")
    if isinstance(value, dict):
        value = value.get("value")
    return int(value) if value is not None else None


def _common(bootstrap: str) -> dict[str, object]:
    return {
        "bootstrap_servers": addresses(bootstrap),
        "client_id": "watchword",
        "bootstrap_timeout_ms": _ms(_BOOTSTRAP_TIMEOUT_S),
        "reconnect_backoff_max_ms": _ms(_RECONNECT_MAX_S),
    }


def addresses(bootstrap: str) -> list[str]:
    """``HOST:PORT[,HOST:PORT...]`` taken apart.

    Raises:
        SettingsError: It is none.
    """
    found = [part.strip() for part in bootstrap.split(",") if part.strip()]
    for address in found:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise SettingsError(f"kafka.bootstrap (--kafka) has {address!r}; HOST:PORT[,HOST:PORT...] is expected")
    if not found:
        raise SettingsError("kafka.bootstrap (--kafka) is empty; HOST:PORT[,HOST:PORT...] is expected")
    return found


def _check_reachable(bootstrap: str) -> None:
    # The client leaves a thread behind when it is made while no broker answers; ask before.
    last: OSError | None = None
    for address in addresses(bootstrap):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
        except OSError as error:
            last = error
        else:
            return
    if last is not None:
        raise unavailable(bootstrap, "to answer", last) from last


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
