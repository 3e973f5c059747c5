from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.errors import ContractError
from streamer.settings import System
from streamer.system import Look, SystemWatch, look_at
from streamer.track import TrackOptions
from streamer.types import THUMB_SIDE, Transition, Window
from tests.builders import SECOND_US, a_window

SETTINGS = System(enabled=True, silent_after_s=10.0, dark_below=12.0, frozen_after_s=10.0, hold_s=3.0)
OPTIONS = TrackOptions(exit_ratio=0.8, merge_gap_us=2 * SECOND_US, update_interval_us=SECOND_US)


def thumbs(*lumas: float, noise: float = 0.0, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    texture = np.random.default_rng(1).uniform(-5, 5, (THUMB_SIDE, THUMB_SIDE))
    rows = [luma + texture + rng.normal(0, noise, texture.shape) for luma in lumas]
    return np.clip(np.array(rows).reshape(len(lumas), THUMB_SIDE, THUMB_SIDE), 0, 255).astype(np.uint8)


def window_of(start_s: float, pictures: NDArray[np.uint8], *, has_picture: bool = True) -> Window:
    base = a_window(start_us=round(start_s * SECOND_US))
    return Window(
        stream=base.stream,
        partition=0,
        start_us=base.start_us,
        end_us=base.end_us,
        pixels=(),
        times_us=np.linspace(base.start_us, base.end_us, len(pictures), endpoint=False).astype(np.int64),
        thumbs=pictures,
        samples=base.samples,
        chunks=(),
        has_picture=has_picture,
        has_sound=False,
    )


def a_watch(**changes: Any) -> SystemWatch:
    return SystemWatch(SETTINGS.model_copy(update=changes), OPTIONS)


def story(transitions: list[Transition]) -> list[tuple[str, str, float, float]]:
    return [(t.prompt.id, t.state.value, t.start_us / SECOND_US, t.end_us / SECOND_US) for t in transitions]


def live(second: int, luma: float = 90) -> NDArray[np.uint8]:
    """Two pictures of a living sensor."""
    return thumbs(luma, luma, noise=0.6, seed=second)


def test_a_covered_camera_is_dark_once_it_lasted_and_until_light_returns() -> None:
    #  second  0..4 light   5..9 dark        10..13 light
    #                       |=7: held 3 s=|  closed 2 s after the last dark window
    watch = a_watch()
    told: list[Transition] = []
    for second in range(14):
        told += watch.observe(window_of(second, live(second, 5 if 5 <= second < 10 else 90)))
    assert story(told) == [("system-dark", "open", 5, 8), ("system-dark", "closed", 5, 11)]


def test_a_moment_of_darkness_is_no_event() -> None:
    watch = a_watch()
    told: list[Transition] = []
    for second in range(10):
        told += watch.observe(window_of(second, live(second, 5 if second == 4 else 90)))
    assert told == []


@pytest.mark.parametrize(("luma", "confidence"), [(0.0, 1.0), (12.0, 0.5), (24.0, 0.0), (200.0, 0.0)])
def test_confidence_in_darkness_is_a_half_at_the_limit(luma: float, confidence: float) -> None:
    flat = np.full((1, THUMB_SIDE, THUMB_SIDE), luma, np.uint8)
    assert look_at(Look(), flat, 12.0).dark == pytest.approx(confidence)


def test_one_bright_picture_makes_a_window_bright() -> None:
    assert look_at(Look(), thumbs(6, 6, 120), 12.0).dark == 0.0


def test_a_limit_of_zero_turns_darkness_off() -> None:
    assert look_at(Look(), np.zeros((1, THUMB_SIDE, THUMB_SIDE), np.uint8), 0.0).dark == 0.0


def test_a_picture_that_stays_the_same_is_frozen_and_one_with_sensor_noise_is_not() -> None:
    watch = a_watch()
    told: list[Transition] = []
    for second in range(16):
        told += watch.observe(window_of(second, live(0)[:1].repeat(2, axis=0)))
    assert story(told) == [("system-frozen", "open", 0, 10)]
    for second in range(16, 40):
        told += watch.observe(window_of(second, live(second)))
    assert story(told)[1:] == [("system-frozen", "closed", 0, 17)]


def test_a_picture_frozen_for_less_than_the_limit_is_no_event() -> None:
    watch = a_watch()
    told: list[Transition] = []
    for second in range(20):
        told += watch.observe(window_of(second, live(0 if 4 <= second < 11 else second)))
    assert told == []


def test_single_keyframes_per_window_are_compared_across_windows() -> None:
    watch = a_watch()
    told: list[Transition] = []
    for second in range(14):
        told += watch.observe(window_of(second, live(0)[:1]))
    assert story(told) == [("system-frozen", "open", 1, 11)]


def test_windows_between_rare_keyframes_keep_the_judgement() -> None:
    watch = a_watch()
    told: list[Transition] = []
    nothing = thumbs()
    for second in range(20):
        told += watch.observe(window_of(second, live(0)[:1] if second % 4 == 0 else nothing))
    assert story(told) == [("system-frozen", "open", 4, 14)]


def test_a_black_picture_is_dark_but_not_frozen_as_well() -> None:
    watch = a_watch()
    told: list[Transition] = []
    for second in range(15):
        told += watch.observe(window_of(second, np.zeros((2, THUMB_SIDE, THUMB_SIDE), np.uint8)))
    assert story(told) == [("system-dark", "open", 0, 3)]


def test_a_microphone_is_neither_dark_nor_frozen() -> None:
    watch = a_watch()
    told: list[Transition] = []
    for second in range(15):
        told += watch.observe(window_of(second, thumbs(), has_picture=False))
    assert told == []


def test_a_stream_is_silent_from_where_it_broke_off_until_something_comes() -> None:
    watch = a_watch()
    watch.arrived("cam", 100.0)
    watch.observe(window_of(0, live(0)))
    assert watch.silent(109.9) == ()
    opened = watch.silent(112.0)
    assert story([*opened]) == [("system-silent", "open", 2, 14)]
    assert watch.silent(130.0) == ()
    closed = watch.observe(window_of(60, live(1)))
    assert story([*closed]) == [("system-silent", "closed", 2, 60)]
    assert closed[0].id == opened[0].id


def test_a_stream_that_keeps_sending_is_not_silent() -> None:
    watch = a_watch()
    for second in range(30):
        watch.arrived("cam", float(second))
        watch.observe(window_of(second, live(second)))
        assert watch.silent(float(second)) == ()


def test_nobody_is_silent_because_kafka_was_away() -> None:
    watch = a_watch()
    watch.arrived("cam", 0.0)
    watch.observe(window_of(0, live(0)))
    watch.excuse(60.0)
    assert watch.silent(69.0) == ()
    assert len(watch.silent(70.0)) == 1


def test_a_stream_that_ended_by_itself_closes_its_events_and_is_never_silent() -> None:
    watch = a_watch()
    for second in range(6):
        watch.observe(window_of(second, live(second, 3)))
    assert story([*watch.finish("cam")]) == [("system-dark", "closed", 0, 7)]
    successor = a_watch()
    successor.restore("cam", watch.state("cam"), 0.0)
    for each in (watch, successor):
        assert each.silent(10_000.0) == ()
        assert each.observe(window_of(5, live(5, 3))) == ()


def test_a_successor_goes_on_where_a_worker_stopped() -> None:
    whole, first = a_watch(), a_watch()
    told: list[Transition] = []
    handed: list[Transition] = []
    for second in range(20):
        window = window_of(second, live(0) if second < 15 else live(second))
        told += whole.observe(window)
        if second == 8:
            written = first.state("cam")
            first = a_watch()
            first.restore("cam", written, 0.0)
            handed += first.observe(window_of(7, live(0)))  # a replay
        handed += first.observe(window)
    assert handed == told
    assert first.state("cam") == whole.state("cam")


def test_a_successor_keeps_the_judgement_where_windows_hold_one_picture() -> None:
    told: list[Transition] = []
    watch = a_watch()
    for second in range(14):
        told += watch.observe(window_of(second, live(0)[:1]))
        successor = a_watch()
        successor.restore("cam", watch.state("cam"), 0.0)
        watch = successor if second == 6 else watch
    assert story(told) == [("system-frozen", "open", 1, 11)]


def test_a_successor_closes_the_silence_that_a_worker_told() -> None:
    watch = a_watch()
    watch.observe(window_of(0, live(0)))
    watch.arrived("cam", 0.0)
    (opened,) = watch.silent(20.0)
    successor = a_watch()
    successor.restore("cam", watch.state("cam"), 500.0)
    assert successor.silent(600.0) == ()
    (closed,) = successor.observe(window_of(300, live(1)))
    assert (closed.id, closed.end_us) == (opened.id, 300 * SECOND_US)


def test_a_stream_that_another_worker_has_is_watched_no_more() -> None:
    watch = a_watch()
    watch.observe(window_of(0, live(0)))
    watch.arrived("cam", 0.0)
    watch.forget("cam")
    assert watch.silent(100.0) == ()
    assert watch.state("cam") is None


def test_nothing_is_told_when_switched_off() -> None:
    watch = a_watch(enabled=False)
    told: list[Transition] = []
    watch.arrived("cam", 0.0)
    for second in range(15):
        told += watch.observe(window_of(second, np.zeros((2, THUMB_SIDE, THUMB_SIDE), np.uint8)))
    assert told == []
    assert watch.silent(100.0) == ()


@pytest.mark.parametrize("change", [{"dark": "very"}, {"end_us": "late"}, {"silence": {}}, {"tracked": []}])
def test_a_state_that_is_something_else_is_refused(change: dict[str, Any]) -> None:
    watch = a_watch()
    watch.observe(window_of(0, live(0)))
    document = watch.state("cam")
    assert document is not None
    with pytest.raises(ContractError, match=r"'cam' (cannot be read|has version None)"):
        watch.restore("cam", document | change, 0.0)
