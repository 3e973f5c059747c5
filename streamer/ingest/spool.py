"""What waits for Kafka, bounded in bytes."""

import threading
from collections import deque

from streamer.types import MediaChunk

_IN_FLIGHT_CHUNKS = 8  # enough to fill a connection; few, so that a failure disturbs little


class Spool:
    """Chunks of one source in order: waiting, or sent and not answered.

    Args:
        max_bytes: Payloads of both together. One chunk always fits.
        changed: Shared by the spools of one sender; notified whenever a chunk comes or is answered.
    """

    def __init__(self, max_bytes: int, changed: threading.Condition) -> None:
        self._max_bytes = max_bytes
        self._changed = changed
        self._waiting: deque[MediaChunk] = deque()
        self._in_flight: set[int] = set()  # ids of objects that the sender holds
        self._failed: dict[int, MediaChunk] = {}
        self._order: dict[int, int] = {}  # id of a sent chunk -> its number
        self._sent = 0
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """Of all that is not delivered."""
        return self._bytes

    @property
    def is_empty(self) -> bool:
        """Everything is delivered."""
        return not (self._waiting or self._in_flight or self._failed)

    def put(self, chunk: MediaChunk, *, may_wait: bool, stop: threading.Event) -> int:
        """Add a chunk.

        Args:
            chunk: The newest of its source.
            may_wait: When full, wait for room; otherwise the oldest give way.
            stop: Ends the wait.

        Returns:
            How many chunks were given up.
        """
        dropped = 0
        with self._changed:
            while self._bytes and self._bytes + len(chunk.payload) > self._max_bytes:
                if may_wait:
                    if stop.is_set():
                        return dropped + 1
                    self._changed.wait(0.1)
                elif self._waiting:
                    self._bytes -= len(self._waiting.popleft().payload)
                    dropped += 1
                else:
                    return dropped + 1
            self._waiting.append(chunk)
            self._bytes += len(chunk.payload)
            self._changed.notify_all()
        return dropped

    def take(self) -> MediaChunk | None:
        """The next to send; None if there is none, enough are in flight, or a failure is still being sorted out.

        The caller holds ``changed``.
        """
        if self._failed:
            if self._in_flight:
                return None
            again = [self._failed[key] for key in sorted(self._failed, key=self._order.__getitem__)]
            self._waiting.extendleft(reversed(again))
            self._failed.clear()
            self._order.clear()
        if not self._waiting or len(self._in_flight) >= _IN_FLIGHT_CHUNKS:
            return None
        chunk = self._waiting.popleft()
        self._in_flight.add(id(chunk))
        self._order[id(chunk)] = self._sent
        self._sent += 1
        return chunk

    def settle(self, chunk: MediaChunk, *, keep: bool) -> None:
        """A chunk that was taken is answered: forget it, or keep it to be sent again, in its old place."""
        with self._changed:
            self._in_flight.discard(id(chunk))
            if keep:
                self._failed[id(chunk)] = chunk
            else:
                self._bytes -= len(chunk.payload)
                self._order.pop(id(chunk), None)
            self._changed.notify_all()

    def clear(self) -> int:
        """Give up what is not delivered; how many chunks that was."""
        with self._changed:
            given_up = len(self._waiting) + len(self._failed) + len(self._in_flight)
            self._waiting.clear()
            self._failed.clear()
            self._bytes = 0
            return given_up
