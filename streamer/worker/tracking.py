"""Confidences of a batch into event documents, with their evidence, snapshots and latencies."""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import structlog

from streamer.align import AlignStage, PromptSet
from streamer.budgets import Budgets
from streamer.events import Event, EventModel, event_of, latency_of
from streamer.metrics import Metrics
from streamer.prompt_table import TrackedPrompts
from streamer.prompts import Marked
from streamer.settings import Settings, StreamSettings
from streamer.system import SystemWatch
from streamer.track import TrackOptions, WindowScores, advance, attach, finish, known
from streamer.track_state import StreamState, from_document, to_document
from streamer.types import (
    Alignment,
    Decoded,
    EventState,
    Evidence,
    MediaChunk,
    Polygon,
    Position,
    Tokens,
    Transition,
    Window,
)
from streamer.usual import Lead, Usual
from streamer.worker.sketches import Sketch
from streamer.worker.watching import Watching

_log = structlog.get_logger(__name__)
_ENDED_S = 600.0  # a stream that ended is remembered this long after its last chunk, for its cooldowns
_SILENT_S = 86_400.0  # and one that fell silent this long
_USUAL_AFTER_US = 600_000_000  # an event that lasts longer is what the stream always shows


@dataclass(frozen=True, slots=True)
class Timing:
    """When a batch passed each stage, monotonic seconds."""

    ready_s: tuple[float, ...]
    launched_s: float
    encoded_s: float
    aligned_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A session of a stream ended: no window that starts before ``ends_us`` follows."""

    partition: int
    stream: str
    ends_us: int


@dataclass(slots=True)
class Outcome:
    """What a batch comes to for one partition.

    Attributes:
        events: In order.
        sketches: Event id to what its snapshot shows.
    """

    events: list[Event] = field(default_factory=list)
    sketches: dict[str, Sketch] = field(default_factory=dict)


class Tracking:
    """The trackers of all streams of our partitions. Owned by the pipeline's thread.

    Args:
        settings: Track options, labels and masks of streams, the system watch.
        align: Draws evidence.
        model: What events say about what judged a prompt that nothing was trained for.
        snapshot_key: Event id to the key of its JPEG.
        watching: What is shown of streams between events.
        metrics: Counters.
        usual: What streams always show; None: it does not count.
        streams: Labels and masks of a stream; None: as the settings say.
    """

    def __init__(
        self,
        settings: Settings,
        align: AlignStage,
        model: EventModel,
        snapshot_key: Callable[[str], str],
        watching: Watching,
        metrics: Metrics,
        usual: Usual | None = None,
        streams: Callable[[str], StreamSettings] | None = None,
    ) -> None:
        self._stream_settings = streams or settings.stream
        self._usual = usual
        self._align = align
        self._models = {False: model, True: model.model_copy(update={"calibrated": True, "note": None})}
        self._trained: frozenset[str] = frozenset()
        self._marked: Mapping[str, Marked] = {}
        self._snapshot_key = snapshot_key
        self._watching = watching
        self._metrics = metrics
        self._options = TrackOptions(
            exit_ratio=settings.track.exit_ratio,
            merge_gap_us=round(settings.track.merge_gap_s * 1e6),
            update_interval_us=round(settings.track.update_interval_s * 1e6),
        )
        self._budgets = Budgets(self._options.merge_gap_us)
        self._system = SystemWatch(settings.system, self._options)
        self._states: dict[int, dict[str, StreamState]] = {}
        self._decode_s: dict[str, float] = {}
        self._arrived_s: dict[str, float] = {}

    def restore(self, partition: int, state: Mapping[str, Any] | None, now_s: float) -> None:
        """Go on where the last commit of a partition was.

        Raises:
            ContractError: Another version wrote the state.
        """
        self._states[partition] = {}
        for stream, saved in (state or {}).items():
            self._states[partition][stream] = from_document(saved["prompts"], stream)
            self._system.restore(stream, saved["camera"], now_s)
            if self._usual is not None:
                self._usual.restore(stream, saved.get("usual"))
            self._budgets.restore(stream, saved.get("budgets"))
            self._arrived_s[stream] = now_s

    def state(self, partition: int) -> dict[str, Any]:
        """What `restore` needs; plain JSON."""
        return {stream: self._saved(stream, state) for stream, state in self._states.get(partition, {}).items()}

    def _saved(self, stream: str, state: StreamState) -> dict[str, Any]:
        saved = {"prompts": to_document(state), "camera": self._system.state(stream)}
        if self._usual is not None and (usual := self._usual.state(stream)) is not None:
            saved["usual"] = usual
        if (budgets := self._budgets.state(stream)) is not None:
            saved["budgets"] = budgets
        return saved

    def drop(self, partition: int) -> list[str]:
        """Forget a partition; gives the streams that were in it."""
        streams = list(self._states.pop(partition, {}))
        for stream in streams:
            self._forget(stream)
        return streams

    def gone(self, now_s: float) -> list[str]:
        """Forget streams that ended or fell silent long ago; gives their names."""
        gone = []
        for states in self._states.values():
            for stream in [stream for stream in states if self._is_gone(stream, now_s)]:
                del states[stream]
                self._forget(stream)
                self._metrics.forget_stream(stream)
                gone.append(stream)
        return gone

    def partition_of(self, stream: str) -> int | None:
        """Where a stream lives; None: nothing is known of it."""
        return next((partition for partition, states in self._states.items() if stream in states), None)

    def arrived(self, decoded: Decoded, decode_s: float, now_s: float) -> None:
        """A chunk was decoded."""
        stream = decoded.chunk.stream
        self._states.setdefault(decoded.chunk.position.partition, {}).setdefault(stream, StreamState())
        self._decode_s[stream] = decode_s
        self._arrived_s[stream] = now_s
        self._system.arrived(stream, now_s)
        self._watching.arrived(decoded)

    def excuse(self, now_s: float) -> None:
        """We were not listening: that nothing arrived says nothing about the cameras."""
        self._system.excuse(now_s)

    def observe(
        self,
        tokens: Tokens,
        alignment: Alignment,
        prompts: PromptSet,
        timing: Timing,
        ours: Container[int],
        ended: Sequence[Ended],
    ) -> dict[int, Outcome]:
        """Track the windows of a batch, and close what is open on sessions that ended.

        Args:
            tokens: Of the batch.
            alignment: Of the batch.
            prompts: What it was aligned with.
            timing: Of the batch.
            ours: Partitions that are held as they were when it was launched; the windows of others count for nothing.
            ended: Sessions that ended within it, of our partitions.

        Returns:
            What it comes to, by partition.
        """
        outcomes: dict[int, Outcome] = {}
        self._trained, self._marked = prompts.trained, prompts.marked
        left = list(ended)
        for row, window in enumerate(tokens.windows):
            states = self._states.get(window.partition)
            if states is None or window.partition not in ours:
                continue
            outcome = outcomes.setdefault(window.partition, Outcome())
            for end in [end for end in left if end.stream == window.stream and end.ends_us <= window.start_us]:
                left.remove(end)
                outcome.events += self._finish(end, prompts)
            self._observe_window(row, window, states, tokens, alignment, prompts, timing, outcome)
        for end in left:
            outcomes.setdefault(end.partition, Outcome()).events += self._finish(end, prompts)
        return outcomes

    def silent(self, now_s: float, is_expected: Callable[[str], bool]) -> dict[int, Outcome]:
        """Events about streams from which nothing came for too long, by partition."""
        outcomes: dict[int, Outcome] = {}
        for change in self._system.silent(now_s, is_expected):
            partition = self.partition_of(change.stream)
            if partition is not None:
                event = self._document(change, {}, time.time() - change.end_us / 1e6)
                outcomes.setdefault(partition, Outcome()).events.append(event)
        return outcomes

    def finish(self, ended: Sequence[Ended], prompts: PromptSet, outcomes: dict[int, Outcome]) -> None:
        """Close what is open on streams whose session ended, into ``outcomes``."""
        self._trained, self._marked = prompts.trained, prompts.marked
        for end in ended:
            outcomes.setdefault(end.partition, Outcome()).events += self._finish(end, prompts)

    def _finish(self, end: Ended, prompts: PromptSet) -> list[Event]:
        states, stream = self._states.get(end.partition, {}), end.stream
        if stream not in states:
            return []
        view = prompts.of_stream(stream, self._stream_settings(stream).labels)
        states[stream], closed = finish(states[stream], stream, view)
        closed = (*closed, *self._system.finish(stream))
        return [self._document(change, {}, time.time() - change.end_us / 1e6) for change in closed]

    def _is_gone(self, stream: str, now_s: float) -> bool:
        limit_s = _ENDED_S if self._system.has_ended(stream) else _SILENT_S
        return now_s - self._arrived_s.setdefault(stream, now_s) > limit_s

    def _forget(self, stream: str) -> None:
        self._system.forget(stream)
        if self._usual is not None:
            self._usual.forget(stream)
        self._budgets.forget(stream)
        self._watching.forget(stream)
        self._decode_s.pop(stream, None)
        self._arrived_s.pop(stream, None)

    def _observe_window(  # the one place where all of a window's parts meet
        self,
        row: int,
        window: Window,
        states: dict[str, StreamState],
        tokens: Tokens,
        alignment: Alignment,
        prompts: PromptSet,
        timing: Timing,
        outcome: Outcome,
    ) -> None:
        stream = window.stream
        view = self._budgets.of_stream(stream, prompts.of_stream(stream, self._stream_settings(stream).labels))
        lead = None if self._usual is None else self._usual.lead(stream, prompts)
        scores = _scores(window, row, alignment, prompts, lead)
        state, changes, gates = advance(states.get(stream, StreamState()), scores, view, self._options)
        shown = []
        for change in changes:
            if change.state is EventState.OPEN or change.is_peak:
                column = prompts.table.columns[change.prompt.id]
                evidence = self._align.evidence(tokens, row, column, prompts)
                evidence = _judged(evidence, column, row, scores, alignment, lead)
                state = attach(state, change.prompt.id, evidence, _position(window))
                shown.append(replace(change, evidence=evidence, media=_position(window)))
            else:
                shown.append(change)
        if scores.start_us > states.get(stream, StreamState()).watermark_us:
            self._learn(row, window, tokens, view, scores, state)
        states[stream] = state
        self._watching.observed(window, scores, prompts, gates, view.thresholds, self._budgets.in_force(stream, view))
        for change in (*shown, *self._system.observe(window)):
            self._publish(change, window, row, timing, outcome)

    def _learn(
        self, row: int, window: Window, tokens: Tokens, view: TrackedPrompts, scores: WindowScores, state: StreamState
    ) -> None:
        """What counts for the windows to come."""
        self._budgets.take_in(window.stream, view, scores.confidence, scores.start_us, scores.end_us)
        if self._usual is not None:
            is_alert = any(
                held.run is not None and window.end_us - held.run.start_us < _USUAL_AFTER_US
                for held in state.prompts.values()
            )
            self._usual.take_in(window.stream, tokens.frames[row], tokens.sounds[row], window.end_us, is_alert=is_alert)

    def _publish(self, change: Transition, window: Window, row: int, timing: Timing, outcome: Outcome) -> None:
        now_s = time.monotonic()
        capture_to_event_s = time.time() - window.start_us / 1e6
        ready_s, decode_s = timing.ready_s[row], self._decode_s.get(window.stream, 0.0)
        stages = {
            "decode": decode_s,
            "batch": timing.launched_s - ready_s,
            "encode": timing.encoded_s - timing.launched_s,
            "align": timing.aligned_s - timing.encoded_s,
            "track": now_s - timing.aligned_s,
        }
        stages["window"] = capture_to_event_s - sum(stages.values())
        if change.state is not EventState.CLOSED and window.has_picture and window.times_us.size:
            if change.evidence is None:  # dark and frozen: the camera's own state, to be seen on any frame
                change = replace(change, media=_position(window))
            if (sketch := _sketch(window, change, self._stream_settings(window.stream).masks)) is not None:
                outcome.sketches[change.id] = sketch
        outcome.events.append(self._document(change, stages, capture_to_event_s))

    def _model(self, prompt_id: str) -> EventModel:
        """What judged a prompt, and what to keep in mind of it."""
        model, marked = self._models[prompt_id in self._trained], self._marked.get(prompt_id)
        if marked is None:
            return model
        note = f"its own curve follows {marked.right} events marked right and {marked.wrong} marked wrong"
        is_calibrated = model.calibrated or bool(marked.right and marked.wrong)
        return model.model_copy(update={"calibrated": is_calibrated, "note": note})

    def _document(self, change: Transition, stages: Mapping[str, float], capture_to_event_s: float) -> Event:
        event = event_of(
            change,
            stream_labels=self._stream_settings(change.stream).labels,
            model=self._model(change.prompt.id),
            latency=latency_of(capture_to_event_s, stages),
            snapshot=self._snapshot_key(change.id) if change.media is not None else None,
        )
        self._metrics.event(event.prompt.id, event.severity, event.state)
        _log.info(
            "event",
            id=event.id,
            state=event.state,
            stream=event.stream,
            prompt=event.prompt.id,
            confidence=event.confidence,
        )
        return event


def _scores(window: Window, row: int, alignment: Alignment, prompts: PromptSet, lead: Lead | None) -> WindowScores:
    """A window's confidences, less what is usual for its stream."""
    judged = alignment.confidence[row], alignment.seen[row], alignment.heard[row]
    if lead is not None:
        seen, heard = alignment.seen_raw[row] - lead.seen, alignment.heard_raw[row] - lead.heard
        judged = prompts.judge(seen, heard)
    return WindowScores(window.stream, window.start_us, window.end_us, *judged)


