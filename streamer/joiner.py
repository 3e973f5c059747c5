"""One stream's content, its grid, and the rule by which a window is complete. See `streamer.window`."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamer.soundtrack import BRIDGED_SAMPLES, SoundTrack, sample_at
from streamer.types import SAMPLE_RATE_HZ, THUMB_SIDE, Decoded, MediaChunk, Window

_BRIDGED_US: Final = BRIDGED_SAMPLES * 1_000_000 // SAMPLE_RATE_HZ
_ROUNDED_US = 1_000  # clocks of containers and resamplers round: for less a window doesn't wait for another chunk
_SESSIONS: Final = 8  # whose counters are remembered


@dataclass(slots=True)
class Counts:
    """What happened to a stream's chunks."""

    duplicates: int = 0
    gaps: int = 0
    late: int = 0
    forced: int = 0

    @property
    def any(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.duplicates or self.gaps or self.late or self.forced)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules, the same for all streams.

    Attributes:
        span_us: A window's length.
        hop_us: Its step.
        join_wait_us: How far one modality may run ahead of the other.
        max_bytes: What one stream may hold.
    """

    span_us: int
    hop_us: int
    join_wait_us: int
    max_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A chunk that a window may still show."""

    chunk: MediaChunk
    content_end_us: int
    useful_until_us: int  # a little more: the sound after it is joined to it
    size_bytes: int


