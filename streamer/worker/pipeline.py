"""The batch loop: decoded chunks become windows, batches, tokens, confidences and events, one after the other."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import structlog

from streamer.align import AlignStage
from streamer.backlog import Assigned, Backlog, Item, Refused, Revoked, Skipped
from streamer.batch import Batcher
from streamer.encode import EncodeStage
from streamer.errors import ChunkError, ContractError
from streamer.metrics import Metrics
from streamer.types import Batch, Claim, Decoded, MediaChunk, Offsets, Tokens
from streamer.window import Windower
from streamer.worker.outbox import Commit, Outbox
from streamer.worker.quarantine import Quarantine
from streamer.worker.tracking import Ended, Outcome, Timing, Tracking
from streamer.worker.watching import Watching

_log = structlog.get_logger(__name__)
_PROGRESS_INTERVAL_S = 0.5  # offsets that moved without a window are committed this often
_LETTERS_MAX_BYTES = 33_554_432  # of refused chunks that wait for a partition's next commit
_ENCODING_DEPTH = 2  # one batch on the device, the next one ready for it
_WAIT_S = 0.02
STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a partition stands: what a successor reads again, and the windows that are out."""

    offsets: Offsets
    windows: Any


@dataclass(slots=True)
class _Owned:
    """A partition of ours, and what its next commit must carry."""

    epoch: int
    place: _Place  # of the last commit
    letters: list[Refused] = field(default_factory=list)
    letters_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Launched:
    """A batch on its way through the encoders.

    Attributes:
        epochs: Of the partitions whose windows are in it, as they were held when it was launched.
        places: Partition to where it stands as of this batch: all windows released by then are in this batch or in an
            earlier one.
        ended: Sessions that ended within this batch.
    """

    batch: Batch
    tokens: "Future[Tokens]"
    epochs: Mapping[int, int]
    places: Mapping[int, _Place]
    ended: tuple[Ended, ...]
    launched_s: float


