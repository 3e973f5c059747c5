"""Windows of many streams into one batch: flush by size or by deadline."""

from collections.abc import Sequence

from streamer.types import Batch, Window


class Batcher:
    """Collects windows until they are worth a batch. Not thread-safe: one stage owns it.

    A window counts as the frames that no earlier window of its stream had, for only those are encoded.
    """

    def __init__(self, max_frames: int, max_wait_s: float) -> None:
        self._max_frames = max_frames
        self._max_wait_s = max_wait_s
        self._windows: list[Window] = []
        self._ready_s: list[float] = []
        self._frames = 0
        self._counted_until_us: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def partitions(self) -> set[int]:
        """Partitions whose windows wait."""
        return {window.partition for window in self._windows}

    @property
    def is_full(self) -> bool:
        """A batch's worth waits: whoever adds should stop, for `take` gives all of it."""
        return self._frames >= self._max_frames or len(self._windows) >= self._max_frames

    def add(self, windows: Sequence[Window], now_s: float) -> None:
        """Queue windows, which wait from ``now_s`` on (monotonic seconds)."""
        for window in windows:
            counted_us = self._counted_until_us.get(window.stream, -1)
            self._frames += int((window.times_us > counted_us).sum())
            self._counted_until_us[window.stream] = max(counted_us, window.end_us - 1)
            self._windows.append(window)
            self._ready_s.append(now_s)

    def take(self, now_s: float, *, is_idle: bool = False) -> Batch | None:
        """The next batch if it is full, or overdue, or if waiting is in vain.

        Args:
            now_s: Monotonic seconds.
            is_idle: Nothing is on its way here, so waiting would bring no company.
        """
        if not self._windows:
            return None
        waited_s = now_s - self._ready_s[0]
        if not self.is_full and waited_s < self._max_wait_s and not is_idle:
            return None
        batch = Batch(windows=tuple(self._windows), waited_s=max(0.0, waited_s), ready_s=tuple(self._ready_s))
        self._windows.clear()
        self._ready_s.clear()
        self._frames = 0
        return batch

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until `take` gives what waits now, None if nothing waits."""
        return max(0.0, self._ready_s[0] + self._max_wait_s - now_s) if self._ready_s else None

    def drop(self, partition: int) -> None:
        """Forget what waits for a partition that another worker owns now."""
        for window in self._windows:
            if window.partition == partition:  # its next owner, perhaps we, begins at these windows again
                self._counted_until_us.pop(window.stream, None)
        kept = [pair for pair in zip(self._windows, self._ready_s, strict=True) if pair[0].partition != partition]
        self._windows = [window for window, _ in kept]
        self._ready_s = [ready_s for _, ready_s in kept]

    def forget(self, stream: str) -> None:
        """Forget a stream that has ended, so that memory follows the streams that live."""
        self._counted_until_us.pop(stream, None)
