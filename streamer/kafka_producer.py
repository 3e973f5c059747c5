"""Messages into Kafka, with a bound on what waits for the broker's answer."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.record.default_records import DefaultRecordBatchBuilder

from streamer.errors import ChunkError, UnavailableError
from streamer.kafka_client import make_producer, translated, unavailable
from streamer.types import Position

Headers = Sequence[tuple[str, bytes]]
OnDelivery = Callable[[Position | None, UnavailableError | None], None]
_END_TIMEOUT_S = 5.0


class BoundedProducer:
    """A producer that holds no more than so many bytes in flight and survives its client's end.

    It connects with the first `send`, and anew after a message failed: kafka-python's idempotent producer may refuse
    everything after one failure. A message that failed may have arrived all the same, so sending it again can double
    it; the ``seq`` header tells the reader.

    Args:
        bootstrap: ``HOST:PORT[,HOST:PORT...]``.
        message_max_bytes: The broker's limit, or less.
        in_flight_max_bytes: Sent and not answered, all topics together. One message may always be in flight.
        delivery_timeout_s: After this long a message has failed.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        message_max_bytes: int,
        in_flight_max_bytes: int = 67_108_864,
        delivery_timeout_s: float = 30.0,
    ) -> None:
        self._bootstrap = bootstrap
        self._message_max_bytes = message_max_bytes
        self._in_flight_max_bytes = in_flight_max_bytes
        self._delivery_timeout_s = delivery_timeout_s
        self._changed = threading.Condition()  # guards the three below
        self._in_flight_bytes = 0
        self._failure: UnavailableError | None = None
        self._is_closed = False
        self._connecting = threading.Lock()  # held while `_client` changes
        self._client: KafkaProducer | None = None
        self._broken: KafkaProducer | None = None  # the client whose message failed last, current or not

    @property
    def in_flight_bytes(self) -> int:
        """Sent and not answered."""
        with self._changed:
            return self._in_flight_bytes

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Headers = (),
        on_delivery: OnDelivery | None = None,
        *,
        timeout_s: float = 10.0,
    ) -> None:
        """Hand a message over; messages of one key keep their order.

        Args:
            topic: Where to.
            key: The stream id, in UTF-8.
            value: At most ``message_max_bytes`` with key, headers and Kafka's frame.
            headers: Of the contract.
            on_delivery: Called once with the place or the error, from the client's thread: be quick, do not send in
                it. Without it an error is raised by the next `send` or `flush`.
            timeout_s: How long to wait for room; 0: not at all.

        Raises:
            ChunkError: It is too large.
            UnavailableError: No room in time, the broker is away, or an earlier message without ``on_delivery`` failed.
        """
        size = message_bytes(key, value, headers)
        if size > self._message_max_bytes:
            raise ChunkError(
                f"message for {topic} has {size} bytes, the limit is {self._message_max_bytes}: cut smaller chunks, or"
                " raise kafka.message_max_bytes and the broker's message.max.bytes",
                reason="oversize",
            )
        self._reserve(size, timeout_s)
        try:
            with translated(self._bootstrap, f"to take a message for {topic}"):
                client = self._connected()
                future = client.send(topic, key=key, value=value, headers=list(headers))
        except BaseException:
            self._settle(size, None)
            raise
        future.add_callback(self._delivered, size, on_delivery)
        future.add_errback(self._failed, client, size, on_delivery)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything sent was answered.

        Raises:
            UnavailableError: Not in time, or a message without ``on_delivery`` failed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_flight_bytes == 0, timeout_s):
                raise UnavailableError(
                    f"Kafka at {self._bootstrap} has not answered for {self._in_flight_bytes} bytes within"
                    f" {timeout_s:g} s; check that it runs"
                )
            self._raise_failure()

    def close(self, timeout_s: float = 30.0) -> None:
        """`flush`, and end. What could not be sent fails.

        Raises:
            UnavailableError: As `flush` does.
        """
        try:
            self.flush(timeout_s)
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()
            with self._connecting:
                self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close(timeout_s=1.0)
        except UnavailableError as second:
            if error is not None:
                error.add_note(str(second))

    def _reserve(self, size: int, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while self._in_flight_bytes and self._in_flight_bytes + size > self._in_flight_max_bytes:
                left_s = deadline_s - time.monotonic()
                if self._is_closed or left_s <= 0:
                    break
                self._changed.wait(left_s)
            else:
                self._raise_failure()
                if not self._is_closed:
                    self._in_flight_bytes += size
                    return
            if self._is_closed:
                raise self._closed_error()
            raise UnavailableError(
                f"Kafka at {self._bootstrap} is slow or away: {self._in_flight_bytes} bytes are in flight and the limit"
                f" is {self._in_flight_max_bytes}; keep the message and send it later"
            )

    def _closed_error(self) -> UnavailableError:
        return UnavailableError(f"the producer for Kafka at {self._bootstrap} is closed; make a new one")

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _connected(self) -> KafkaProducer:
        with self._connecting:
            if self._is_closed:
                raise self._closed_error()
            if self._client is not None and self._client is self._broken:
                self._disconnect()
            if self._client is None:
                self._client = make_producer(
                    self._bootstrap,
                    message_max_bytes=self._message_max_bytes,
                    delivery_timeout_s=self._delivery_timeout_s,
                )
            return self._client

    def _disconnect(self) -> None:
        client, self._client, self._broken = self._client, None, None
        if client is None:
            return
        try:
            client.close(timeout=0)
        except KafkaError:  # it gives up while something is in flight, and would leave its thread running
            client._sender.force_close()
            client._sender.join(_END_TIMEOUT_S)
            with contextlib.suppress(KafkaError):
                client.close(timeout=0)

    def _delivered(self, size: int, on_delivery: OnDelivery | None, place: Any) -> None:
        try:
            if on_delivery is not None:
                on_delivery(Position(place.topic, place.partition, place.offset), None)
        finally:
            self._settle(size, None)

    def _failed(self, client: KafkaProducer, size: int, on_delivery: OnDelivery | None, error: BaseException) -> None:
        failure = unavailable(self._bootstrap, "to deliver a message", error)
        self._broken = client  # one that was replaced already fails the rest of its messages: that breaks no other
        try:
            if on_delivery is not None:
                on_delivery(None, failure)
        finally:
            self._settle(size, failure if on_delivery is None else None)

    def _settle(self, size: int, failure: UnavailableError | None) -> None:
        with self._changed:
            self._in_flight_bytes -= size
            self._failure = self._failure or failure
            self._changed.notify_all()


def message_bytes(key: bytes | None, value: bytes, headers: Headers) -> int:
    """A message's size as the broker counts it, or a little more."""
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, list(headers)))
