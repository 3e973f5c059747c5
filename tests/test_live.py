import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from redis import Redis

from streamer.errors import PromptError, WatchwordError
from streamer.gates import Gate, Gates, Memory
from streamer.live import FULL_INTERVAL_S, MAX_PROMPTS, Glimpse, LiveBoard, StreamStatus, nearest_columns, why_document
from streamer.prompt_table import PromptTable
from streamer.prompts import Prompt
from streamer.redis_client import connect_redis
from streamer.why import explain
from tests.test_track import a_prompt

NOW_US = 1_764_000_000_000_000
PROMPTS = (a_prompt(), a_prompt(id="alarm", text="a smoke alarm"), a_prompt(id="door", streams="door-*"))


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    client.close()


@pytest.fixture
def board(redis: Redis, prefix: str) -> LiveBoard:
    return LiveBoard(redis, prefix, ttl_s=30)


def a_glimpse(
    *confidence: float,
    table: PromptTable | None = None,
    gates: Sequence[tuple[int, float, Gate]] = (),
    labels: dict[str, str] | None = None,
) -> Glimpse:
    table = table or PromptTable(PROMPTS)
    row = np.array(confidence or [0.1] * len(table), np.float32)
    memory = Memory([(prompt.id, prompt.version) for prompt in table.prompts])
    columns, values, gate = ([each[part] for each in gates] for part in range(3))
    memory.add(
        NOW_US - 1_000_000,
        row,
        Gates(np.array(columns, np.intp), np.array(values, np.float32), np.array(gate, np.uint8)),
    )
    status = StreamStatus(NOW_US, 8.0, 3, 1, 2, 4, 0.5, 0, labels or {})
    return Glimpse("yard-1", status, table, row, memory, NOW_US)


def explained(board: LiveBoard, name: str = "fire", stream: str = "yard-1", prompts: Sequence[Prompt] = PROMPTS) -> Any:
    return explain(board, prompts, stream, name, (), NOW_US)


def test_a_dashboard_sees_confidences_and_how_streams_fare(board: LiveBoard, redis: Redis, prefix: str) -> None:
    board.write([a_glimpse(0.25, 0.5, float("nan"), labels={"site": "north"})], 100.0)
    assert board.confidences("yard-1") == {"fire": 0.25, "alarm": 0.5}
    status = board.streams()["yard-1"]
    assert (status["rate_hz"], status["gaps"], status["refused"], status["skipped"]) == ("8.0", "1", "2", "4")
    assert json.loads(status["labels"]) == {"site": "north"}
    assert 0 < redis.ttl(f"{prefix}live:yard-1") <= 30


def test_between_full_writes_only_what_changed_is_written(board: LiveBoard, redis: Redis, prefix: str) -> None:
    table = PromptTable(PROMPTS)
    board.write([a_glimpse(0.25, 0.5, 0.1, table=table)], 100.0)
    redis.hset(f"{prefix}live:yard-1", "alarm", "untouched")
    redis.hset(f"{prefix}live:yard-1", "gone", "0.9")
    board.write([a_glimpse(0.75, 0.502, 0.1, table=table)], 101.0)
    assert redis.hget(f"{prefix}live:yard-1", "fire") == b"0.75"
    assert redis.hget(f"{prefix}live:yard-1", "alarm") == b"untouched"
    board.write([a_glimpse(0.75, 0.502, 0.1, table=table)], 101.0 + FULL_INTERVAL_S)
    assert board.confidences("yard-1") == {"fire": 0.75, "alarm": 0.502, "door": 0.1}


def test_a_change_of_the_prompts_drops_those_that_are_gone(board: LiveBoard) -> None:
    board.write([a_glimpse(0.25, 0.5, 0.1)], 100.0)
    board.write([a_glimpse(0.25, table=PromptTable(PROMPTS[:1]))], 101.0)
    assert board.confidences("yard-1") == {"fire": 0.25}


def test_streams_that_were_gone_for_a_day_are_forgotten(board: LiveBoard) -> None:
    board.write([a_glimpse()], 100.0)
    board.write([], 100.0 + 86_401)
    assert board.streams() == {}


