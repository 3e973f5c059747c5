"""What the pipeline decided, on its way to Redis: in order, retried until it is written, off the batch loop."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from streamer.backlog import Refused
from streamer.emit import Emitter
from streamer.errors import FencedError, UnavailableError
from streamer.events import Event
from streamer.redis_client import Backoff
from streamer.types import Offsets
from streamer.worker.dead_letters import DeadLetters
from streamer.worker.sketches import Artists, Drawn, Sketch

_log = structlog.get_logger(__name__)
_DRAWN_AHEAD = 8  # commits whose snapshots may be drawn while earlier ones are written


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """One partition's step forward.

    Attributes:
        partition: Kafka partition number.
        epoch: The claim it was made under.
        offsets: Topic to next offset.
        state: What a successor needs to go on.
        made_s: When it was put together, monotonic seconds.
        events: In order.
        sketches: Event id to what its snapshot shows; drawn here, off the batch loop.
        dead: Chunks that must be in the dead-letter topic before the offsets may pass them.
    """

    partition: int
    epoch: int
    offsets: Offsets
    state: Mapping[str, Any]
    made_s: float
    events: tuple[Event, ...] = ()
    sketches: Mapping[str, Sketch] = field(default_factory=dict)
    dead: tuple[Refused, ...] = ()

    def latencies_s(self, now_s: float) -> list[float]:
        """Capture to commit of each event that carries pictures or sound, at ``now_s`` (monotonic seconds)."""
        return [
            event.latency.capture_to_event_s + max(0.0, now_s - self.made_s)
            for event in self.events
            if event.media is not None
        ]


class Outbox:
    """A bounded queue of commits and the thread that writes them.

    Args:
        emitter: Writes to Redis.
        letters: Writes to the dead-letter topic.
        depth: Commits that may wait; `put` blocks beyond, which stops the pipeline, which fills the backlog.
        on_written: Called after each commit with its duration in seconds.
        on_lost: Called with a partition and the epoch under which it was held, when another worker owns it now.
        on_away: Called with True when Redis cannot be reached, with False when it can again.
    """

    def __init__(
        self,
        emitter: Emitter,
        letters: DeadLetters,
        *,
        depth: int,
        on_written: Callable[[Commit, float], None],
        on_lost: Callable[[int, int], None],
        on_away: Callable[[bool], None],
    ) -> None:
        self._emitter = emitter
        self._letters = letters
        self._queue: queue.Queue[tuple[Commit, Drawn | None] | None] = queue.Queue(depth)
        self._artists = Artists()
        self._on_written = on_written
        self._on_lost = on_lost
        self._on_away = on_away
        self._abandon = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def __len__(self) -> int:
        return self._queue.qsize()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, commit: Commit) -> None:
        """Queue a commit; blocks while too many wait, gives up when the outbox is abandoned."""
        # While Redis is away pictures must not pile up: they are drawn when their turn comes.
        drawn = self._artists.draw(commit.sketches) if self._queue.qsize() < _DRAWN_AHEAD else None
        while not self._abandon.is_set():
            try:
                self._queue.put((commit, drawn), timeout=0.2)
            except queue.Full:
                continue
            return

    def close(self, timeout_s: float) -> bool:
        """Write what waits, then end. False if that took too long: what is left is read again by the next owner."""
        deadline_s = time.monotonic() + timeout_s
        while self._thread.is_alive() and time.monotonic() < deadline_s:
            try:
                self._queue.put(None, timeout=0.2)
                break
            except queue.Full:
                continue
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        is_done = not self._thread.is_alive()
        self._abandon.set()
        return is_done

    def abandon(self) -> None:
        """Leave now. Nothing is lost: what was not committed is read again."""
        self._abandon.set()

    def _run(self) -> None:
        try:
            while not self._abandon.is_set():
                try:
                    item = self._queue.get(timeout=0.2)
                except queue.Empty:
                    continue
                if item is None:
                    return
                self._write(*item)
        except BaseException as error:  # noqa: BLE001  # kept for the worker, which raises it
            self.failure = error
            self._abandon.set()
        finally:
            self._artists.close()

    def _write(self, commit: Commit, drawn: Drawn | None) -> None:
        if self._bury(commit):
            self._commit(commit, self._artists.draw(commit.sketches) if drawn is None else drawn)

    def _bury(self, commit: Commit) -> bool:
        """Have the dead letters arrive; False if the outbox was abandoned before."""
        backoff = Backoff()
        while commit.dead and not self._abandon.is_set():
            try:
                self._letters.deliver(commit.dead, self._abandon)
                break
            except UnavailableError as error:
                _log.warning("dead letters wait", partition=commit.partition, error=str(error))
                self._abandon.wait(backoff.next_s())
        return not self._abandon.is_set()

    def _commit(self, commit: Commit, drawn: Drawn) -> None:
        backoff = Backoff()
        is_away = False
        while not self._abandon.is_set():
            started_s = time.monotonic()
            try:
                for part in drawn:
                    self._emitter.write_snapshots(part.result())
                self._emitter.commit(commit.partition, commit.epoch, commit.offsets, commit.state, commit.events)
            except FencedError as error:
                _log.info("partition lost", partition=commit.partition, error=str(error))
                self._on_lost(commit.partition, commit.epoch)
                break
            except UnavailableError as error:
                if not is_away:
                    _log.warning("commit waits", partition=commit.partition, error=str(error))
                    self._on_away(True)
                is_away = True
                self._abandon.wait(backoff.next_s())
                continue
            self._on_written(commit, time.monotonic() - started_s)
            break
        if is_away:
            self._on_away(False)
