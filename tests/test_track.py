from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import ContractError
from streamer.gates import Gate
from streamer.prompt_table import PromptTable, TrackedPrompts
from streamer.prompts import Prompt
from streamer.track import TrackOptions, WindowScores, advance, attach, finish
from streamer.track_state import StreamState, from_document, to_document
from streamer.types import EventState, Evidence, Position, Transition

SECOND_US = 1_000_000
SPAN_US = 2 * SECOND_US
OPTIONS = TrackOptions(exit_ratio=0.8, merge_gap_us=2 * SECOND_US, update_interval_us=SECOND_US)


def a_prompt(**values: Any) -> Prompt:
    return Prompt.model_validate({"id": "fire", "text": "fire", "cooldown": "0s", "version": 1} | values)


def tracked(*prompts: Prompt, stream: str = "yard-1") -> TrackedPrompts:
    return PromptTable(prompts).of_stream(stream, {})


def scores(start_s: float, *confidence: float, stream: str = "yard-1", span_us: int = SPAN_US) -> WindowScores:
    row = np.array(confidence, np.float32)
    nothing = np.full(len(row), np.nan, np.float32)
    start_us = round(start_s * SECOND_US)
    return WindowScores(stream, start_us, start_us + span_us, row, row, nothing)


@dataclass
class Tracker:
    """Feeds windows one after the other and keeps what came out."""

    prompts: TrackedPrompts
    options: TrackOptions = OPTIONS

    def __post_init__(self) -> None:
        self.state = StreamState()
        self.told: list[Transition] = []
        self.gates: list[Gate] = []

    def window(self, start_s: float, *confidence: float) -> list[Transition]:
        self.state, changes, gates = advance(self.state, scores(start_s, *confidence), self.prompts, self.options)
        self.told += changes
        self.gates.append(Gate(int(gates.gate[0])) if len(gates.gate) else Gate.THRESHOLD)
        return list(changes)

    def windows(self, confidences: Sequence[float], start_s: float = 0) -> list[tuple[str, float, float]]:
        for second, confidence in enumerate(confidences):
            self.window(start_s + second, confidence)
        return self.story()

    def story(self) -> list[tuple[str, float, float]]:
        return [(t.state.value, t.start_us / SECOND_US, t.end_us / SECOND_US) for t in self.told]


def test_one_window_of_two_seconds_opens_a_prompt_that_wants_two_seconds() -> None:
    #  second      0    1    2    3    4
    #  confidence  .1   .6   .1   .1
    #                   |=open====|
    #  told             open      closed
    assert Tracker(tracked(a_prompt())).windows([0.1, 0.6, 0.1, 0.1]) == [("open", 1, 3), ("closed", 1, 3)]


def test_an_event_opens_once_the_match_has_held_for_the_minimum_duration() -> None:
    #  second      0    1    2    3    4
    #  confidence  .6   .6   .6   .1   .1
    #  held        2 s  3 s  4 s
    #  told                  open      closed
    tracker = Tracker(tracked(a_prompt(min_duration="4s")))
    assert tracker.windows([0.6, 0.6, 0.6, 0.1, 0.1]) == [("open", 0, 4), ("closed", 0, 4)]
    assert tracker.gates[:3] == [Gate.DURATION, Gate.DURATION, Gate.NONE]


def test_a_match_that_breaks_off_before_the_minimum_duration_counts_for_nothing() -> None:
    #  second      0    1    2    3    4
    #  confidence  .6   .6   .4   .6   .6
    #  held        2 s  3 s  -    2 s  3 s
    assert Tracker(tracked(a_prompt(min_duration="4s"))).windows([0.6, 0.6, 0.4, 0.6, 0.6]) == []


def test_an_open_event_holds_down_to_the_exit_ratio() -> None:
    #  second      0    1    2    3    4    5
    #  confidence  .6   .41  .4   .41  .1   .1
    #              |=open=================|
    story = Tracker(tracked(a_prompt())).windows([0.6, 0.41, 0.4, 0.41, 0.1, 0.1])
    assert story == [("open", 0, 2), ("closed", 0, 5)]


def test_a_dip_shorter_than_the_merge_gap_does_not_end_an_event() -> None:
    #  second      0    1    2    3    4    5
    #  confidence  .6   .1   .6   .1   .1
    #              |=open============|
    story = Tracker(tracked(a_prompt())).windows([0.6, 0.1, 0.6, 0.1, 0.1])
    assert story == [("open", 0, 2), ("closed", 0, 4)]


