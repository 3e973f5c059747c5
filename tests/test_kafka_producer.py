"""`BoundedProducer` against both brokers, and against one that stops, dies and comes back."""

import os
import signal
import time
import uuid
from collections.abc import Iterator

import pytest

from streamer.embedded import ApacheKafka, TansuBroker
from streamer.embedded.server import free_port
from streamer.errors import ChunkError, UnavailableError
from streamer.kafka_client import ensure_topics
from streamer.kafka_producer import BoundedProducer, message_bytes
from streamer.types import Position
from tests.programs import need_program
from tests.test_kafka_client import LIMIT_BYTES, read


def a_topic(bootstrap: str, message_max_bytes: int = LIMIT_BYTES) -> str:
    name = f"test.{uuid.uuid4().hex[:12]}"
    ensure_topics(bootstrap, [name], partitions=1, message_max_bytes=message_max_bytes)
    return name


@pytest.fixture
def own_tansu() -> Iterator[TansuBroker]:
    with TansuBroker() as server:
        yield server


def send_and_flush(producer: BoundedProducer, topic: str, value: bytes) -> None:
    producer.send(topic, b"cam", value)
    producer.flush(20)


def test_messages_arrive_in_order_and_their_places_are_told(any_broker: str) -> None:
    topic = a_topic(any_broker)
    places: list[Position | None] = []
    with BoundedProducer(any_broker, message_max_bytes=LIMIT_BYTES) as producer:
        for number in range(20):
            producer.send(topic, b"cam", str(number).encode(), [("seq", b"1")], lambda place, _: places.append(place))
        producer.flush(10)
        assert producer.in_flight_bytes == 0
    assert places == [Position(topic, 0, offset) for offset in range(20)]
    assert [record.value for record in read(any_broker, topic, 20)] == [str(number).encode() for number in range(20)]


def test_an_oversize_message_is_refused_before_it_is_sent_and_the_next_goes_on(any_broker: str) -> None:
    topic = a_topic(any_broker)
    with BoundedProducer(any_broker, message_max_bytes=LIMIT_BYTES) as producer:
        producer.send(topic, b"cam", b"first")
        with pytest.raises(ChunkError, match="limit is 8388608") as refused:
            producer.send(topic, b"cam", bytes(LIMIT_BYTES))
        assert refused.value.reason == "oversize"
        producer.send(topic, b"cam", b"second")
    assert [record.value for record in read(any_broker, topic, 2)] == [b"first", b"second"]


