"""What a source did so far, for the live view and the summary."""

import threading
from dataclasses import dataclass, field
from typing import Literal

State = Literal["connecting", "reading", "waiting", "ended", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The counters at one moment.

    Attributes:
        name: Stream id.
        source: Its address, without credentials.
        state: What it does now; ``waiting``: lost, and tried again after a back-off.
        chunks: Acknowledged by Kafka.
        bytes: Of their payloads.
        dropped: Chunks given up: the spool was full, or a group of pictures was too large.
        reconnects: Times the source was opened again.
        errors: Failures of the source or of Kafka.
        spooled_bytes: Waiting for Kafka.
        last_capture_us: End of the newest chunk in Kafka, microseconds since 1970 UTC, or None.
        last_error: The newest failure, without credentials; empty if none.
    """

    name: str
    source: str
    state: State = "connecting"
    chunks: int = 0
    bytes: int = 0
    dropped: int = 0
    reconnects: int = 0
    errors: int = 0
    spooled_bytes: int = 0
    last_capture_us: int | None = None
    last_error: str = ""


@dataclass(slots=True)
class SourceCounters:
    """Counts from several threads."""

    name: str
    source: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _state: State = "connecting"
    _chunks: int = 0
    _bytes: int = 0
    _dropped: int = 0
    _reconnects: int = 0
    _errors: int = 0
    _spooled_bytes: int = 0
    _last_capture_us: int | None = None
    _last_error: str = ""

    def enter(self, state: State) -> None:
        """The source changes to ``state``."""
        with self._lock:
            self._state = state

    def count_delivered(self, size_bytes: int, end_us: int) -> None:
        """Kafka acknowledged a chunk that ends at ``end_us``."""
        with self._lock:
            self._chunks += 1
            self._bytes += size_bytes
            self._last_capture_us = max(end_us, self._last_capture_us or 0)

    def count_dropped(self, chunks: int = 1) -> None:
        """Chunks were given up."""
        with self._lock:
            self._dropped += chunks

    def count_reconnect(self) -> None:
        """The source is opened once more."""
        with self._lock:
            self._reconnects += 1

    def count_error(self, message: str) -> None:
        """Something failed; ``message`` holds no credentials."""
        with self._lock:
            self._errors += 1
            self._last_error = message

    def set_spooled(self, size_bytes: int) -> None:
        """The spool holds this much."""
        with self._lock:
            self._spooled_bytes = size_bytes

    def facts(self) -> SourceFacts:
        """All of them, taken together."""
        with self._lock:
            return SourceFacts(
                self.name,
                self.source,
                self._state,
                self._chunks,
                self._bytes,
                self._dropped,
                self._reconnects,
                self._errors,
                self._spooled_bytes,
                self._last_capture_us,
                self._last_error,
            )