@dataclass(slots=True, eq=False)
class StreamJoin:
    """What a stream has sent and no window can do without yet.

    Attributes:
        rules: Of the windows.
        name: Stream id.
        partition: Kafka partition number.
        next_us: Start of the next window, and so the grid; nothing before it is of use.
        picture_until_us: How far pictures reach; None: the stream has shown none of late.
        sound_until_us: The same for sound.
        shown_until_us: End of the last window that went out of the content at hand.
    """

    rules: Rules
    name: str
    partition: int
    next_us: int
    picture_until_us: int | None = None
    sound_until_us: int | None = None
    shown_until_us: int | None = None
    _times_us: list[int] = field(default_factory=list)
    _frames: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = field(default_factory=list)  # pixels, thumb
    _track: SoundTrack = field(default_factory=SoundTrack)
    _held: list[_Held] = field(default_factory=list)
    _open_topics: set[str] = field(default_factory=set)
    _last_seq: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)

    @classmethod
    def restored(cls, rules: Rules, name: str, partition: int, saved: Mapping[str, Any]) -> Self:
        """Go on after the last window that went out."""
        join = cls(rules, name, partition, int(saved["next_us"]))
        join.picture_until_us = saved["picture_until_us"]
        join.sound_until_us = saved["sound_until_us"]
        join.shown_until_us = saved["shown_until_us"]
        join._open_topics.update(saved["topics"])
        return join

    def state(self) -> dict[str, Any]:
        """What `restored` needs. Coverage ends where the replay begins: what lies beyond is pushed again."""
        reach = {"picture_until_us": self.picture_until_us, "sound_until_us": self.sound_until_us}
        return {
            "next_us": self.next_us,
            "shown_until_us": self.shown_until_us,
            "topics": sorted(self._open_topics),
            **{key: None if until is None else min(until, self.next_us) for key, until in reach.items()},
        }

    @property
    def holds_content(self) -> bool:
        """Whether any chunk is still of use."""
        return bool(self._held)

    @property
    def is_open(self) -> bool:
        """A topic has sent chunks and not said which is the last."""
        return bool(self._open_topics)

    def needed(self) -> dict[str, int]:
        """By topic, the smallest offset of a chunk that is still of use."""
        offsets: dict[str, int] = {}
        for held in self._held:
            position = held.chunk.position
            offsets[position.topic] = min(position.offset, offsets.get(position.topic, position.offset))
        return offsets

    def push(self, decoded: Decoded, counts: Counts, *, is_replay: bool) -> list[Window]:
        """Take a chunk's content; give the windows that it completes, oldest first."""
        chunk = decoded.chunk
        if self._is_repeat(chunk, counts):
            return []
        self._open_topics.add(chunk.position.topic)
        self._reach(decoded)
        if max(decoded.end_us, _content_end_us(decoded) + _BRIDGED_US) <= self.next_us:
            counts.late += not is_replay
        else:
            self._take(decoded)
        windows = self._release(counts)
        if chunk.is_last:
            self._open_topics.discard(chunk.position.topic)
            if not self._open_topics:
                windows += self.flush()
        return windows

    def flush(self) -> list[Window]:
        """Give windows until everything was shown once, then forget the content and what modalities there were."""
        windows = []
        while (unseen_us := self._first_content_us(self.shown_until_us)) is not None:
            windows += self._emit(self._start_for(unseen_us))
        self._times_us.clear()
        self._frames.clear()
        self._track = SoundTrack()
        self._held.clear()
        self._open_topics.clear()
        self.picture_until_us = self.sound_until_us = self.shown_until_us = None
        return windows

    def _is_repeat(self, chunk: MediaChunk, counts: Counts) -> bool:
        """Keep the counter of the chunk's session."""
        if chunk.seq is None:
            return False
        key = (chunk.position.topic, chunk.session)
        last = self._last_seq.get(key)
        if last is not None and chunk.seq <= last:
            counts.duplicates += 1
            return True
        if last is not None:
            counts.gaps += chunk.seq - last - 1
        self._last_seq[key] = chunk.seq
        self._last_seq.move_to_end(key)
        while len(self._last_seq) > _SESSIONS:
            self._last_seq.popitem(last=False)
        return False

    def _reach(self, decoded: Decoded) -> None:
        """Note how far each modality has come; a late chunk, too, tells that there is one to wait for."""
        if decoded.has_picture:
            self.picture_until_us = _further(self.picture_until_us, decoded.picture_end_us)
        if decoded.samples.size:
            self.sound_until_us = _further(self.sound_until_us, _sound_end_us(decoded))

    def _take(self, decoded: Decoded) -> None:
        for place, at_us in enumerate(decoded.times_us.tolist()):
            if at_us >= self.next_us:
                self._add_frame(at_us, decoded.pixels[place], decoded.thumbs[place])
        if decoded.samples.size:
            self._track.add(sample_at(decoded.samples_start_us), decoded.samples)
        content_end_us = _content_end_us(decoded)
        if content_end_us + _BRIDGED_US > self.next_us:
            size_bytes = decoded.pixels.nbytes + decoded.samples.nbytes + len(decoded.chunk.payload)
            self._held.append(_Held(decoded.chunk, content_end_us, content_end_us + _BRIDGED_US, size_bytes))

    def _add_frame(self, at_us: int, pixels: NDArray[np.uint8], thumb: NDArray[np.uint8]) -> None:
        place = bisect_left(self._times_us, at_us)
        if place < len(self._times_us) and self._times_us[place] == at_us:
            return
        self._times_us.insert(place, at_us)
        self._frames.insert(place, (pixels, thumb))

    def _complete_until_us(self) -> int:
        """Up to where windows wait for nothing: all modalities are there, or the one ahead has waited enough."""
        reach = [until for until in (self.picture_until_us, self.sound_until_us) if until is not None]
        lead_us = max(reach, default=self.next_us)
        # A modality that fell silent long ago is not waited for at all.
        if self.picture_until_us is not None and lead_us - self.picture_until_us > 2 * self.rules.join_wait_us:
            self.picture_until_us = None
        if self.sound_until_us is not None and lead_us - self.sound_until_us > 2 * self.rules.join_wait_us:
            self.sound_until_us = None
        reach = [until for until in (self.picture_until_us, self.sound_until_us) if until is not None]
        return max(min(reach, default=lead_us), lead_us - self.rules.join_wait_us)

    def _release(self, counts: Counts) -> list[Window]:
        windows = []
        complete_us = self._complete_until_us()
        while (first_us := self._first_content_us(self.next_us)) is not None:
            start_us = self._start_for(first_us)
            is_complete = start_us + self.rules.span_us <= complete_us + _ROUNDED_US
            is_forced = not is_complete and sum(held.size_bytes for held in self._held) > self.rules.max_bytes
            if not is_complete and not is_forced:
                break
            counts.forced += is_forced
            windows += self._emit(start_us)
        return windows

    def _first_content_us(self, from_us: int | None) -> int | None:
        """Time of the first frame or sound at or after a time; a sliver of sound alone does not count."""
        at_us = self.next_us if from_us is None else max(from_us, self.next_us)
        place = bisect_left(self._times_us, at_us)
        picture_us = self._times_us[place] if place < len(self._times_us) else None
        sound_us = self._track.first_us(at_us)
        return min((time for time in (picture_us, sound_us) if time is not None), default=None)

    def _start_for(self, content_us: int) -> int:
        """Start of the next window, or in a gap of the first after it that reaches this content."""
        behind_us = content_us - self.rules.span_us - self.next_us
        steps = 0 if behind_us < 0 else behind_us // self.rules.hop_us + 1
        return self.next_us + steps * self.rules.hop_us

    def _emit(self, start_us: int) -> list[Window]:
        """Pass on to the grid's next step; give the window, unless a sliver of sound is all that it would hold."""
        end_us = start_us + self.rules.span_us
        first, last = bisect_left(self._times_us, start_us), bisect_left(self._times_us, end_us)
        frames = self._frames[first:last]
        samples = self._track.cut(sample_at(start_us), self.rules.span_us * SAMPLE_RATE_HZ // 1_000_000)
        shown = [held for held in self._held if held.chunk.capture_us < end_us and held.content_end_us > start_us]
        shown.sort(key=lambda held: (held.chunk.capture_us, held.chunk.position.topic, held.chunk.position.offset))
        window = Window(
            stream=self.name,
            partition=self.partition,
            start_us=start_us,
            end_us=end_us,
            pixels=tuple(pixels for pixels, _ in frames),
            times_us=np.array(self._times_us[first:last], np.int64),
            thumbs=np.array([thumb for _, thumb in frames], np.uint8).reshape(-1, THUMB_SIDE, THUMB_SIDE),
            samples=samples,
            chunks=tuple(held.chunk for held in shown),
            has_picture=bool(frames) or self.picture_until_us is not None,
            has_sound=samples.size > 0,
        )
        self.shown_until_us = end_us
        self.next_us = start_us + self.rules.hop_us
        self._prune()
        return [window] if frames or samples.size else []

    def _prune(self) -> None:
        place = bisect_left(self._times_us, self.next_us)
        del self._times_us[:place], self._frames[:place]
        self._track.forget(sample_at(self.next_us))
        self._held = [held for held in self._held if held.useful_until_us > self.next_us]


def _further(until_us: int | None, end_us: int) -> int:
    return end_us if until_us is None else max(until_us, end_us)


def _sound_end_us(decoded: Decoded) -> int:
    return decoded.samples_start_us + len(decoded.samples) * 1_000_000 // SAMPLE_RATE_HZ


def _content_end_us(decoded: Decoded) -> int:
    """The end of the last frame or sound; the chunk's own start where it has neither."""
    ends = [decoded.start_us]
    if decoded.times_us.size:
        ends.append(int(decoded.times_us[-1]) + 1)
    if decoded.samples.size:
        ends.append(_sound_end_us(decoded))
    return max(ends)
