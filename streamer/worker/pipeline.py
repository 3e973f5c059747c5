"""The batch loop: decoded chunks become windows, batches, tokens, confidences and events, one after the other."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import structlog

from streamer.align import AlignStage, PromptSet
from streamer.backlog import Assigned, Backlog, Item, Refused, Revoked, Skipped
from streamer.batch import Batcher
from streamer.encode import EncodeStage
from streamer.errors import ChunkError, ContractError
from streamer.metrics import Metrics
from streamer.types import Batch, Claim, Decoded, MediaChunk, Offsets, Tokens
from streamer.window import Windower
from streamer.worker.dead_letters import DeadLetters
from streamer.worker.outbox import Commit, Outbox
from streamer.worker.tracking import Outcome, Timing, Tracking
from streamer.worker.watching import Watching

_log = structlog.get_logger(__name__)
_PROGRESS_INTERVAL_S = 0.5  # offsets that moved without a window are committed this often
_ENCODING_DEPTH = 2  # one batch on the device, the next one ready for it
_WAIT_S = 0.02
STATE_VERSION = 1


@dataclass(slots=True)
class _Owned:
    """A partition of ours, and what its next commit must carry."""

    epoch: int
    committed: Offsets
    letters: list["Future[Any]"] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Launched:
    """A batch on its way through the encoders.

    Attributes:
        places: Partition to the offsets and the windower's state as of this batch: all windows released by then
            are in this batch or in an earlier one.
        ended: Partition and stream of sessions that ended with this batch.
    """

    batch: Batch
    tokens: "Future[Tokens]"
    places: Mapping[int, tuple[Offsets, Any]]
    ended: tuple[tuple[int, str], ...]
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
        letters: The dead-letter topic.
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
        letters: DeadLetters,
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
        self._letters = letters
        self._watching = watching
        self._metrics = metrics
        self._clock = clock
        self._in_flight: deque[tuple[Item, Future[tuple[Decoded, float]] | None]] = deque()
        self._encoding: deque[_Launched] = deque()
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._owned: dict[int, _Owned] = {}
        self._ended: list[tuple[int, str]] = []
        self._next_progress_s = 0.0

    def step(self) -> None:
        """Do what can be done now; wait a little if that is nothing."""
        self._fill()
        did_any = self._collect()
        now_s = self._clock()
        for stream in self._windower.idle(now_s):
            self._batcher.add(self._windower.flush(stream), now_s)
        if len(self._encoding) < _ENCODING_DEPTH:
            did_any |= self._launch(now_s)
        did_any |= self._finish(must_wait=len(self._encoding) >= _ENCODING_DEPTH)
        if not did_any:
            self._wait(now_s)
        if now_s >= self._next_progress_s:
            self._next_progress_s = now_s + _PROGRESS_INTERVAL_S
            self._note_counts()
            self._make_progress()

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
        self._in_flight.append((item, self._decode(item) if isinstance(item, MediaChunk) else None))

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
        while self._in_flight and len(self._batcher) < self._depth:
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
            case Refused():
                self._bury(item)

    def _decoded(self, chunk: MediaChunk, future: "Future[tuple[Decoded, float]]") -> None:
        try:
            decoded, decode_s = future.result()
        except ChunkError as error:
            self._bury(Refused.of(chunk, error))
            return
        now_s = self._clock()
        windows = self._windower.push(decoded)
        if chunk.is_last:
            windows += self._windower.flush(chunk.stream)
            self._ended.append((chunk.position.partition, chunk.stream))
        self._batcher.add(windows, now_s)
        self._metrics.stage("decode", decode_s)
        self._tracking.arrived(decoded, decode_s, now_s)

    def _bury(self, refused: Refused) -> None:
        owned = self._owned.get(refused.position.partition)
        self._windower.skip(refused.position)
        self._metrics.dead_letter(refused.error.reason)
        self._metrics.chunk(refused.stream, "refused")
        if refused.stream:
            self._watching.missed(refused.stream, refused.position.partition, refused=1)
        _log.warning("chunk refused", error=str(refused.error), position=str(refused.position))
        if owned is not None:
            owned.letters.append(self._letters.send(refused))

    def _adopt(self, claim: Claim) -> None:
        self._drop(claim.partition)
        self._owned[claim.partition] = _Owned(claim.epoch, claim.offsets)
        state: Mapping[str, Any] = claim.state or {}
        if state.get("version", STATE_VERSION) != STATE_VERSION:
            raise ContractError(
                f"the state of partition {claim.partition} has version {state['version']!r}, this program reads "
                f"{STATE_VERSION}; let workers of one version own it, or delete its partition:N key to start afresh"
            )
        self._windower.restore(claim.partition, state.get("windows") or {})
        self._tracking.restore(claim.partition, state.get("tracking"), self._clock())
        _log.info("partition claimed", partition=claim.partition, epoch=claim.epoch, offsets=dict(claim.offsets))

    def _drop(self, partition: int) -> None:
        if self._owned.pop(partition, None) is None:
            return
        self._batcher.drop(partition)
        self._windower.drop_partition(partition)
        for stream in self._tracking.drop(partition):
            self._encoder.submit(self._encode.forget, stream)

    def _launch(self, now_s: float, *, is_final: bool = False) -> bool:
        is_idle = is_final or (not self._in_flight and not self._encoding and not len(self._backlog))
        batch = self._batcher.take(now_s, is_idle=is_idle)
        if batch is None:
            return False
        ended, self._ended = tuple(self._ended), []
        places = {
            partition: (self._windower.resume(partition), self._windower.state(partition))
            for partition in {window.partition for window in batch.windows} | {partition for partition, _ in ended}
            if partition in self._owned
        }
        tokens = self._encoder.submit(self._encode.encode, batch)
        self._encoding.append(_Launched(batch, tokens, places, ended, now_s))
        return True

    def _finish(self, *, must_wait: bool) -> bool:
        """Align, track and commit the oldest launched batch, if it is encoded."""
        if not self._encoding or not (must_wait or self._encoding[0].tokens.done()):
            return False
        launched = self._encoding[0]
        tokens = launched.tokens.result()
        self._encoding.popleft()
        encoded_s = self._clock()
        self._metrics.stage("encode", encoded_s - launched.launched_s)
        self._metrics.batch(len(launched.batch.windows), launched.batch.waited_s)
        alignment, prompts = self._align.align(tokens)
        aligned_s = self._clock()
        self._metrics.stage("align", aligned_s - encoded_s)
        timing = Timing(launched.batch.ready_s, launched.launched_s, encoded_s, aligned_s)
        outcomes = self._tracking.observe(tokens, alignment, prompts, timing)
        self._end(launched.ended, prompts, outcomes)
        self._metrics.stage("track", self._clock() - aligned_s)
        for partition, (offsets, windows) in launched.places.items():
            self._commit(partition, offsets, windows, outcomes.get(partition, Outcome()))
        return True

    def _end(self, ended: Sequence[tuple[int, str]], prompts: PromptSet, outcomes: dict[int, Outcome]) -> None:
        """Close what is open on streams whose session ended."""
        for partition, stream in ended:
            if partition in self._owned:
                events = self._tracking.finish(partition, stream, prompts)
                outcomes.setdefault(partition, Outcome()).events.extend(events)

    def _note_counts(self) -> None:
        for stream, counts in self._windower.drain_counts().items():
            for result, count in (("duplicate", counts.duplicates), ("late", counts.late), ("forced", counts.forced)):
                for _ in range(count):
                    self._metrics.chunk(stream, result)
            if counts.gaps:
                self._metrics.gap(stream, counts.gaps)
                self._watching.missed(stream, -1, gaps=counts.gaps)

    def _make_progress(self) -> None:
        """Commit offsets that moved although no window came of it, and events about silent cameras."""
        if self._encoding or len(self._batcher):
            return  # those windows' commits will say it
        silent = self._tracking.silent(self._clock())
        for partition, owned in self._owned.items():
            offsets = self._windower.resume(partition)
            outcome = silent.get(partition, Outcome())
            if outcome.events or (offsets and offsets != owned.committed):
                self._commit(partition, offsets, self._windower.state(partition), outcome)

    def _commit(self, partition: int, offsets: Offsets, windows: Any, outcome: Outcome) -> None:
        owned = self._owned.get(partition)
        if owned is None:
            return  # lost while the batch was being encoded
        letters, owned.letters = tuple(owned.letters), []
        owned.committed = dict(offsets)
        state = {"version": STATE_VERSION, "windows": windows, "tracking": self._tracking.state(partition)}
        self._outbox.put(
            Commit(
                partition,
                owned.epoch,
                offsets,
                state,
                self._clock(),
                tuple(outcome.events),
                outcome.snapshots,
                letters,
            )
        )