def test_a_dip_as_long_as_the_merge_gap_ends_it_and_the_next_match_is_another_event() -> None:
    #  second      0    1    2    3
    #  confidence  .6   .1   .1   .6
    #  told        open      closed
    #                             open
    tracker = Tracker(tracked(a_prompt()))
    assert tracker.windows([0.6, 0.1, 0.1, 0.6]) == [("open", 0, 2), ("closed", 0, 2), ("open", 3, 5)]
    assert tracker.told[0].id == tracker.told[1].id != tracker.told[2].id


def test_without_a_merge_gap_the_first_window_that_does_not_hold_ends_an_event() -> None:
    tracker = Tracker(tracked(a_prompt()), TrackOptions(0.8, 0, SECOND_US))
    assert tracker.windows([0.6, 0.1, 0.6]) == [("open", 0, 2), ("closed", 0, 2), ("open", 2, 4)]


def test_updates_come_only_when_the_peak_rose_and_no_more_often_than_the_interval() -> None:
    #  second      0    .5   1    1.5  2
    #  confidence  .5   .6   .7   .65  .65
    #  told        open      update
    tracker = Tracker(tracked(a_prompt()))
    for second, confidence in ((0, 0.5), (0.5, 0.6), (1, 0.7), (1.5, 0.65), (2, 0.65), (3, 0.1), (4, 0.1), (5, 0.1)):
        tracker.window(second, confidence)
    assert [(t.state.value, round(t.peak, 2), t.is_peak) for t in tracker.told] == [
        ("open", 0.5, True),
        ("update", 0.7, True),
        ("closed", 0.7, False),
    ]


def test_a_peak_that_rose_within_the_interval_is_told_when_it_is_over() -> None:
    tracker = Tracker(tracked(a_prompt()))
    for second, confidence in ((0, 0.5), (0.5, 0.9), (1, 0.6)):
        tracker.window(second, confidence)
    last = tracker.told[-1]
    assert (last.state, round(last.peak, 2), round(last.confidence, 2)) == (EventState.UPDATE, 0.9, 0.6)
    assert not last.is_peak


def test_no_second_event_opens_within_the_cooldown_and_one_that_lasts_opens_after_it() -> None:
    #  second      0    1    2    3    4    5    6    7
    #  confidence  .6   .1   .1   .6   .6   .6   .6
    #  told        open      closed at 2; cooldown until 8
    #                                            open: the window ends at 8
    tracker = Tracker(tracked(a_prompt(cooldown="6s")))
    story = tracker.windows([0.6, 0.1, 0.1, 0.6, 0.6, 0.6, 0.6])
    assert story == [("open", 0, 2), ("closed", 0, 2), ("open", 3, 8)]
    assert tracker.gates[3:] == [Gate.COOLDOWN, Gate.COOLDOWN, Gate.COOLDOWN, Gate.NONE]


def test_a_jump_in_capture_time_longer_than_the_merge_gap_closes_an_event_where_it_last_held() -> None:
    #  second      0    1    2 ... 10   11
    #  confidence  .6   .6         .6
    #              |=open=|        |=open=|
    tracker = Tracker(tracked(a_prompt()))
    tracker.windows([0.6, 0.6])
    tracker.window(10, 0.6)
    assert tracker.story() == [("open", 0, 2), ("closed", 0, 3), ("open", 10, 12)]


def test_a_gap_in_capture_time_within_the_merge_gap_is_bridged() -> None:
    tracker = Tracker(tracked(a_prompt(min_duration="6s")))
    tracker.window(0, 0.6)
    tracker.window(4, 0.6)
    assert tracker.story() == [("open", 0, 6)]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param((), id="removed"),
        pytest.param((a_prompt(enabled=False),), id="disabled"),
        pytest.param((a_prompt(version=2, threshold=0.9),), id="changed"),
    ],
)
def test_an_event_closes_when_its_prompt_is_gone_or_another(after: tuple[Prompt, ...]) -> None:
    tracker = Tracker(tracked(a_prompt(text="open flames")))
    tracker.window(0, 0.6)
    tracker.prompts = tracked(*after)
    tracker.window(1, *[0.6] * len(after))
    assert tracker.story() == [("open", 0, 2), ("closed", 0, 2)]
    assert tracker.told[1].prompt.text == "open flames"
    assert tracker.state.prompts == {}


