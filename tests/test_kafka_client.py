"""Clients against both brokers that can be embedded."""

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from streamer.embedded.server import free_port
from streamer.errors import SettingsError, UnavailableError
from streamer.kafka_client import (
    addresses,
    admin_of,
    cluster_id_of,
    ensure_topics,
    make_admin,
    make_consumer,
    make_producer,
    topic_facts,
)

LIMIT_BYTES = 8_388_608


def a_name() -> str:
    return f"test.{uuid.uuid4().hex[:12]}"


def read(bootstrap: str, topic: str, count: int, group: str | None = None, timeout_s: float = 20) -> list[Any]:
    consumer = make_consumer(
        bootstrap, group=group, message_max_bytes=LIMIT_BYTES, poll_max_bytes=4 * LIMIT_BYTES, session_timeout_s=2.0
    )
    try:
        consumer.subscribe([topic])
        records: list[Any] = []
        deadline_s = time.monotonic() + timeout_s
        while len(records) < count and time.monotonic() < deadline_s:
            for batch in consumer.poll(timeout_ms=200).values():
                records.extend(batch)
        return records
    finally:
        consumer.close()


@pytest.fixture
def topic_of_any(any_broker: str) -> Iterator[str]:
    name = a_name()
    ensure_topics(any_broker, [name], partitions=3, message_max_bytes=LIMIT_BYTES)
    yield name
    with admin_of(any_broker, "deleting a topic") as admin:
        admin.delete_topics([name])


def test_a_created_topic_has_what_was_asked_for(any_broker: str) -> None:
    name = a_name()
    made = ensure_topics(any_broker, [name], partitions=3, message_max_bytes=5_000_000)
    assert made[name].partitions == 3
    assert made[name].message_max_bytes == 5_000_000
    assert topic_facts(any_broker, [name, "test.none"]) == made


def test_topics_that_exist_are_left_as_they_are(any_broker: str, topic_of_any: str) -> None:
    again = ensure_topics(any_broker, [topic_of_any], partitions=7, message_max_bytes=LIMIT_BYTES)
    assert again[topic_of_any].partitions == 3


def test_topics_of_different_partition_counts_are_refused(any_broker: str, topic_of_any: str) -> None:
    other = a_name()
    ensure_topics(any_broker, [other], partitions=2, message_max_bytes=LIMIT_BYTES)
    with pytest.raises(SettingsError, match=f"{topic_of_any} 3, {other} 2"):
        ensure_topics(any_broker, [topic_of_any, other], partitions=2, message_max_bytes=LIMIT_BYTES)


def test_a_topic_that_takes_only_smaller_messages_is_refused(any_broker: str) -> None:
    name = a_name()
    ensure_topics(any_broker, [name], partitions=1, message_max_bytes=1_000_000)
    with pytest.raises(SettingsError, match="takes messages up to 1000000 bytes"):
        ensure_topics(any_broker, [name], partitions=1, message_max_bytes=LIMIT_BYTES)


def test_retention_becomes_the_limits_of_the_topic(apache_kafka: str) -> None:
    name = a_name()
    ensure_topics(
        apache_kafka,
        [name],
        partitions=4,
        message_max_bytes=LIMIT_BYTES,
        retention_bytes=64_000_000,
        retention_s=60,
    )
    with admin_of(apache_kafka, "looking") as admin:
        from kafka.admin import ConfigResource, ConfigResourceType  # noqa: PLC0415

        configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])["topic"][name]
    assert {key: configs[key]["value"] for key in ("retention.bytes", "segment.bytes", "retention.ms")} == {
        "retention.bytes": "16000000",
        "segment.bytes": "4000000",
        "retention.ms": "60000",
    }


def test_several_processes_may_create_the_same_topics_at_once(any_broker: str) -> None:
    names = [a_name(), a_name()]
    failures: list[BaseException] = []

    def create() -> None:
        try:
            ensure_topics(any_broker, names, partitions=2, message_max_bytes=LIMIT_BYTES)
        except BaseException as error:  # noqa: BLE001  # shown by the assertion
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_seven_megabytes_come_back_as_they_went(any_broker: str, topic_of_any: str) -> None:
    value = bytes(range(256)) * 28_000
    producer = make_producer(any_broker, message_max_bytes=LIMIT_BYTES)
    producer.send(topic_of_any, key=b"dock-3", value=value, headers=[("content-type", b"video/mp2t")]).get(10)
    producer.close()
    (record,) = read(any_broker, topic_of_any, 1, group=a_name())
    assert record.key == b"dock-3"
    assert record.headers == [("content-type", b"video/mp2t")]
    assert record.value == value


def test_a_consumer_commits_only_what_it_is_told(any_broker: str, topic_of_any: str) -> None:
    producer = make_producer(any_broker, message_max_bytes=LIMIT_BYTES)
    producer.send(topic_of_any, key=b"a", value=b"1").get(10)
    producer.close()
    group = a_name()
    assert [record.value for record in read(any_broker, topic_of_any, 1, group)] == [b"1"]
    assert [record.value for record in read(any_broker, topic_of_any, 1, group)] == [b"1"]


@pytest.mark.parametrize("text", ["", "  ,", "localhost", "host:", ":9092", "host:0", "host:99999", "a:1,b"])
def test_a_bootstrap_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        addresses(text)


def test_several_bootstrap_addresses_are_taken_apart() -> None:
    assert addresses("a:1, [::1]:2 ,") == ["a:1", "[::1]:2"]


def test_a_broker_that_is_away_is_one_quick_error_with_its_address() -> None:
    away = f"127.0.0.1:{free_port()}"
    threads_before = threading.active_count()
    started_s = time.monotonic()
    for make in (
        lambda: make_producer(away, message_max_bytes=1),
        lambda: make_consumer(away, group=None, message_max_bytes=1, poll_max_bytes=1),
        lambda: make_admin(away),
        lambda: ensure_topics(away, ["a"], partitions=1, message_max_bytes=1),
    ):
        with pytest.raises(UnavailableError, match=rf"Kafka at {away} failed .*--kafka"):
            make()
    assert time.monotonic() - started_s < 2
    assert threading.active_count() <= threads_before
    assert cluster_id_of(away) is None


def test_one_broker_of_several_that_answers_is_enough(broker: str, topic: str) -> None:
    both = f"127.0.0.1:{free_port()},{broker}"
    assert topic_facts(both, [topic])[topic].partitions == 2