def _judged(
    evidence: Evidence, column: int, row: int, scores: WindowScores, alignment: Alignment, lead: Lead | None
) -> Evidence:
    """Evidence with what its window came to, and from what."""
    seen_raw, heard_raw = alignment.seen_raw[row, column], alignment.heard_raw[row, column]
    return replace(
        evidence,
        confidence=known(scores.confidence[column]),
        seen=known(scores.seen[column]),
        heard=known(scores.heard[column]),
        seen_raw=None if np.isnan(seen_raw) else float(seen_raw),
        heard_raw=None if np.isnan(heard_raw) else float(heard_raw),
        seen_usual=0.0 if lead is None else float(lead.seen[column]),
        heard_usual=0.0 if lead is None else float(lead.heard[column]),
    )


def _position(window: Window) -> Position | None:
    return window.chunks[-1].position if window.chunks else None


def _sketch(window: Window, change: Transition, masks: tuple[Polygon, ...]) -> Sketch | None:
    """What the snapshot of a change shows, from the chunk that the window holds."""
    evidence = change.evidence
    at_us = int(window.times_us[-1])
    if evidence is not None and evidence.frame_time_us is not None:
        at_us = evidence.frame_time_us
    chunk = _chunk_at(window.chunks, at_us)
    if chunk is None:
        return None
    region = None if evidence is None else evidence.region
    return Sketch(chunk, at_us, masks, region, f"{change.stream}: {change.prompt.text} ({change.confidence:.2f})")


def _chunk_at(chunks: Sequence[MediaChunk], at_us: int) -> MediaChunk | None:
    """The picture chunk that holds a time: the last that starts at or before it."""
    pictures = [chunk for chunk in chunks if not chunk.content_type.startswith("audio/")]
    before = [chunk for chunk in pictures if chunk.capture_us <= at_us]
    return before[-1] if before else (pictures[0] if pictures else None)
