"""What a worker looks at now and then: are the servers there, how far behind is it, how busy is the device."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from kafka import TopicPartition
from redis import Redis

from streamer.emit import Emitter
from streamer.encode import EncodeStage
from streamer.errors import UnavailableError
from streamer.kafka_client import addresses
from streamer.metrics import Metrics
from streamer.redis_client import reaching
from streamer.source import ChunkSource

INTERVAL_S = 1.0
_TIDY_INTERVAL_S = 60.0
_CONNECT_S = 2.0


class Pulse:
    """Beats on a thread of its own until it is closed.

    Args:
        bootstrap: Kafka's addresses.
        redis: Asked for a PING.
        source: Tells the lag.
        encode: Tells how busy the device is.
        emitter: Removes what is too old.
        metrics: Where it all shows.
        on_kafka: Called with whether Kafka answers, each time.
        on_redis: Likewise for Redis.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        redis: Redis,
        source: ChunkSource,
        encode: EncodeStage,
        emitter: Emitter,
        metrics: Metrics,
        on_kafka: Callable[[bool], None],
        on_redis: Callable[[bool], None],
    ) -> None:
        self._bootstrap = bootstrap
        self._redis = redis
        self._source = source
        self._encode = encode
        self._emitter = emitter
        self._metrics = metrics
        self._on_kafka = on_kafka
        self._on_redis = on_redis
        self._stopping = threading.Event()
        self._told: set[TopicPartition] = set()
        self._next_tidy_s = 0.0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a beat that is under way ends by itself."""
        self._stopping.set()

    def _run(self) -> None:
        try:
            busy_s, beat_s = self._encode.busy_s, time.monotonic()
            while not self._stopping.wait(INTERVAL_S):
                self._on_kafka(is_listening(self._bootstrap))
                self._ask_redis()
                self._tell_lag()
                now_s, now_busy_s = time.monotonic(), self._encode.busy_s
                self._metrics.device(self._encode.device_bytes, min(1.0, (now_busy_s - busy_s) / (now_s - beat_s)))
                busy_s, beat_s = now_busy_s, now_s
        except BaseException as error:  # noqa: BLE001  # kept for the worker, which raises it
            self.failure = error

    def _ask_redis(self) -> None:
        try:
            with reaching(self._redis):
                self._redis.ping()
            if time.monotonic() >= self._next_tidy_s:
                self._next_tidy_s = time.monotonic() + _TIDY_INTERVAL_S
                self._emitter.tidy(time.time_ns() // 1000)
        except UnavailableError:
            self._on_redis(False)
        else:
            self._on_redis(True)

    def _tell_lag(self) -> None:
        lag = self._source.lag
        for place in self._told - lag.keys():
            self._metrics.forget_partition(place.topic, place.partition)
        for place, messages in lag.items():
            self._metrics.lag(place.topic, place.partition, messages)
        self._told = set(lag)


def is_listening(bootstrap: str) -> bool:
    """Something accepts connections at one of the addresses."""
    for address in addresses(bootstrap):
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
            return True
    return False
