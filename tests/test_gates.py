import numpy as np
import pytest

from streamer.gates import MINUTE_US, MINUTES, Gate, Gates, Memory, NearMiss

KEYS = [("fire", 1), ("alarm", 1), ("door", 3)]


def stopped(column: int, confidence: float, gate: Gate) -> Gates:
    return Gates(np.array([column]), np.array([confidence], np.float32), np.array([gate], np.uint8))


def row(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_the_best_of_each_minute_is_kept_with_its_second_and_gate() -> None:
    memory = Memory(KEYS)
    memory.add(5_000_000, row(0.25, 0, 0), stopped(0, 0.25, Gate.THRESHOLD))
    memory.add(6_000_000, row(0.5, 0, 0), stopped(0, 0.5, Gate.DURATION))
    memory.add(7_000_000, row(0.375, 0, 0), Gates.none())
    memory.add(MINUTE_US + 1_000_000, row(0.75, 0, 0), stopped(0, 0.75, Gate.COOLDOWN))
    now_us = MINUTE_US + 2_000_000
    assert memory.best(now_us).tolist() == [0.75, 0, 0]
    assert memory.near_misses(0, now_us) == (
        NearMiss(MINUTE_US + 1_000_000, 0.75, Gate.COOLDOWN),
        NearMiss(6_000_000, 0.5, Gate.DURATION),
    )
    assert memory.near_misses(1, now_us) == ()


def test_what_is_older_than_the_kept_minutes_is_forgotten() -> None:
    memory = Memory(KEYS)
    memory.add(0, row(0.9, 0, 0), Gates.none())
    assert memory.best((MINUTES - 1) * MINUTE_US)[0] == pytest.approx(0.9, abs=1e-3)
    assert memory.best(MINUTES * MINUTE_US)[0] == 0
    memory.add(MINUTES * MINUTE_US, row(0.1, 0, 0), Gates.none())
    assert memory.best(MINUTES * MINUTE_US)[0] == pytest.approx(0.1, abs=1e-3)


def test_a_window_older_than_everything_kept_changes_nothing() -> None:
    memory = Memory(KEYS)
    memory.add(MINUTES * MINUTE_US, row(0.25, 0, 0), Gates.none())
    memory.add(0, row(0.9, 0, 0), Gates.none())
    assert memory.best(MINUTES * MINUTE_US)[0] == 0.25


def test_at_most_five_near_misses_are_told_best_first() -> None:
    memory = Memory(KEYS)
    for minute in range(8):
        memory.add(minute * MINUTE_US, row(0.5 + minute / 16, 0, 0), Gates.none())
    told = memory.near_misses(0, 8 * MINUTE_US)
    assert [miss.confidence for miss in told] == [0.9375, 0.875, 0.8125, 0.75, 0.6875]


def test_a_better_match_outside_the_region_counts_as_the_near_miss() -> None:
    memory = Memory(KEYS)
    memory.add(0, row(0.125, 0, 0), stopped(0, 0.75, Gate.REGION))
    assert memory.near_misses(0, 0) == (NearMiss(0, 0.75, Gate.REGION),)


def test_nothing_judged_counts_as_nothing() -> None:
    memory = Memory(KEYS)
    memory.add(0, row(np.nan, 0.5, 0), Gates.none())
    assert memory.best(0).tolist() == [0, 0.5, 0]


def test_memories_follow_their_prompts_to_other_columns_and_changed_prompts_start_empty() -> None:
    memory = Memory(KEYS)
    memory.add(0, row(0.25, 0.5, 0.75), Gates.none())
    memory.rekey([("alarm", 1), ("new", 1), ("fire", 2), ("door", 3)])
    assert memory.best(0).tolist() == [0.5, 0, 0, 0.75]
    memory.rekey([])
    assert memory.best(0).tolist() == []


def test_ten_thousand_prompts_on_a_hundred_streams_fit_in_forty_megabytes() -> None:
    memory = Memory([(f"p-{number}", 1) for number in range(10_000)])
    assert memory.size_bytes * 100 <= 40_010_000


def test_gates_are_named_for_documents() -> None:
    assert [gate.label for gate in (Gate.NONE, Gate.SELECTOR, Gate.COOLDOWN)] == [None, "selector", "cooldown"]