def test_an_event_goes_on_when_other_prompts_come_and_go() -> None:
    tracker = Tracker(tracked(a_prompt()))
    tracker.window(0, 0.6)
    tracker.prompts = tracked(a_prompt(id="alarm"), a_prompt())
    tracker.window(1, 0.0, 0.6)
    assert tracker.story() == [("open", 0, 2)]
    assert set(tracker.state.prompts) == {"fire"}


def test_a_prompt_for_other_streams_opens_nothing_and_its_gate_is_the_selector() -> None:
    tracker = Tracker(tracked(a_prompt(streams="door-*")))
    assert tracker.windows([0.9, 0.9]) == []
    assert tracker.gates == [Gate.SELECTOR] * 2


def test_outside_its_schedule_a_prompt_opens_nothing_and_an_open_event_ends() -> None:
    night = a_prompt(schedule="Mo-Su 00:00-00:01 UTC")
    tracker = Tracker(tracked(night))
    for second in range(52, 64):
        tracker.window(second, 0.9)
    assert tracker.story() == [("open", 52, 54), ("closed", 52, 59)]
    assert tracker.gates[-1] is Gate.SCHEDULE


def test_a_better_match_outside_the_region_names_the_region_as_the_gate() -> None:
    window = scores(0, 0.1)
    window = WindowScores(
        window.stream, 0, SPAN_US, window.confidence, window.seen, window.heard, np.array([0.9], np.float32)
    )
    _, changes, gates = advance(StreamState(), window, tracked(a_prompt()), OPTIONS)
    assert changes == ()
    assert [Gate(int(gate)) for gate in gates.gate] == [Gate.REGION]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_window_that_neither_sense_judged_does_not_match(threshold: float) -> None:
    tracker = Tracker(tracked(a_prompt(threshold=threshold)))
    assert tracker.windows([float("nan")] * 3) == []


def test_a_prompt_with_threshold_zero_matches_whatever_was_judged() -> None:
    assert Tracker(tracked(a_prompt(threshold=0.0))).windows([0.0]) == [("open", 0, 2)]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_a_confidence_equal_to_the_threshold_matches(threshold: float) -> None:
    assert Tracker(tracked(a_prompt(threshold=threshold))).windows([threshold]) == [("open", 0, 2)]


def test_an_absent_sense_is_none() -> None:
    tracker = Tracker(tracked(a_prompt()))
    (opened,) = tracker.window(0, 0.6)
    assert opened.heard is None
    assert opened.seen == pytest.approx(0.6)


def test_the_end_of_a_stream_closes_what_is_open_and_keeps_the_cooldown() -> None:
    tracker = Tracker(tracked(a_prompt(cooldown="10s"), a_prompt(id="alarm", min_duration="9s")))
    tracker.window(0, 0.6, 0.6)
    tracker.state, closed = finish(tracker.state, "yard-1", tracker.prompts)
    assert [(t.state.value, t.end_us) for t in closed] == [("closed", SPAN_US)]
    assert tracker.window(3, 0.6, 0.0) == []
    assert tracker.gates[-1] is Gate.COOLDOWN
    assert finish(tracker.state, "yard-1", tracker.prompts)[1] == ()


def test_attached_evidence_stays_with_the_event_through_a_hand_over() -> None:
    evidence = Evidence((0.1, 0.2, 0.3, 0.4), 5, ((0.25, 0.75),))
    media = Position("media", 3, 99)
    tracker = Tracker(tracked(a_prompt()))
    tracker.window(0, 0.6)
    tracker.state = from_document(to_document(attach(tracker.state, "fire", evidence, media)), "yard-1")
    tracker.window(1, 0.1)
    (closed,) = tracker.window(2, 0.1)
    assert closed.evidence == evidence
    assert closed.media == media


def test_a_window_judged_otherwise_in_a_replay_changes_nothing() -> None:
    tracker = Tracker(tracked(a_prompt()))
    tracker.windows([0.1, 0.6])
    before = tracker.state
    assert tracker.window(1, 0.9) == tracker.window(0, 0.9) == []
    assert tracker.state == before


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(ContractError, match="version 99, this program reads 1"):
        from_document(to_document(StreamState()) | {"version": 99}, "yard-1")


def test_a_state_that_is_something_else_is_refused_with_the_place() -> None:
    with pytest.raises(ContractError, match=r"'yard-1' cannot be read: watermark_us: "):
        from_document({"version": 1, "watermark_us": "late", "prompts": {}}, "yard-1")


