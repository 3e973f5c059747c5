"""Chunks that cannot be used, as they came, to a topic where someone can look at them."""

from concurrent.futures import Future
from typing import Any

from streamer.backlog import Refused
from streamer.kafka_producer import BoundedProducer


class DeadLetters:
    """Sends refused messages to the dead-letter topic: key, headers and value as they were, the reason added."""

    def __init__(self, producer: BoundedProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    def send(self, refused: Refused) -> "Future[Any]":
        """Queue one; the future is done when Kafka has it. The offset may be committed only then."""
        arrived: Future[Any] = Future()
        headers = [
            *((name, value) for name, value in refused.headers if name not in _ADDED),
            ("error", str(refused.error).encode()),
            ("reason", refused.error.reason.encode()),
            ("topic", refused.position.topic.encode()),
            ("partition", str(refused.position.partition).encode()),
            ("offset", str(refused.position.offset).encode()),
        ]

        def on_delivery(metadata: Any, error: Exception | None) -> None:
            if error is None:
                arrived.set_result(metadata)
            else:
                arrived.set_exception(error)

        self._producer.send(self._topic, refused.key, refused.value, headers, on_delivery)
        return arrived


_ADDED = frozenset({"error", "reason", "topic", "partition", "offset"})