def test_a_message_of_exactly_the_limit_is_taken_by_a_broker_of_that_limit(apache_kafka: str) -> None:
    limit = 1_000_000
    topic = a_topic(apache_kafka, limit)
    headers = [("content-type", b"video/mp2t"), ("seq", b"17")]
    frame = message_bytes(b"cam", bytes(limit // 2), headers) - limit // 2
    with BoundedProducer(apache_kafka, message_max_bytes=limit) as producer:
        producer.send(topic, b"cam", bytes(limit - frame), headers)
        with pytest.raises(ChunkError):
            producer.send(topic, b"cam", bytes(limit - frame + 1), headers)
    assert len(read(apache_kafka, topic, 1)[0].value) == limit - frame


def test_a_message_that_the_broker_refuses_fails_alone(apache_kafka: str) -> None:
    small = a_topic(apache_kafka, 100_000)
    large = a_topic(apache_kafka)
    with BoundedProducer(apache_kafka, message_max_bytes=LIMIT_BYTES) as producer:
        producer.send(small, b"cam", bytes(200_000))
        with pytest.raises(UnavailableError, match="deliver"):
            producer.flush(20)
        producer.send(large, b"cam", b"after")
        producer.send(small, b"cam", b"after")
        producer.flush(20)
    assert read(apache_kafka, large, 1)[0].value == b"after"
    assert read(apache_kafka, small, 1)[0].value == b"after"


def test_what_is_in_flight_is_bounded_while_the_broker_does_not_answer(own_tansu: TansuBroker) -> None:
    topic = a_topic(own_tansu.bootstrap)
    outcomes: list[UnavailableError | None] = []
    producer = BoundedProducer(own_tansu.bootstrap, message_max_bytes=LIMIT_BYTES, in_flight_max_bytes=1_000_000)
    producer.send(topic, b"cam", b"first")
    producer.flush(10)
    os.kill(own_tansu.pid, signal.SIGSTOP)
    try:
        producer.send(topic, b"cam", bytes(600_000), on_delivery=lambda _, error: outcomes.append(error))
        with pytest.raises(UnavailableError, match=r"600\d+ bytes are in flight"):
            producer.send(topic, b"cam", bytes(600_000), timeout_s=0)
        started_s = time.monotonic()
        with pytest.raises(UnavailableError, match="in flight"):
            producer.send(topic, b"cam", bytes(600_000), timeout_s=0.3)
        assert time.monotonic() - started_s >= 0.3
        with pytest.raises(UnavailableError, match="has not answered"):
            producer.flush(0.1)
    finally:
        os.kill(own_tansu.pid, signal.SIGCONT)
    producer.flush(10)
    producer.send(topic, b"cam", bytes(600_000), on_delivery=lambda _, error: outcomes.append(error))
    producer.close()
    assert outcomes == [None, None]


def test_a_lone_message_larger_than_the_bound_still_goes(broker: str, topic: str) -> None:
    with BoundedProducer(broker, message_max_bytes=LIMIT_BYTES, in_flight_max_bytes=10) as producer:
        producer.send(topic, b"cam", bytes(1_000))
        producer.send(topic, b"cam", bytes(1_000))
    assert len(read(broker, topic, 2)) == 2


def test_closing_gives_up_on_a_broker_that_does_not_answer(own_tansu: TansuBroker) -> None:
    topic = a_topic(own_tansu.bootstrap)
    failures: list[UnavailableError | None] = []
    producer = BoundedProducer(own_tansu.bootstrap, message_max_bytes=LIMIT_BYTES)
    producer.send(topic, b"cam", b"first")
    producer.flush(10)
    os.kill(own_tansu.pid, signal.SIGSTOP)
    try:
        producer.send(topic, b"cam", b"lost", on_delivery=lambda _, error: failures.append(error))
        with pytest.raises(UnavailableError, match="has not answered"):
            producer.close(0.2)
    finally:
        os.kill(own_tansu.pid, signal.SIGCONT)
    assert [type(failure) for failure in failures] == [UnavailableError]
    assert producer.in_flight_bytes == 0
    with pytest.raises(UnavailableError, match="closed"):
        producer.send(topic, b"cam", b"late")


def test_a_message_that_failed_can_be_sent_again_when_the_broker_is_back_empty(own_tansu: TansuBroker) -> None:
    topic = a_topic(own_tansu.bootstrap)
    producer = BoundedProducer(own_tansu.bootstrap, message_max_bytes=LIMIT_BYTES, delivery_timeout_s=1.0)
    for number in range(3):
        producer.send(topic, b"cam", str(number).encode())
    producer.flush(10)
    own_tansu.kill()
    with pytest.raises(UnavailableError, match=own_tansu.bootstrap):
        send_and_flush(producer, topic, b"away")
    own_tansu.start()
    ensure_topics(own_tansu.bootstrap, [topic], partitions=1, message_max_bytes=LIMIT_BYTES)
    producer.send(topic, b"cam", b"back")
    producer.close()
    assert [record.value for record in read(own_tansu.bootstrap, topic, 1)] == [b"back"]


def test_messages_that_follow_a_failed_one_at_once_all_arrive(own_tansu: TansuBroker) -> None:
    topic = a_topic(own_tansu.bootstrap)
    lost: list[UnavailableError | None] = []
    errors: list[UnavailableError | None] = []
    with BoundedProducer(own_tansu.bootstrap, message_max_bytes=LIMIT_BYTES, delivery_timeout_s=0.5) as producer:
        producer.send(topic, b"cam", b"before")
        producer.flush(10)
        os.kill(own_tansu.pid, signal.SIGSTOP)
        deadline_s = time.monotonic() + 20
        while not lost and time.monotonic() < deadline_s:  # so that younger ones are in flight when the first fails
            producer.send(topic, b"cam", bytes(100_000), on_delivery=lambda _, error: lost.append(error))
            time.sleep(0.05)
        os.kill(own_tansu.pid, signal.SIGCONT)
        for number in range(5):  # no flush between them: each meets the one before in flight
            producer.send(topic, b"cam", str(number).encode(), on_delivery=lambda _, error: errors.append(error))
        producer.flush(20)
    assert lost
    assert errors == [None] * 5
    arrived = [record.value for record in read(own_tansu.bootstrap, topic, 1 + len(lost) + 5, timeout_s=3)]
    assert [value for value in arrived if len(value) == 1] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.slow
def test_apache_kafka_killed_and_started_again_goes_on_where_it_was() -> None:
    need_program("java")
    need_program("mvn")
    with ApacheKafka() as server:
        topic = a_topic(server.bootstrap)
        with BoundedProducer(server.bootstrap, message_max_bytes=LIMIT_BYTES, delivery_timeout_s=60) as producer:
            producer.send(topic, b"cam", b"before")
            producer.flush(10)
            address = server.bootstrap
            server.kill()
            producer.send(topic, b"cam", b"meanwhile")
            server.start()
            assert server.bootstrap == address
            producer.send(topic, b"cam", b"after")
            producer.flush(60)
        assert [record.value for record in read(server.bootstrap, topic, 3)] == [b"before", b"meanwhile", b"after"]


def test_a_producer_for_a_broker_that_is_away_says_so_and_holds_nothing() -> None:
    producer = BoundedProducer(f"127.0.0.1:{free_port()}", message_max_bytes=1_000)
    with pytest.raises(UnavailableError, match="check that it runs"):
        producer.send("t", b"cam", b"x")
    assert producer.in_flight_bytes == 0
    producer.close()


def test_a_topic_that_does_not_exist_is_an_error_not_a_hang(apache_kafka: str) -> None:
    producer = BoundedProducer(apache_kafka, message_max_bytes=1_000)
    with pytest.raises(UnavailableError):
        send_and_flush(producer, "test.never-made", b"x")
    producer.close()


def test_an_on_delivery_that_raises_does_not_hold_its_bytes_for_ever(broker: str, topic: str) -> None:
    def fail(_place: Position | None, _error: UnavailableError | None) -> None:
        raise ValueError("a caller's own mistake")

    with BoundedProducer(broker, message_max_bytes=LIMIT_BYTES) as producer:
        producer.send(topic, b"cam", b"x", on_delivery=fail)
        producer.flush(10)
        assert producer.in_flight_bytes == 0