PROMPTS = tracked(
    a_prompt(id="a", min_duration="2s", cooldown="0s"),
    a_prompt(id="b", min_duration="3s", cooldown="4s"),
    a_prompt(id="c", min_duration="0s", cooldown="1s", threshold=0.3),
)
confidences = st.lists(st.sampled_from([0.0, 0.2, 0.3, 0.41, 0.5, 0.7, 0.9, float("nan")]), min_size=3, max_size=3)
steps_us = st.sampled_from([SECOND_US // 2, SECOND_US, SECOND_US, SECOND_US, 3 * SECOND_US, 9 * SECOND_US])


@st.composite
def timelines(draw: st.DrawFn) -> list[WindowScores]:
    at_us = draw(st.integers(0, 10)) * SECOND_US
    timeline = []
    for _ in range(draw(st.integers(1, 25))):
        timeline.append(scores(at_us / SECOND_US, *draw(confidences)))
        at_us += draw(steps_us)
    return timeline


options = st.builds(
    TrackOptions,
    exit_ratio=st.sampled_from([0.5, 0.8, 1.0]),
    merge_gap_us=st.sampled_from([0, SECOND_US, 2 * SECOND_US]),
    update_interval_us=st.sampled_from([0, SECOND_US]),
)


def track_all(
    state: StreamState, timeline: Sequence[WindowScores], options: TrackOptions
) -> tuple[StreamState, list[Transition]]:
    told: list[Transition] = []
    for window in timeline:
        state, changes, _ = advance(state, window, PROMPTS, options)
        told += changes
    return state, told


@given(timelines(), options, st.data())
def test_a_replay_changes_nothing_and_tells_nothing(
    timeline: list[WindowScores], options: TrackOptions, data: st.DataObject
) -> None:
    state, _ = track_all(StreamState(), timeline, options)
    again = timeline[data.draw(st.integers(0, len(timeline) - 1)) :]
    assert track_all(state, again, options) == (state, [])


@given(timelines(), options, st.data())
def test_a_hand_over_anywhere_tells_the_same(
    timeline: list[WindowScores], options: TrackOptions, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(timeline)))
    overlap = data.draw(st.integers(0, cut))
    whole_state, whole = track_all(StreamState(), timeline, options)
    state, first = track_all(StreamState(), timeline[:cut], options)
    state, second = track_all(from_document(to_document(state), "yard-1"), timeline[cut - overlap :], options)
    assert first + second == whole
    assert state == whole_state


@given(timelines(), options)
def test_each_event_opens_once_and_closes_once_in_order(timeline: list[WindowScores], options: TrackOptions) -> None:
    state, told = track_all(StreamState(), timeline, options)
    told += finish(state, "yard-1", PROMPTS)[1]
    for prompt_id in "abc":
        mine = [t for t in told if t.prompt.id == prompt_id]
        lives = [[t for t in mine if t.id == event] for event in dict.fromkeys(t.id for t in mine)]
        assert [t for life in lives for t in life] == mine  # one after the other, never two at once
        for life in lives:
            states = [t.state for t in life]
            assert states[0] is EventState.OPEN
            assert states[-1] is EventState.CLOSED
            assert set(states[1:-1]) <= {EventState.UPDATE}
            assert len({t.start_us for t in life}) == 1
            assert all(a.end_us <= b.end_us and a.peak <= b.peak for a, b in pairwise(life))
        assert all(a[0].start_us < b[0].start_us for a, b in pairwise(lives))


@given(timelines(), options)
def test_no_event_opens_within_the_cooldown_of_the_one_before(
    timeline: list[WindowScores], options: TrackOptions
) -> None:
    free_us = -(2**60)
    state = StreamState()
    for window in timeline:
        state, changes, _ = advance(state, window, PROMPTS, options)
        for change in changes:
            if change.prompt.id != "b":
                continue
            if change.state is EventState.OPEN:
                assert window.end_us >= free_us
                assert change.end_us - change.start_us >= 3 * SECOND_US
            elif change.state is EventState.CLOSED:
                free_us = change.end_us + 4 * SECOND_US


def test_ten_thousand_idle_prompts_leave_nothing_behind() -> None:
    prompts = tracked(*(a_prompt(id=f"p-{number}") for number in range(10_000)))
    row = np.full(10_000, 0.3, np.float32)
    window = WindowScores("yard-1", 0, SPAN_US, row, row, row)
    state, changes, gates = advance(StreamState(), window, prompts, OPTIONS)
    assert (state.prompts, changes, len(gates.columns)) == ({}, (), 10_000)
