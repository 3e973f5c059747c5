"""Servers where none are named, and topics that fit."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from streamer.embedded import ApacheKafka, EmbeddedRedis, TansuBroker
from streamer.errors import SettingsError, UnavailableError
from streamer.kafka_client import DEAD_LETTER_ROOM_BYTES, admin_of, ensure_topics, topic_facts
from streamer.local import local_servers, prepare_topics
from streamer.redis_client import connect_redis
from streamer.settings import Settings, load_settings


def a_site(**flags: object) -> Settings:
    """Topics of its own."""
    name = uuid.uuid4().hex[:10]
    own: dict[str, object] = {"kafka.topics": [f"media.{name}"], "kafka.dead_topic": f"dead.{name}"}
    return load_settings(flags=own | {key.replace("__", "."): value for key, value in flags.items()})


def retention_of(bootstrap: str, topic: str) -> dict[str, str | None]:
    """What is set for a topic; None: it has what the broker does by default."""
    with admin_of(bootstrap, "describing a topic") as admin:
        described: Any = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    values = described["topic"][topic]
    return {name: values.get(name, {}).get("value") for name in ("retention.bytes", "retention.ms")}


def test_what_is_not_named_is_embedded_and_gone_afterwards() -> None:
    settings = a_site()
    with local_servers(settings, is_long_run=False) as (running, servers):
        assert [type(server) for server in servers] == [EmbeddedRedis, TansuBroker]
        assert all(server.is_running for server in servers)
        facts = topic_facts(running.kafka.bootstrap, [*running.kafka.topics, running.kafka.dead_topic])
        assert facts[running.kafka.topics[0]].partitions == settings.kafka.partitions
        assert facts[running.kafka.dead_topic].partitions == 1
        with connect_redis(running.redis.url) as redis:
            assert redis.ping()
        assert running.kafka.session_timeout_s == 2.0
    assert not any(server.is_running for server in servers)
    assert settings.kafka.bootstrap == ""


def test_what_is_named_is_used_and_nothing_is_embedded(broker: str, redis_url: str) -> None:
    settings = a_site(kafka__bootstrap=broker, redis__url=redis_url)
    with local_servers(settings, is_long_run=True) as (running, servers):
        assert servers == ()
        assert running == settings
        assert settings.kafka.topics[0] in topic_facts(broker, settings.kafka.topics)
    with connect_redis(redis_url) as redis:
        assert redis.ping()


def test_one_may_be_named_and_the_other_embedded(broker: str) -> None:
    with local_servers(a_site(kafka__bootstrap=broker), is_long_run=False) as (running, servers):
        assert [type(server) for server in servers] == [EmbeddedRedis]
        assert running.kafka.bootstrap == broker
        assert running.redis.url == servers[0].url  # type: ignore[attr-defined]  # told by its type above


def test_a_named_server_that_is_away_ends_it_and_what_was_started_is_stopped(tmp_path: Path) -> None:
    settings = a_site(kafka__bootstrap="127.0.0.1:9")
    with (
        pytest.raises(UnavailableError, match="127\\.0\\.0\\.1:9"),
        local_servers(settings, is_long_run=False, folder=tmp_path),
    ):
        pass
    with EmbeddedRedis(tmp_path / "redis") as redis:  # its folder is free again
        assert redis.is_running


def test_data_stays_in_the_folder_that_was_given(tmp_path: Path, broker: str) -> None:
    settings = a_site(kafka__bootstrap=broker)
    for expected in (None, b"kept"):
        with (
            local_servers(settings, is_long_run=False, folder=tmp_path) as (running, _),
            connect_redis(running.redis.url) as redis,
        ):
            assert redis.get("it") == expected
            redis.set("it", "kept")


@pytest.mark.slow
def test_a_long_run_gets_the_broker_with_retention_and_topics_that_use_it(apache_kafka: str) -> None:
    del apache_kafka  # started first: its jars are there
    with local_servers(a_site(redis__url="redis://127.0.0.1:9/0"), is_long_run=True) as (running, servers):
        assert [type(server) for server in servers] == [ApacheKafka]
        kept = retention_of(running.kafka.bootstrap, running.kafka.topics[0])
        each = (1 << 30) // running.kafka.partitions  # Kafka counts by partition
        assert kept == {"retention.bytes": str(each), "retention.ms": "3600000"}
        facts = topic_facts(running.kafka.bootstrap, [*running.kafka.topics, running.kafka.dead_topic])
        limit = running.kafka.message_max_bytes
        assert facts[running.kafka.topics[0]].message_max_bytes == limit
        assert facts[running.kafka.dead_topic].message_max_bytes == limit + DEAD_LETTER_ROOM_BYTES


def test_a_broker_of_the_users_keeps_its_own_retention(apache_kafka: str) -> None:
    settings = a_site(kafka__bootstrap=apache_kafka)
    prepare_topics(settings)
    assert retention_of(apache_kafka, settings.kafka.topics[0]) == {"retention.bytes": None, "retention.ms": None}


def test_a_topic_that_is_there_is_left_as_it_is_and_must_fit(apache_kafka: str) -> None:
    settings = a_site(kafka__bootstrap=apache_kafka)
    ensure_topics(apache_kafka, settings.kafka.topics, partitions=3, message_max_bytes=1_000_000)
    with pytest.raises(SettingsError, match="1000000"):
        prepare_topics(settings)
    assert topic_facts(apache_kafka, settings.kafka.topics)[settings.kafka.topics[0]].partitions == 3


def test_preparing_twice_changes_nothing(broker: str) -> None:
    settings = a_site(kafka__bootstrap=broker)
    prepare_topics(settings)
    before = topic_facts(broker, [*settings.kafka.topics, settings.kafka.dead_topic])
    prepare_topics(settings)
    assert topic_facts(broker, [*settings.kafka.topics, settings.kafka.dead_topic]) == before
