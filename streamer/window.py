"""Frames and sound of each stream into windows on the stream's own grid, and the offsets that they still need.

chunks     |--a--|--b--|--c--|--d--|        phase = start of a, modulo the hop
window 0   [-----------)
window 1         [-----------)              complete as soon as every modality reaches its end
resume()         ^ b, once window 0 is out: window 1 begins there
"""

from collections.abc import Callable
from typing import Any, Final

from streamer.joiner import Counts, Rules, StreamJoin
from streamer.types import Decoded, Position, Window

_MAX_BYTES: Final = 256 * 1024 * 1024  # of one stream's pixels, sound and payloads


class Windower:
    """Joins what streams sent into windows. Not thread-safe; one a worker.

    Chunks of one partition and topic come in the order of their offsets; different topics may come in any order.

    Args:
        span_s: A window's length.
        hop_s: And its step.
        join_wait_s: How far one modality may run ahead of the other before windows stop waiting for it.
        idle_flush_s: A stream that sends nothing for this long is named by `idle`.
        clock: Monotonic seconds.
        max_bytes: What one stream may hold; over it the oldest windows go out as they are.
    """

    def __init__(
        self,
        span_s: float,
        hop_s: float,
        join_wait_s: float,
        idle_flush_s: float,
        clock: Callable[[], float],
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._rules = Rules(
            span_us=round(span_s * 1_000_000),
            hop_us=round(hop_s * 1_000_000),
            join_wait_us=round(join_wait_s * 1_000_000),
            max_bytes=max_bytes,
        )
        self._idle_flush_s = idle_flush_s
        self._clock = clock
        self._streams: dict[str, StreamJoin] = {}
        self._pushed_s: dict[str, float] = {}
        self._next: dict[int, dict[str, int]] = {}  # partition -> topic -> the offset after the last one
        self._before: dict[int, dict[str, int]] = {}  # the same, as restored: what lies before it comes again
        self._counts: dict[str, Counts] = {}

    def push(self, decoded: Decoded) -> list[Window]:
        """Take what a chunk held; give the windows that it completes, oldest first."""
        position = decoded.chunk.position
        name = decoded.chunk.stream
        self._advance(position)
        self._pushed_s[name] = self._clock()
        stream = self._streams.get(name)
        if stream is None or stream.partition != position.partition:
            stream = StreamJoin(self._rules, name, position.partition, decoded.start_us)
            self._streams[name] = stream
        is_replay = position.offset < self._before.get(position.partition, {}).get(position.topic, 0)
        return stream.push(decoded, self._counts.setdefault(name, Counts()), is_replay=is_replay)

    def skip(self, position: Position) -> None:
        """Pass over a chunk that will never come: a dead letter, or one left out under overload."""
        self._advance(position)

    def flush(self, stream: str) -> list[Window]:
        """End a stream's session: give what no window has shown yet, complete or not, and forget the content."""
        join = self._streams.get(stream)
        return join.flush() if join is not None else []

    def idle(self, now_s: float) -> list[str]:
        """Streams that hold content and have sent nothing for a while; `flush` them."""
        return [
            name
            for name, join in self._streams.items()
            if join.holds_content and now_s - self._pushed_s[name] >= self._idle_flush_s
        ]

    def expects(self, stream: str) -> bool:
        """Its session goes on: a topic has sent chunks of it and not the last one."""
        join = self._streams.get(stream)
        return join is not None and join.is_open

    def next_us(self, stream: str) -> int | None:
        """Where its next window begins at the earliest; None: nothing is known of it."""
        join = self._streams.get(stream)
        return None if join is None else join.next_us

    def excuse(self, now_s: float) -> None:
        """Nobody listened until now: no stream has been idle."""
        self._pushed_s = dict.fromkeys(self._pushed_s, now_s)

    def forget(self, stream: str) -> None:
        """A stream is gone for good, and its grid with it."""
        self._streams.pop(stream, None)
        self._pushed_s.pop(stream, None)

    def resume(self, partition: int) -> dict[str, int]:
        """By topic, the offset from which a replay makes every window that is not out yet."""
        offsets = dict(self._next.get(partition, {}))
        for join in self._streams.values():
            if join.partition == partition:
                for topic, offset in join.needed().items():
                    offsets[topic] = min(offset, offsets.get(topic, offset))
        return offsets

    def drain_counts(self) -> dict[str, Counts]:
        """What was dropped, missed and forced since the last call, by stream."""
        drained = {name: counts for name, counts in self._counts.items() if counts.any}
        self._counts = {}
        return drained

    def drop_partition(self, partition: int) -> None:
        """Forget a partition that another worker owns now."""
        for name in [name for name, join in self._streams.items() if join.partition == partition]:
            del self._streams[name]
            self._pushed_s.pop(name, None)
        self._next.pop(partition, None)
        self._before.pop(partition, None)

    def state(self, partition: int) -> dict[str, Any]:
        """What `restore` needs beside a replay from `resume`: grids, what is out, and offsets. Plain JSON."""
        streams = {name: join.state() for name, join in self._streams.items() if join.partition == partition}
        return {"streams": streams, "next": dict(self._next.get(partition, {}))}

    def restore(self, partition: int, state: dict[str, Any]) -> None:
        """Go on where a `state` was taken; the chunks from its `resume` on are to be pushed again."""
        self.drop_partition(partition)
        self._before[partition] = dict(state.get("next", {}))
        for name, saved in state.get("streams", {}).items():
            self._streams[name] = StreamJoin.restored(self._rules, name, partition, saved)
            self._pushed_s[name] = self._clock()

    def _advance(self, position: Position) -> None:
        topics = self._next.setdefault(position.partition, {})
        topics[position.topic] = max(position.offset + 1, topics.get(position.topic, 0))
