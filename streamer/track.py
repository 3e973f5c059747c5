"""Confidences into events: hysteresis, minimum duration, merging, cooldown. Pure: time is what the windows say.

One prompt on one stream, windows of 2 s every second, threshold 0.5, ``exit_ratio`` 0.8, ``merge_gap`` 2 s::

    confidence  .1  .2  .6  .7  .45 .6  .3  .6  .2  .1  .1
                        |---------------------|     ^
                        open    (.45 holds,   end   closed: 2 s without a window that holds
                                 .3 is a dip)

A run begins with the first window that reaches the threshold and lasts while windows reach it. It opens an event once
the time from the start of its first window to the end of its last one is ``min_duration``. Then windows hold from
``threshold * exit_ratio`` on, and a dip shorter than ``merge_gap`` is bridged.

Windows that start at or before the last tracked one change nothing, so a replay adds nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamer.events import event_id
from streamer.gates import NEAR_RATIO, Gate, Gates
from streamer.prompt_table import TrackedPrompts
from streamer.prompts import Prompt
from streamer.track_state import NEVER_US, PromptState, Run, StreamState
from streamer.types import EventState, Evidence, Position, PromptNote, Transition

LEAST_RISE = 0.005  # of the peak: less is no news, and would hang on how a batch was put together


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """How confidences become events.

    Attributes:
        exit_ratio: An open event holds while confidence >= threshold times this.
        merge_gap_us: A dip or a gap in the stream shorter than this does not end a run.
        update_interval_us: At most one `update` in this time.
    """

    exit_ratio: float
    merge_gap_us: int
    update_interval_us: int


@dataclass(frozen=True, slots=True, eq=False)
class WindowScores:
    """How well each prompt matched one window.

    Attributes:
        stream: Stream id.
        start_us: The window's start, capture time.
        end_us: Its end (exclusive).
        confidence: float32 ``(P,)``, 0..1, NaN where neither sense was there.
        seen: float32 ``(P,)``, NaN where there was no picture.
        heard: float32 ``(P,)``, NaN where there was no sound.
        everywhere: float32 ``(P,)``, the confidence had the prompt no region, NaN where it has none; None: not known.
    """

    stream: str
    start_us: int
    end_us: int
    confidence: NDArray[np.float32]
    seen: NDArray[np.float32]
    heard: NDArray[np.float32]
    everywhere: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """One prompt's part of a window."""

    start_us: int
    end_us: int
    confidence: float
    threshold: float
    is_known: bool
    seen: float | None
    heard: float | None


def advance(
    state: StreamState, scores: WindowScores, prompts: TrackedPrompts, options: TrackOptions
) -> tuple[StreamState, tuple[Transition, ...], Gates]:
    """Track one window.

    Prompts that cannot match cost numpy work only; Python looks at those that reach their threshold or are not idle.

    Returns:
        The new state; changes of events, closed ones first; what kept near prompts from opening an event.
    """
    if scores.start_us <= state.watermark_us:
        return state, (), Gates.none()
    table = prompts.table
    confidence = np.nan_to_num(scores.confidence, nan=-1.0)  # matches nothing, not even a threshold of 0
    is_active = prompts.is_selected & prompts.is_enabled & table.is_open(scores.end_us)
    is_match = is_active & (confidence >= prompts.thresholds)
    kept, transitions = _without_changed(state.prompts, prompts, scores.stream)
    columns = {int(column) for column in np.flatnonzero(is_match)} | {table.columns[i] for i in kept}
    stopped_by: dict[int, Gate] = {}
    opened: list[Transition] = []
    for column in sorted(columns):
        prompt = table.prompts[column]
        before = kept.get(prompt.id, PromptState(prompt.version))
        window = _seen(scores, confidence, column, prompts, is_active=bool(is_active[column]))
        after, changes, gate = _step(before, window, prompt, scores.stream, options, is_match=bool(is_match[column]))
        stopped_by[column] = gate
        for change in changes:
            (transitions if change.state is EventState.CLOSED else opened).append(change)
        if after.run is None and after.free_us <= scores.end_us:
            kept.pop(prompt.id, None)
        else:
            kept[prompt.id] = after
    gates = _gates(confidence, scores.everywhere, prompts, is_match, table.is_open(scores.end_us), stopped_by)
    return StreamState(scores.start_us, kept), (*transitions, *opened), gates