def test_of_very_many_prompts_those_nearest_to_their_thresholds_are_written(board: LiveBoard) -> None:
    table = PromptTable([a_prompt(id=f"p-{n}", threshold=0.9 if n < 10 else 0.1) for n in range(1000)])
    confidence = np.full(1000, 0.05, np.float32)
    confidence[:10] = 0.3
    confidence[500] = 0.09
    columns = nearest_columns(confidence, table.thresholds)
    assert len(columns) == MAX_PROMPTS
    assert 500 in columns
    assert 0 not in columns
    board.write([a_glimpse(*confidence, table=table)], 100.0)
    assert len(board.confidences("yard-1")) == MAX_PROMPTS
    document = why_document(a_glimpse(*confidence, table=table))
    assert document["floor"] == pytest.approx(0.3, abs=1e-3)


def test_why_tells_the_best_the_near_misses_and_the_gate(board: LiveBoard) -> None:
    board.write([a_glimpse(0.625, 0.1, 0.9, gates=[(0, 0.625, Gate.DURATION), (2, 0.9, Gate.SELECTOR)])], 100.0)
    document = explained(board)
    assert document["near_misses"] == [{"time": "2025-11-24T15:59:59.000000Z", "confidence": 0.625, "gate": "duration"}]
    assert (document["best"], document["threshold"], document["gate"]) == (0.625, 0.5, "duration")
    assert explained(board, "a smoke alarm")["prompt"] == "alarm"
    assert explained(board, "alarm")["gate"] == "threshold"
    assert explained(board, "door")["gate"] == "selector"


def test_a_prompt_that_fired_was_stopped_by_nothing(board: LiveBoard) -> None:
    board.write([a_glimpse(0.75, 0.1, 0.1, gates=[(0, 0.75, Gate.NONE)])], 100.0)
    document = explained(board)
    assert (document["best"], document["gate"], document["near_misses"]) == (0.75, None, [])


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"enabled": False}, "disabled"),
        ({"streams": "site=south"}, "selector"),
        ({"streams": "site=north"}, "threshold"),
        ({"schedule": "Mo-Su 00:00-00:01 UTC"}, "schedule"),
        ({"region": ((0.1, 0.1), (0.3, 0.1), (0.3, 0.3)), "modality": "video"}, "mask"),
        ({"region": ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9)), "modality": "video"}, "threshold"),
        ({"region": ((0.1, 0.1), (0.3, 0.1), (0.3, 0.3)), "modality": "any"}, "threshold"),
    ],
)
def test_why_names_what_stands_in_the_way_always(board: LiveBoard, change: dict[str, Any], gate: str) -> None:
    board.write([a_glimpse(labels={"site": "north"})], 100.0)
    corner = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5))
    assert explain(board, [a_prompt(**change)], "yard-1", "fire", [corner], NOW_US)["gate"] == gate


def test_of_prompts_that_are_not_listed_why_tells_a_bound(board: LiveBoard) -> None:
    prompts = [a_prompt(id=f"p-{n}") for n in range(MAX_PROMPTS + 1)]
    confidence = [0.25] * MAX_PROMPTS + [0.125]
    board.write([a_glimpse(*confidence, table=PromptTable(prompts))], 100.0)
    document = explained(board, f"p-{MAX_PROMPTS}", prompts=prompts)
    assert document["best"] == 0.125
    assert "no more than this" in document["explanation"]


@pytest.mark.parametrize(
    ("stream", "prompt", "message"),
    [
        ("yard-2", "fire", "no worker has seen a stream 'yard-2'; did you mean 'yard-1'"),
        ("yard-1", "fir", "there is no prompt 'fir'; did you mean 'fire'"),
        ("yard-1", "xyz", "there is no prompt 'xyz'; known are alarm, door, fire"),
        ("yard-1", "system-dark", "system-dark watches the camera itself"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(board: LiveBoard, stream: str, prompt: str, message: str) -> None:
    board.write([a_glimpse()], 100.0)
    with pytest.raises(WatchwordError, match=message):
        explained(board, prompt, stream)


def test_without_any_prompts_that_is_said(board: LiveBoard) -> None:
    with pytest.raises(PromptError, match="there are none at all"):
        explained(board, prompts=())


def test_a_stream_that_no_worker_looks_at_any_more_is_named(board: LiveBoard, redis: Redis, prefix: str) -> None:
    board.write([a_glimpse()], 100.0)
    redis.delete(f"{prefix}why:yard-1")
    with pytest.raises(WatchwordError, match="no worker has looked at stream 'yard-1' for a while"):
        explained(board)
