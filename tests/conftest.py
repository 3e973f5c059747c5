"""Servers for the tests: real ones, started when the first test asks, shared by all of a run."""

import uuid
from collections.abc import Iterator

import pytest

from streamer.embedded import ApacheKafka, EmbeddedRedis, TansuBroker
from streamer.embedded.apache import kafka_jars
from streamer.kafka_client import admin_of, ensure_topics
from tests.programs import need_program


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis for the run. Share it under a `prefix` of your own."""
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture
def prefix() -> str:
    """Before every Redis key of one test."""
    return f"test-{uuid.uuid4().hex[:12]}:"


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """Bootstrap address of a Tansu for the run."""
    with TansuBroker() as server:
        yield server.bootstrap


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[str]:
    """Bootstrap address of an Apache Kafka for the run."""
    need_program("java")
    need_program("mvn")
    kafka_jars()
    with ApacheKafka() as server:
        yield server.bootstrap


@pytest.fixture(params=["broker", "apache_kafka"])
def any_broker(request: pytest.FixtureRequest) -> str:
    """Each kind of broker in turn."""
    bootstrap = request.getfixturevalue(request.param)
    assert isinstance(bootstrap, str)
    return bootstrap


@pytest.fixture
def topic(broker: str) -> Iterator[str]:
    """A topic of two partitions on `broker`, for one test."""
    name = f"test.{uuid.uuid4().hex[:12]}"
    ensure_topics(broker, [name], partitions=2, message_max_bytes=8_388_608)
    yield name
    with admin_of(broker, "deleting a topic") as admin:
        admin.delete_topics([name])
