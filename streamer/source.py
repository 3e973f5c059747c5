"""Chunks out of Kafka: a thread of its own polls, pauses while the backlog is full, and claims what it is assigned."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from streamer.backlog import Assigned, Backlog, Refused, Revoked
from streamer.errors import ChunkError, UnavailableError
from streamer.media import is_stream_id, parse_message
from streamer.types import Claim, Offsets, Position

_log = structlog.get_logger(__name__)
_POLL_MS = 100
_COMMIT_INTERVAL_S = 1.0  # offsets in the group are for tools that show lag; the truth is in Redis
_RETRY_S = 1.0
_LOST_S = 4.0  # longer than a member that woke up needs to hear from the group that its partitions are gone
_BEHIND_S = 5.0
_UNPAUSED_S = 1.0  # after a pause the end of a partition is not known before the next fetch
_LEAVE_S = 5.0

_Change = tuple[Literal["assigned", "revoked", "lost"], frozenset[TopicPartition]]


class ChunkSource:
    """Reads the media topics as one member of the consumer group.

    A partition is read only after it was claimed: the claim fences the owner before and says where to go on.

    Args:
        consumer: Not yet subscribed.
        topics: Media topics, with equal numbers of partitions.
        backlog: Where items go.
        claim: Takes a partition number; raises `UnavailableError` while that cannot be done.
        max_future_s: How far a capture time may be ahead of the broker's.
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        topics: Iterable[str],
        backlog: Backlog,
        claim: Callable[[int], Claim],
        *,
        max_future_s: float,
    ) -> None:
        self._consumer = consumer
        self._topics = tuple(topics)
        self._backlog = backlog
        self._claim = claim
        self._max_future_s = max_future_s
        self._stopping = threading.Event()
        self._held = threading.Event()  # set while a server behind us is away
        self._changes: queue.SimpleQueue[_Change] = queue.SimpleQueue()
        self._unclaimed: set[TopicPartition] = set()
        self._owned: dict[int, int] = {}  # partition to the epoch of its claim
        self._has_joined = False
        self._not_before_s: dict[int, float] = {}  # partition to when it may be claimed
        self._next: dict[TopicPartition, int] = {}  # the offset after the last one that was delivered
        self._busy_s: dict[int, float] = {}  # partition to when it last delivered
        self._paused_s = float("-inf")  # when reading was paused last
        self._is_away = False
        self._is_closed = False
        self._committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._committed_lock = threading.Lock()
        self._next_commit_s = 0.0
        self._lag: Mapping[TopicPartition, int] = {}
        self._behind: frozenset[int] = frozenset()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    @property
    def lag(self) -> Mapping[TopicPartition, int]:
        """Messages that are not committed yet, by partition, as of the last poll."""
        return self._lag

    def is_behind(self, partition: int) -> bool:
        """Chunks of it may lie in Kafka that were not delivered yet: that a stream shows nothing means nothing."""
        return self._is_away or partition in self._behind

    def why_not_ready(self) -> str | None:
        """What is missing before every partition that is ours is read; None: nothing."""
        if not self._has_joined:
            return "the consumer group has not been joined yet"
        waiting = sorted({place.partition for place in tuple(self._unclaimed)})
        return f"partitions {waiting} are assigned and not claimed yet" if waiting else None

    def start(self) -> None:
        """Subscribe and begin to poll."""
        self._consumer.subscribe(topics=list(self._topics), listener=_Listener(self._changes))
        self._thread.start()

    def hold(self, *, is_held: bool) -> None:
        """Stop reading, or go on, while the place in the group is kept."""
        if is_held:
            self._held.set()
        else:
            self._held.clear()

    def away(self, *, is_away: bool) -> None:
        """Kafka cannot be reached, or can be again."""
        self._is_away = is_away

    def reclaim(self, partition: int, epoch: int) -> None:
        """Claim a partition anew that turned out not to be ours any more, if it is still assigned to us.

        Not at once: most likely we were away so long that the group gave it to another, and only have not heard yet.

        Args:
            partition: Number.
            epoch: Of the claim that was refused; a newer one stays.
        """
        if self._owned.get(partition) == epoch:
            self._not_before_s[partition] = time.monotonic() + _LOST_S
            self._changes.put(("lost", frozenset(TopicPartition(topic, partition) for topic in self._topics)))

    def processed(self, partition: int, offsets: Offsets) -> None:
        """Remember what was committed to Redis; the group hears of it later."""
        with self._committed_lock:
            for topic, offset in offsets.items():
                self._committed[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, "", -1)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop polling. The group is left by `close`, once what is in flight is committed."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def close(self, *, is_hasty: bool = False) -> None:
        """Tell the group what was processed and leave it; in haste, only leave. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_S)
        try:
            if not is_hasty:
                self._commit(is_final=True)
            self._consumer.close(timeout_ms=round(1000 * (0.5 if is_hasty else _LEAVE_S)))
        except KafkaError as error:
            _log.warning("group not left in good order", error=str(error))

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._step()
        except BaseException as error:  # noqa: BLE001  # kept for the worker, which raises it
            self.failure = error
            _log.exception("polling ended")
        finally:
            self._backlog.wake()

    def _step(self) -> None:
        self._note_changes()
        self._claim_assigned()
        is_paused = self._held.is_set() or self._backlog.is_full
        wanted = set() if not is_paused else self._consumer.assignment()
        wanted |= self._unclaimed
        paused = self._consumer.paused()
        if wanted - paused:
            self._consumer.pause(*(wanted - paused))
        if paused - wanted:
            self._consumer.resume(*(paused - wanted))
        if is_paused:
            self._paused_s = time.monotonic()
        try:
            polled = self._consumer.poll(timeout_ms=_POLL_MS)
        except KafkaError as error:
            _log.warning("poll failed", error=str(error))
            self._stopping.wait(_RETRY_S)
            return
        self._note_changes()
        for place, records in polled.items():
            if place in self._unclaimed or place.partition not in self._owned:
                continue  # fetched before the claim said where to begin: the claim seeks
            for record in records:
                self._deliver(record)
            self._next[place] = records[-1].offset + 1
            self._busy_s[place.partition] = time.monotonic()
        self._measure()
        self._commit()

    def _deliver(self, record: Any) -> None:
        position = Position(record.topic, record.partition, record.offset)
        try:
            chunk = parse_message(
                record.key, record.headers, record.value, position, record.timestamp, self._max_future_s
            )
        except ChunkError as error:
            headers = tuple((name, value or b"") for name, value in record.headers)
            self._backlog.put(Refused(_name(record.key), position, record.key, headers, record.value or b"", error))
            return
        self._backlog.put(chunk)

    def _claim_assigned(self) -> None:
        now_s = time.monotonic()
        for partition in sorted({place.partition for place in self._unclaimed}):
            if now_s < self._not_before_s.get(partition, 0.0):
                continue
            places = [place for place in self._unclaimed if place.partition == partition]
            if not self._consumer.assignment().intersection(places):
                self._unclaimed.difference_update(places)  # moved on meanwhile: claiming would take it from its owner
                continue
            if self._owned.pop(partition, None) is not None:  # another topic's share of one that is ours already
                self._backlog.put(Revoked(partition))
            try:
                claim = self._claim(partition)
            except UnavailableError as error:
                _log.warning("partition not claimed yet", partition=partition, error=str(error))
                self._not_before_s.update(
                    dict.fromkeys({place.partition for place in self._unclaimed}, now_s + _RETRY_S)
                )
                return
            self._seek(claim)
            self._backlog.put(Assigned(claim))
            self._owned[partition] = claim.epoch
            self._busy_s[partition] = now_s
            self._not_before_s.pop(partition, None)
            self._unclaimed.difference_update(places)

    def _seek(self, claim: Claim) -> None:
        for place in self._consumer.assignment():
            if place.partition != claim.partition:
                continue
            if place.topic in claim.offsets:
                self._consumer.seek(place, claim.offsets[place.topic])
                self._next[place] = claim.offsets[place.topic]
            else:
                self._consumer.seek_to_beginning(place)

    def _measure(self) -> None:
        now_s = time.monotonic()
        lag: dict[TopicPartition, int] = {}
        behind: set[int] = set()
        with self._committed_lock:
            committed = dict(self._committed)
        for place in self._consumer.assignment():
            end = self._consumer.highwater(place)
            if end is None or place.partition not in self._owned:
                continue
            read = self._next.get(place, 0)
            lag[place] = max(0, end - (committed[place].offset if place in committed else read))
            # The end may be a marker that no consumer is ever given, so lately nothing means: all was read.
            if end > read and now_s - self._busy_s.get(place.partition, 0.0) < _BEHIND_S:
                behind.add(place.partition)
        if now_s - self._paused_s < _UNPAUSED_S:
            behind.update(self._owned)
        self._lag, self._behind = lag, frozenset(behind)

    def _commit(self, *, is_final: bool = False) -> None:
        now_s = time.monotonic()
        if now_s < self._next_commit_s and not is_final:
            return
        self._next_commit_s = now_s + _COMMIT_INTERVAL_S
        assigned = self._consumer.assignment()
        with self._committed_lock:
            offsets = {place: offset for place, offset in self._committed.items() if place in assigned}
        if not offsets:
            return
        try:
            if is_final:
                self._consumer.commit(offsets)
            else:
                self._consumer.commit_async(offsets)
        except KafkaError as error:
            _log.info("group offsets not written; nothing depends on them", error=str(error))

    def _note_changes(self) -> None:
        """Apply what the group's rebalances said, in order, on the polling thread."""
        while not self._changes.empty():
            kind, places = self._changes.get_nowait()
            self._has_joined |= kind == "assigned"
            if kind != "assigned":
                self._release(places)
            if kind != "revoked":
                self._unclaimed.update(places & self._consumer.assignment() if kind == "lost" else places)

    def _release(self, places: Iterable[TopicPartition]) -> None:
        for place in places:
            self._unclaimed.discard(place)
            self._next.pop(place, None)
            with self._committed_lock:
                self._committed.pop(place, None)
            if self._owned.pop(place.partition, None) is not None:
                self._busy_s.pop(place.partition, None)
                self._backlog.put(Revoked(place.partition))


def _name(key: bytes | None) -> str:
    text = (key or b"").decode(errors="replace")
    return text if is_stream_id(text) else ""


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Only notes what changed: it runs on the loop that sends heartbeats, which must not wait."""

    def __init__(self, changes: "queue.SimpleQueue[_Change]") -> None:
        self._changes = changes

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._changes.put(("assigned", frozenset(assigned)))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._changes.put(("revoked", frozenset(revoked)))
