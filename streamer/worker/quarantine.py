"""Streams that send nothing but bad chunks cost a decoder's time for nothing: for a while they are not decoded."""

from dataclasses import dataclass

_PATIENCE = 5  # bad chunks in a row
_FIRST_S = 2.0
_LONGEST_S = 300.0
_MAX_STREAMS = 4096


@dataclass(slots=True)
class _Record:
    bad: int = 0
    pause_s: float = _FIRST_S
    until_s: float = 0.0


class Quarantine:
    """Counts bad chunks in a row by stream; each time a stream fails again after its pause, the pause doubles."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def holds(self, stream: str, now_s: float) -> bool:
        """Its chunks are not to be decoded now."""
        record = self._records.get(stream)
        return record is not None and now_s < record.until_s

    def bad(self, stream: str, now_s: float) -> float | None:
        """A chunk was refused after it was looked at.

        Returns:
            For how many seconds the stream is quarantined, if that begins now.
        """
        record = self._records.pop(stream, None) or _Record()
        self._records[stream] = record  # the newest last: the oldest is forgotten first
        while len(self._records) > _MAX_STREAMS:
            del self._records[next(iter(self._records))]
        record.bad += 1
        if record.bad < _PATIENCE or now_s < record.until_s:
            return None
        pause_s, record.pause_s = record.pause_s, min(_LONGEST_S, 2 * record.pause_s)
        record.until_s = now_s + pause_s
        return pause_s

    def good(self, stream: str) -> None:
        """A chunk was decoded: all is forgiven."""
        self._records.pop(stream, None)
