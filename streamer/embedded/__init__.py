"""Real servers for one machine, gone when this process is gone."""

from pathlib import Path
from typing import Literal

import structlog

from streamer.embedded.apache import ApacheKafka, has_apache_kafka
from streamer.embedded.guard import CHECK_INTERVAL_S, Guard, check
from streamer.embedded.server import EmbeddedServer
from streamer.embedded.tansu import TansuBroker
from streamer.embedded.valkey import EmbeddedRedis

__all__ = [
    "CHECK_INTERVAL_S",
    "ApacheKafka",
    "Broker",
    "BrokerKind",
    "EmbeddedRedis",
    "EmbeddedServer",
    "Guard",
    "TansuBroker",
    "check",
    "choose_broker",
]

_log = structlog.get_logger(__name__)

Broker = TansuBroker | ApacheKafka
BrokerKind = Literal["auto", "tansu", "kafka"]


def choose_broker(
    kind: BrokerKind, *, is_long_run: bool, message_max_bytes: int = 8_388_608, folder: Path | None = None
) -> Broker:
    """Make a broker, not yet started.

    Args:
        kind: ``auto``: Tansu for a run that ends by itself; Apache Kafka, which has retention, for a long one where
            Java and Kafka's jars (or Maven, to fetch them) are there, else Tansu.
        is_long_run: The run has no end of its own.
        message_max_bytes: Largest message.
        folder: Where its data stays; None: a temporary folder. Tansu keeps nothing in either.
    """
    if kind == "kafka" or (kind == "auto" and is_long_run and has_apache_kafka()):
        return ApacheKafka(folder, message_max_bytes=message_max_bytes)
    if is_long_run:
        _log.warning(
            "the embedded broker keeps every byte in memory and ends at its limit; for a long run install Java and"
            " Maven, or name a broker with --kafka",
            broker="tansu",
        )
    return TansuBroker(folder)
