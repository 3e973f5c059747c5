"""Chunks that wait for a decoder: bounded in bytes, and where they must be skipped, skipped evenly.

``lossless`` never skips: the reader pauses when the backlog is full, so lag grows in Kafka, where it is seen. ``live``
skips whole chunks, oldest first: those of the stream with the most waiting when the backlog is full, and any that a
newer one of the same stream has left ``max_age_s`` behind. From half of that on some are skipped, more of them the
further they are behind, picked by their place in Kafka: with one hard limit alone, the streams that come first in every
second would be looked at, and those after them never.
"""

import threading
import zlib
from collections import deque
from dataclasses import dataclass
from typing import Literal

from streamer.errors import ChunkError
from streamer.media import headers_of
from streamer.types import Claim, MediaChunk, Position


@dataclass(frozen=True, slots=True, eq=False)
class Refused:
    """A message that is no usable chunk, with what is needed to put it into the dead-letter topic.

    Attributes:
        stream: The key as text, for the metric; empty where it is none.
        is_last: It would have been the last of its session.
    """

    stream: str
    position: Position
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes
    error: ChunkError
    is_last: bool = False

    @classmethod
    def of(cls, chunk: MediaChunk, error: ChunkError) -> "Refused":
        """A chunk that met the contract, but whose media did not."""
        headers = tuple(headers_of(chunk))
        return cls(chunk.stream, chunk.position, chunk.stream.encode(), headers, chunk.payload, error, chunk.is_last)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A chunk that the overload policy passed over."""

    stream: str
    position: Position
    reason: Literal["age", "full"]
    is_last: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """This worker owns a partition: nothing of it comes before this, all of it after."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Revoked:
    """Another worker owns the partition now: what is in flight for it counts for nothing."""

    partition: int


Item = MediaChunk | Refused | Skipped | Assigned | Revoked


class _Entry:
    __slots__ = ("item",)

    def __init__(self, item: Item) -> None:
        self.item = item


class Backlog:
    """A queue in order of arrival between the polling thread and the worker. Thread-safe.

    Args:
        policy: ``live`` skips, ``lossless`` does not.
        max_bytes: Payload bytes held, refused ones too; `is_full` says so, ``live`` skips down to it.
        max_age_s: ``live``: a chunk this far behind the newest of its stream is skipped.
    """

    def __init__(self, *, policy: Literal["live", "lossless"], max_bytes: int, max_age_s: float) -> None:
        self._is_live = policy == "live"
        self._max_bytes = max_bytes
        self._max_age_us = round(max_age_s * 1e6)
        self._entries: deque[_Entry] = deque()
        self._waiting: dict[str, deque[_Entry]] = {}
        self._newest_us: dict[str, int] = {}
        self._bytes = 0
        self._arrived = threading.Condition()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Payload bytes that wait."""
        return self._bytes

    @property
    def is_full(self) -> bool:
        """The reader should pause. Under ``live`` only what cannot be skipped counts, so it never is for long."""
        return self._bytes >= self._max_bytes

    def holds(self, stream: str) -> bool:
        """A chunk of the stream waits here."""
        return stream in self._waiting

    def put(self, item: Item) -> None:
        """Append; never blocks, for the reader must go on polling to keep its partitions."""
        with self._arrived:
            entry = _Entry(item)
            self._entries.append(entry)
            if isinstance(item, MediaChunk):
                self._waiting.setdefault(item.stream, deque()).append(entry)
                self._bytes += len(item.payload)
                self._newest_us[item.stream] = max(item.capture_us, self._newest_us.get(item.stream, 0))
            elif isinstance(item, Refused):
                self._bytes += len(item.value)
            while self._is_live and self._bytes > self._max_bytes and self._waiting:
                self._skip_one()
            self._arrived.notify()

    def take(self, timeout_s: float) -> Item | None:
        """The oldest item; None if nothing came within ``timeout_s``."""
        with self._arrived:
            if not self._entries and timeout_s > 0:
                self._arrived.wait_for(lambda: bool(self._entries), timeout_s)
            if not self._entries:
                return None
            item = self._entries.popleft().item
            if isinstance(item, Refused):
                self._bytes -= len(item.value)
            if not isinstance(item, MediaChunk):
                return item
            self._leave(item)
            behind_us = self._newest_us[item.stream] - item.capture_us
            if not self._waiting[item.stream]:
                del self._waiting[item.stream], self._newest_us[item.stream]
            if self._is_live and self._is_passed_over(item, behind_us):
                return Skipped(item.stream, item.position, "age", item.is_last)
            return item

    def wake(self) -> None:
        """Let a blocked `take` return at once."""
        with self._arrived:
            self._arrived.notify_all()

    def _leave(self, chunk: MediaChunk) -> None:
        self._waiting[chunk.stream].popleft()
        self._bytes -= len(chunk.payload)

    def _is_passed_over(self, chunk: MediaChunk, behind_us: int) -> bool:
        share = 2 * behind_us / self._max_age_us - 1  # 0 at half the limit, 1 at the limit
        lot = zlib.crc32(f"{chunk.stream} {chunk.position}".encode()) / 2**32
        return lot < share

    def _skip_one(self) -> None:
        longest = max(self._waiting.values(), key=len)
        entry = longest[0]
        chunk = entry.item
        if not isinstance(chunk, MediaChunk):  # only chunks are ever in `_waiting`
            raise TypeError(type(chunk).__name__)
        self._leave(chunk)
        if not longest:
            del self._waiting[chunk.stream], self._newest_us[chunk.stream]
        entry.item = Skipped(chunk.stream, chunk.position, "full", chunk.is_last)
