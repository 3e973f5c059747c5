"""Time stamps of a source, put right, and what they mean in capture time."""

from dataclasses import dataclass
from typing import Any, Final

from av.packet import Packet

JUMP_BACK_US: Final = 5_000_000
JUMP_AHEAD_US: Final = 30_000_000  # generous: a time lapse may show one picture in ten seconds
DRIFT_US: Final = 5_000_000  # a camera's clock may part from ours by this much before it is set again


@dataclass(slots=True, eq=False)
class Sample:
    """A packet with its place in media time, microseconds since the start of the session.

    Attributes:
        packet: Untouched, so that it can still be decoded.
        is_picture: Otherwise sound.
        pts_us: When it is shown.
        dts_us: When it is decoded; strictly ascending within a stream.
        duration_us: Measured or guessed.
        shift_us: What was added to the packet's own time.
        arrival_us: When we got it, microseconds since 1970 UTC.
    """

    packet: "Packet[Any]"
    is_picture: bool
    pts_us: int
    dts_us: int
    duration_us: int
    shift_us: int
    arrival_us: int

    @property
    def end_us(self) -> int:
        """When it ends."""
        return self.pts_us + self.duration_us


class Timeline:
    """Gives every packet a place in one media time that never jumps: gaps and steps back in a source are closed.

    Args:
        by_arrival: The source has no usable time stamps; count from arrival.
    """

    def __init__(self, *, by_arrival: bool = False) -> None:
        self._by_arrival = by_arrival
        self._shift_us: int | None = None
        self._begin_us = 0
        self._base_us: int | None = None
        self._newest_us = 0
        self._last: dict[int, tuple[int, int]] = {}  # stream index -> dts, duration

    def begin(self, at_us: int, base_us: int | None) -> None:
        """The source starts (over): its time ``base_us``, or that of the next packet, lies at ``at_us``."""
        self._begin_us = at_us
        self._base_us = base_us
        self._shift_us = None

    def place(self, packet: "Packet[Any]", *, is_picture: bool, arrival_us: int) -> Sample | None:
        """Where a packet lies; None for one without bytes."""
        if not packet.size:
            return None
        last = self._last.get(packet.stream_index)
        duration_us = _us(packet.duration or 0, packet)
        raw_pts_us, raw_dts_us = self._raw(packet, arrival_us, last)
        if self._shift_us is None:
            base_us = raw_pts_us if self._base_us is None else self._base_us
            self._shift_us = self._begin_us - base_us
        else:
            # A stream that begins later is held against the newest of the others.
            expected_us = last[0] + last[1] if last is not None else self._newest_us
            ahead_us = raw_dts_us + self._shift_us - expected_us
            if not -JUMP_BACK_US <= ahead_us <= JUMP_AHEAD_US:
                self._shift_us = expected_us - raw_dts_us
        dts_us = raw_dts_us + self._shift_us
        if last is not None:
            if not duration_us:
                duration_us = max(0, min(dts_us - last[0], 1_000_000)) or last[1]
            dts_us = max(dts_us, last[0] + 1)
        self._last[packet.stream_index] = (dts_us, duration_us)
        self._newest_us = dts_us
        pts_us = max(raw_pts_us + self._shift_us, dts_us)
        return Sample(packet, is_picture, pts_us, dts_us, duration_us, self._shift_us, arrival_us)

    def _raw(self, packet: "Packet[Any]", arrival_us: int, last: tuple[int, int] | None) -> tuple[int, int]:
        pts = packet.pts if packet.pts is not None else packet.dts
        if self._by_arrival:
            return arrival_us, arrival_us
        if pts is None:
            shift_us = self._shift_us or 0
            guess_us = last[0] + last[1] - shift_us if last is not None else self._begin_us - shift_us
            return guess_us, guess_us
        return _us(pts, packet), _us(packet.dts if packet.dts is not None else pts, packet)


class CaptureClock:
    """Media time to capture time.

    Without a start it follows a live source: its time is set from the packets that came earliest for their time
    stamp, because what a camera sends in a burst when we connect is older than its arrival. It is set again, and says
    so, when the source's clock has parted from ours by `DRIFT_US`.

    Args:
        start_us: Capture time of media time 0, or None for a live source.
    """

    def __init__(self, start_us: int | None) -> None:
        self._is_live = start_us is None
        self._anchor_us = start_us
        self._earliest_us: int | None = None

    def observe(self, sample: Sample) -> None:
        """A packet came."""
        if self._is_live:
            lead_us = sample.arrival_us - sample.pts_us
            self._earliest_us = lead_us if self._earliest_us is None else min(self._earliest_us, lead_us)

    def set_again(self) -> bool:
        """Judge what was observed since the last call; True if the clock had to be set again."""
        earliest_us, self._earliest_us = self._earliest_us, None
        if not self._is_live or earliest_us is None:
            return False
        if self._anchor_us is None:
            self._anchor_us = earliest_us
            return False
        if abs(earliest_us - self._anchor_us) <= DRIFT_US:
            return False
        self._anchor_us = earliest_us
        return True

    def capture_us(self, media_us: int) -> int:
        """Capture time of a media time; `set_again` comes first."""
        return (self._anchor_us or 0) + media_us


def _us(ticks: int, packet: "Packet[Any]") -> int:
    base = packet.time_base
    return ticks * 1_000_000 * base.numerator // base.denominator