def finish(state: StreamState, stream: str, prompts: TrackedPrompts) -> tuple[StreamState, tuple[Transition, ...]]:
    """End what is open: the stream ended or stopped. Its watermark and cooldowns stay."""
    kept: dict[str, PromptState] = {}
    transitions: list[Transition] = []
    for prompt_id, before in sorted(state.prompts.items()):
        column = prompts.table.columns.get(prompt_id)
        cooldown_us = 0 if column is None else int(prompts.table.cooldown_us[column])
        free_us = before.free_us
        if before.run is not None:
            _, free_us = _end(before.run, cooldown_us, stream, free_us, transitions)
        if free_us != NEVER_US:
            kept[prompt_id] = PromptState(before.version, None, free_us)
    return StreamState(state.watermark_us, kept), tuple(transitions)


def attach(state: StreamState, prompt_id: str, evidence: Evidence | None, media: Position | None) -> StreamState:
    """Keep the evidence of the best window with its run, for the documents to come."""
    before = state.prompts[prompt_id]
    if before.run is None:
        return state
    run = replace(before.run, evidence=evidence, media=media)
    return replace(state, prompts={**state.prompts, prompt_id: replace(before, run=run)})


def transition(run: Run, state: EventState, stream: str, *, is_peak: bool) -> Transition:
    """What is told about an open run."""
    assert run.opened is not None
    return Transition(
        id=event_id(stream, run.opened.id, run.start_us),
        state=state,
        stream=stream,
        prompt=run.opened,
        start_us=run.start_us,
        end_us=run.last_us,
        confidence=run.confidence,
        peak=run.peak,
        seen=run.seen,
        heard=run.heard,
        is_peak=is_peak,
        evidence=run.evidence,
        media=run.media,
    )


def note(prompt: Prompt) -> PromptNote:
    """What events say about a prompt."""
    return PromptNote(prompt.id, prompt.version, prompt.text, prompt.severity, dict(prompt.labels))


def _without_changed(
    states: Mapping[str, PromptState], prompts: TrackedPrompts, stream: str
) -> tuple[dict[str, PromptState], list[Transition]]:
    """Drop what belongs to prompts that are gone, disabled or another version now, and close their events."""
    kept: dict[str, PromptState] = {}
    closed: list[Transition] = []
    for prompt_id, before in sorted(states.items()):
        column = prompts.table.columns.get(prompt_id)
        is_same = (
            column is not None
            and prompts.is_enabled[column]
            and prompts.table.prompts[column].version == before.version
        )
        if is_same:
            kept[prompt_id] = before
        elif before.run is not None and before.run.opened is not None:
            closed.append(transition(before.run, EventState.CLOSED, stream, is_peak=False))
    return kept, closed


def _step(
    before: PromptState, window: _Seen, prompt: Prompt, stream: str, options: TrackOptions, *, is_match: bool
) -> tuple[PromptState, list[Transition], Gate]:
    """One prompt, one window."""
    run, free_us = before.run, before.free_us
    changes: list[Transition] = []
    if run is not None and window.start_us - run.last_us > options.merge_gap_us:
        run, free_us = _end(run, prompt.cooldown_us, stream, free_us, changes)
    is_held = is_match
    if run is not None:
        if run.opened is not None:
            is_held |= window.is_known and window.confidence >= window.threshold * options.exit_ratio
            run = _extended(run, window, is_held=is_held)
            if window.end_us - run.last_us >= max(options.merge_gap_us, 1):
                run, free_us = _end(run, prompt.cooldown_us, stream, free_us, changes)
        else:
            run = _extended(run, window, is_held=True) if is_match else None
    elif is_match:
        run = _begun(window)
    if run is None or not is_held:
        return PromptState(before.version, run, free_us), changes, Gate.THRESHOLD
    if run.opened is not None:
        run = _told(run, window, stream, options, changes)
        return PromptState(before.version, run, free_us), changes, Gate.NONE
    if run.last_us - run.start_us < prompt.min_duration_us:
        return PromptState(before.version, run, free_us), changes, Gate.DURATION
    if window.end_us < free_us:
        return PromptState(before.version, run, free_us), changes, Gate.COOLDOWN
    run = replace(run, opened=note(prompt), told_peak=run.peak, told_us=window.end_us)
    changes.append(transition(run, EventState.OPEN, stream, is_peak=window.confidence >= run.peak))
    return PromptState(before.version, run, NEVER_US), changes, Gate.NONE


