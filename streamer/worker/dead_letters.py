"""Chunks that cannot be used, as they came, to a topic where someone can look at them."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any

import structlog

from streamer.backlog import Refused
from streamer.errors import ChunkError, UnavailableError
from streamer.kafka_producer import BoundedProducer

_log = structlog.get_logger(__name__)
_ADDED = frozenset({"error", "reason", "topic", "partition", "offset", "value-dropped"})
_POLL_S = 0.2
_TOO_LARGE = ("MessageSizeTooLarge", "RecordTooLarge", "MESSAGE_TOO_LARGE")


class DeadLetters:
    """Sends refused messages to the dead-letter topic: key, headers and value as they were, the reason added.

    A letter may arrive twice where Kafka's answer got lost; ``topic``, ``partition`` and ``offset`` tell.
    """

    def __init__(self, producer: BoundedProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    def deliver(self, letters: Sequence[Refused], abandoned: threading.Event) -> None:
        """Send letters and wait until Kafka has all of them; only then may their offsets be committed.

        Args:
            letters: Any number.
            abandoned: Once set, waiting ends: whoever reads those messages again sends them again.

        Raises:
            UnavailableError: Kafka did not take one; send them again.
        """
        sent = [(letter, self._send(letter, has_value=True)) for letter in letters]
        _wait([future for _, future in sent], abandoned)
        failed = [(letter, future.exception()) for letter, future in sent if future.done() and future.exception()]
        again = [self._send(letter, has_value=False) for letter, error in failed if _is_too_large(error)]
        _wait(again, abandoned)
        left = [error for _, error in failed if error is not None and not _is_too_large(error)]
        left += [error for future in again if future.done() and (error := future.exception()) is not None]
        if left:
            raise UnavailableError(f"dead letters not delivered: {left[0]}")

    def _send(self, refused: Refused, *, has_value: bool) -> "Future[Any]":
        arrived: Future[Any] = Future()
        headers = _headers(refused, has_value=has_value)

        def on_delivery(place: Any, error: Exception | None) -> None:
            if error is None:
                arrived.set_result(place)
            else:
                arrived.set_exception(error)

        try:
            self._producer.send(self._topic, refused.key, refused.value if has_value else b"", headers, on_delivery)
        except ChunkError as error:
            if not has_value:
                _log.error("dead letter given up, its headers alone are too large", position=str(refused.position))
                arrived.set_result(None)
            else:
                arrived.set_exception(error)
        return arrived


def _headers(refused: Refused, *, has_value: bool) -> list[tuple[str, bytes]]:
    position = refused.position
    headers = [(name, value) for name, value in refused.headers if name not in _ADDED]
    headers += [
        ("error", str(refused.error).encode()),
        ("reason", refused.error.reason.encode()),
        ("topic", position.topic.encode()),
        ("partition", str(position.partition).encode()),
        ("offset", str(position.offset).encode()),
    ]
    if not has_value:
        headers.append(("value-dropped", f"{len(refused.value)} bytes, too large for this topic".encode()))
    return headers


def _wait(futures: "Sequence[Future[Any]]", abandoned: threading.Event) -> None:
    left = set(futures)
    while left and not abandoned.is_set():
        left = wait(left, timeout=_POLL_S).not_done


def _is_too_large(error: BaseException | None) -> bool:
    return isinstance(error, ChunkError) or any(sign in str(error) for sign in _TOO_LARGE)