class Pipeline:
    """Runs on one thread, the only one that touches the stages behind decode (encode has a thread of its own).

    Encoding of a batch overlaps with aligning, tracking and committing the one before.

    Args:
        backlog: Where items come from.
        decode: Submits a chunk to the decoder threads.
        depth: Chunks that may be with the decoders, or decoded and waiting for those before them.
        windower: Joins picture and sound.
        batcher: Collects windows.
        encode: Encoders.
        align: Prompts against tokens.
        tracking: Confidences into events.
        outbox: Where commits go.
        is_behind: Whether chunks of a partition may lie in Kafka that did not come here yet.
        watching: What is shown between events.
        metrics: Counters.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913  # the parts it drives; the worker names each
        self,
        *,
        backlog: Backlog,
        decode: Callable[[MediaChunk], "Future[tuple[Decoded, float]]"],
        depth: int,
        windower: Windower,
        batcher: Batcher,
        encode: EncodeStage,
        align: AlignStage,
        tracking: Tracking,
        outbox: Outbox,
        is_behind: Callable[[int], bool],
        watching: Watching,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backlog = backlog
        self._decode = decode
        self._depth = depth
        self._windower = windower
        self._batcher = batcher
        self._encode = encode
        self._align = align
        self._tracking = tracking
        self._outbox = outbox
        self._is_behind = is_behind
        self._watching = watching
        self._metrics = metrics
        self._clock = clock
        self._in_flight: deque[tuple[Item, Future[tuple[Decoded, float]] | None]] = deque()
        self._encoding: deque[_Launched] = deque()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._owned: dict[int, _Owned] = {}
        self._ended: list[Ended] = []
        self._quarantine = Quarantine()
        self._excused = threading.Event()
        self._next_progress_s = 0.0

    def excuse(self) -> None:
        """A server was away: that nothing came says nothing about the cameras. May be called from any thread."""
        self._excused.set()

    def step(self) -> None:
        """Do what can be done now; wait a little if that is nothing."""
        self._fill()
        did_any = self._collect()
        now_s = self._clock()
        self._release_idle(now_s)
        if len(self._encoding) < _ENCODING_DEPTH:
            did_any |= self._launch(now_s)
        did_any |= self._finish(must_wait=len(self._encoding) >= _ENCODING_DEPTH)
        if not did_any:
            self._wait(now_s)
        if now_s >= self._next_progress_s:
            self._next_progress_s = now_s + _PROGRESS_INTERVAL_S
            self._note_counts()
            self._make_progress()
            self._forget_gone(now_s)

    def drain_step(self) -> bool:
        """A step towards finishing what was taken; True once nothing is left.

        What still waits in the backlog is left for the next owner.
        """
        self._collect()
        self._launch(self._clock(), is_final=True)
        if not self._finish(must_wait=True) and (pending := self._pending()):
            wait(pending, timeout=_WAIT_S, return_when="FIRST_COMPLETED")
        if self._in_flight or self._encoding or len(self._batcher):
            return False
        self._make_progress()
        return True

    def close(self) -> None:
        """End the encoder's thread."""
        self._encoder.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while len(self._in_flight) < self._depth and (item := self._backlog.take(0)) is not None:
            self._take(item)
        self._metrics.queue_depth("backlog", len(self._backlog))
        self._metrics.queue_depth("decode", len(self._in_flight))
        self._metrics.queue_depth("batch", len(self._batcher))
        self._metrics.queue_depth("outbox", len(self._outbox))

    def _take(self, item: Item) -> None:
        if not isinstance(item, MediaChunk):
            self._in_flight.append((item, None))
        elif self._quarantine.holds(item.stream, self._clock()):
            error = ChunkError(
                f"chunk not looked at: stream {item.stream!r} sent nothing but bad chunks lately ({item.position}); see"
                " the dead letters before this one",
                reason="quarantine",
            )
            self._in_flight.append((Refused.of(item, error), None))
        else:
            self._in_flight.append((item, self._decode(item)))

    def _wait(self, now_s: float) -> None:
        """Until a chunk is decoded or encoded or arrives, or a batch is due; never long, other things are due too."""
        due_s = self._batcher.due_in_s(now_s)
        limit_s = _WAIT_S if due_s is None else min(_WAIT_S, due_s)
        if pending := self._pending():
            wait(pending, timeout=limit_s, return_when="FIRST_COMPLETED")
        elif (item := self._backlog.take(limit_s)) is not None:
            self._take(item)

    def _pending(self) -> list["Future[Any]"]:
        """What the next step waits for: encoders, and the oldest chunk's decoder."""
        pending: list[Future[Any]] = [launched.tokens for launched in self._encoding]
        if self._in_flight and self._in_flight[0][1] is not None:
            pending.append(self._in_flight[0][1])
        return pending

    def _collect(self) -> bool:
        """Take decoded chunks in the order of arrival, until one is not ready."""
        did_any = False
        while self._in_flight and not self._batcher.is_full:
            item, future = self._in_flight[0]
            if future is not None and not future.done():
                break
            self._in_flight.popleft()
            did_any = True
            if isinstance(item, MediaChunk) and future is not None:
                self._decoded(item, future)
            elif not isinstance(item, MediaChunk):
                self._note(item)
        return did_any

    def _note(self, item: Refused | Skipped | Assigned | Revoked) -> None:
        match item:
            case Assigned(claim=claim):
                self._adopt(claim)
            case Revoked(partition=partition):
                self._drop(partition)
            case Skipped(stream=stream, position=position, reason=reason):
                self._windower.skip(position)
                self._metrics.chunk(stream, f"skipped-{reason}")
                self._watching.missed(stream, position.partition, skipped=1)
                if item.is_last:
                    self._end_session(stream, position.partition)
            case Refused():
                self._bury(item)

    def _decoded(self, chunk: MediaChunk, future: "Future[tuple[Decoded, float]]") -> None:
        try:
            decoded, decode_s = future.result()
        except ChunkError as error:
            self._bury(Refused.of(chunk, error))
            if pause_s := self._quarantine.bad(chunk.stream, self._clock()):
                _log.warning("stream quarantined", stream=chunk.stream, seconds=pause_s)
            return
        self._quarantine.good(chunk.stream)
        now_s = self._clock()
        self._batcher.add(self._windower.push(decoded), now_s)
        self._metrics.stage("decode", decode_s)
        self._tracking.arrived(decoded, decode_s, now_s)
        if chunk.is_last and not self._windower.expects(chunk.stream):
            self._end_session(chunk.stream, chunk.position.partition)

    def _end_session(self, stream: str, partition: int) -> None:
        self._batcher.add(self._windower.flush(stream), self._clock())
        if (ends_us := self._windower.next_us(stream)) is not None:
            self._ended.append(Ended(partition, stream, ends_us))

    def _bury(self, refused: Refused) -> None:
        self._windower.skip(refused.position)
        self._metrics.dead_letter(refused.error.reason)
        self._metrics.chunk(refused.stream, "refused")
        if refused.stream:
            self._watching.missed(refused.stream, refused.position.partition, refused=1)
        if refused.error.reason != "quarantine":
            _log.warning("chunk refused", error=str(refused.error), position=str(refused.position))
        owned = self._owned.get(refused.position.partition)
        if owned is None:
            return
        owned.letters.append(refused)
        owned.letters_bytes += len(refused.value)
        if owned.letters_bytes > _LETTERS_MAX_BYTES:
            self._commit(refused.position.partition, owned.place, Outcome())
        if refused.is_last:
            self._end_session(refused.stream, refused.position.partition)

    def _adopt(self, claim: Claim) -> None:
        self._drop(claim.partition)
        state: Mapping[str, Any] = claim.state or {}
        if state.get("version", STATE_VERSION) != STATE_VERSION:
            raise ContractError(
                f"the state of partition {claim.partition} has version {state['version']!r}, this program reads "
                f"{STATE_VERSION}; let workers of one version own it, or delete its partition:N key to start afresh"
            )
        self._windower.restore(claim.partition, state.get("windows") or {})
        self._tracking.restore(claim.partition, state.get("tracking"), self._clock())
        place = _Place(claim.offsets, self._windower.state(claim.partition))
        self._owned[claim.partition] = _Owned(claim.epoch, place)
        _log.info("partition claimed", partition=claim.partition, epoch=claim.epoch, offsets=dict(claim.offsets))

    def _drop(self, partition: int) -> None:
        if self._owned.pop(partition, None) is None:
            return
        self._batcher.drop(partition)
        self._windower.drop_partition(partition)
        self._ended = [end for end in self._ended if end.partition != partition]
        for stream in self._tracking.drop(partition):
            self._encoder.submit(self._encode.forget, stream)

    def _release_idle(self, now_s: float) -> None:
        """Show what is left of streams that send nothing more, unless more of them lies somewhere on its way here."""
        if self._excused.is_set():
            self._excused.clear()
            self._windower.excuse(now_s)
            self._tracking.excuse(now_s)
        for stream in self._windower.idle(now_s):
            if not self._is_expected(stream):
                self._batcher.add(self._windower.flush(stream), now_s)

    def _is_expected(self, stream: str) -> bool:
        """Chunks of a stream lie in Kafka, in the backlog or with the decoders."""
        partition = self._tracking.partition_of(stream)
        return (
            (partition is not None and self._is_behind(partition))
            or self._backlog.holds(stream)
            or any(isinstance(item, MediaChunk) and item.stream == stream for item, _ in self._in_flight)
        )

    def _launch(self, now_s: float, *, is_final: bool = False) -> bool:
        is_idle = is_final or (not self._in_flight and not self._encoding and not len(self._backlog))
        batch = self._batcher.take(now_s, is_idle=is_idle)
        if batch is None:
            return False
        ended, self._ended = tuple(self._ended), []
        partitions = {window.partition for window in batch.windows} | {end.partition for end in ended}
        epochs = {partition: self._owned[partition].epoch for partition in partitions if partition in self._owned}
        places = {partition: self._place(partition) for partition in epochs}
        tokens = self._encoder.submit(self._encode.encode, batch)
        self._encoding.append(_Launched(batch, tokens, epochs, places, ended, now_s))
        return True

    def _place(self, partition: int) -> _Place:
        return _Place(self._windower.resume(partition), self._windower.state(partition))

    def _finish(self, *, must_wait: bool) -> bool:
        """Align, track and commit the oldest launched batch, if it is encoded."""
        if not self._encoding or not (must_wait or self._encoding[0].tokens.done()):
            return False
        tokens = self._encoding[0].tokens.result()
        launched = self._encoding.popleft()
        encoded_s = self._clock()
        self._metrics.stage("encode", encoded_s - launched.launched_s)
        self._metrics.batch(len(launched.batch.windows), launched.batch.waited_s)
        self._watching.encoded(tokens)
        alignment, prompts = self._align.align(tokens)
        aligned_s = self._clock()
        self._metrics.stage("align", aligned_s - encoded_s)
        for difference in self._align.audit(tokens):
            self._metrics.reuse_error(difference)
        timing = Timing(launched.batch.ready_s, launched.launched_s, encoded_s, aligned_s)
        # A partition that was lost since, even if it was won again: its windows are made again from its state.
        ours = {number for number, epoch in launched.epochs.items() if self._holds(number, epoch)}
        ended = [end for end in launched.ended if end.partition in ours]
        outcomes = self._tracking.observe(tokens, alignment, prompts, timing, ours, ended)
        self._metrics.stage("track", self._clock() - aligned_s)
        for partition in sorted(ours):
            self._commit(partition, launched.places[partition], outcomes.get(partition, Outcome()))
        return True

    def _holds(self, partition: int, epoch: int) -> bool:
        owned = self._owned.get(partition)
        return owned is not None and owned.epoch == epoch

    def _note_counts(self) -> None:
        for stream, counts in self._windower.drain_counts().items():
            for result, count in (("duplicate", counts.duplicates), ("late", counts.late), ("forced", counts.forced)):
                if count:
                    self._metrics.chunk(stream, result, count)
            if counts.gaps:
                self._metrics.gap(stream, counts.gaps)
                self._watching.missed(stream, -1, gaps=counts.gaps)

    def _make_progress(self) -> None:
        """Commit offsets that moved although no window came of it, sessions' ends and events about silent cameras."""
        busy = {window.partition for launched in self._encoding for window in launched.batch.windows}
        busy |= self._batcher.partitions | {end.partition for launched in self._encoding for end in launched.ended}
        outcomes = self._tracking.silent(self._clock(), self._is_expected)
        if not busy:
            ended, self._ended = self._ended, []
            self._tracking.finish(ended, self._align.prompts, outcomes)
        for partition, owned in self._owned.items():
            # While windows are under way their commits will say how far it is; until then it stands where it stood.
            place = owned.place if partition in busy else self._place(partition)
            outcome = outcomes.get(partition, Outcome())
            if outcome.events or owned.letters or (place.offsets and place.offsets != owned.place.offsets):
                self._commit(partition, place, outcome)

    def _forget_gone(self, now_s: float) -> None:
        """Memory follows the streams that live."""
        for stream in self._tracking.gone(now_s):
            self._windower.forget(stream)
            self._batcher.forget(stream)
            self._encoder.submit(self._encode.forget, stream)

    def _commit(self, partition: int, place: _Place, outcome: Outcome) -> None:
        owned = self._owned[partition]
        letters, owned.letters, owned.letters_bytes = tuple(owned.letters), [], 0
        owned.place = place
        state = {"version": STATE_VERSION, "windows": place.windows, "tracking": self._tracking.state(partition)}
        self._outbox.put(
            Commit(
                partition,
                owned.epoch,
                dict(place.offsets),
                state,
                self._clock(),
                tuple(outcome.events),
                outcome.sketches,
                letters,
            )
        )