def _begun(window: _Seen) -> Run:
    return Run(window.start_us, window.end_us, window.confidence, window.confidence, window.seen, window.heard)


def _extended(run: Run, window: _Seen, *, is_held: bool) -> Run:
    return replace(
        run,
        last_us=window.end_us if is_held else run.last_us,
        confidence=window.confidence,
        peak=max(run.peak, window.confidence),
        seen=window.seen,
        heard=window.heard,
    )


def _told(run: Run, window: _Seen, stream: str, options: TrackOptions, changes: list[Transition]) -> Run:
    """Tell a risen peak, at most once per interval."""
    if run.peak < run.told_peak + LEAST_RISE or window.end_us - run.told_us < options.update_interval_us:
        return run
    run = replace(run, told_peak=run.peak, told_us=window.end_us)
    changes.append(transition(run, EventState.UPDATE, stream, is_peak=window.confidence >= run.peak))
    return run


def _end(run: Run, cooldown_us: int, stream: str, free_us: int, changes: list[Transition]) -> tuple[Run | None, int]:
    if run.opened is None:
        return None, free_us
    changes.append(transition(run, EventState.CLOSED, stream, is_peak=False))
    return None, run.last_us + cooldown_us


def _seen(
    scores: WindowScores, confidence: NDArray[np.float32], column: int, prompts: TrackedPrompts, *, is_active: bool
) -> _Seen:
    """Outside its schedule a prompt sees nothing."""
    return _Seen(
        scores.start_us,
        scores.end_us,
        min(1.0, max(0.0, float(confidence[column]))) if is_active else 0.0,
        float(prompts.thresholds[column]),
        is_active and bool(confidence[column] >= 0),
        known(scores.seen[column]),
        known(scores.heard[column]),
    )


def known(value: np.float32) -> float | None:
    """A confidence as events tell it, None where there was nothing to be confident of."""
    return None if np.isnan(value) else min(1.0, max(0.0, float(value)))


def _gates(
    confidence: NDArray[np.float32],
    everywhere: NDArray[np.float32] | None,
    prompts: TrackedPrompts,
    is_match: NDArray[np.bool_],
    is_open: NDArray[np.bool_],
    stopped_by: Mapping[int, Gate],
) -> Gates:
    """Why prompts that came near did not open; the first of several reasons in the order of `Gate`."""
    best = confidence if everywhere is None else np.fmax(confidence, everywhere)
    columns = np.flatnonzero(prompts.is_enabled & (best >= NEAR_RATIO * prompts.thresholds) & (best > 0))
    gate = np.full(len(columns), Gate.THRESHOLD, np.uint8)
    gate[(best[columns] >= prompts.thresholds[columns]) & ~is_match[columns]] = Gate.REGION
    gate[~is_open[columns]] = Gate.SCHEDULE
    gate[~prompts.is_selected[columns]] = Gate.SELECTOR
    for place in np.flatnonzero(np.isin(columns, list(stopped_by))):
        if is_match[columns[place]] or stopped_by[int(columns[place])] is Gate.NONE:
            gate[place] = stopped_by[int(columns[place])]
    return Gates(columns, best[columns].astype(np.float32), gate)
