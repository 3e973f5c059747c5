import json
import threading
from collections.abc import Iterator
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from redis import Redis

from streamer.emit import Emitter, EventLimits
from streamer.event_log import START, EventLog
from streamer.events import Event, event_id, event_schema, from_rfc3339, to_rfc3339
from streamer.redis_client import connect_redis
from streamer.types import EventState, Evidence, Position
from tests.event_builders import SECOND_US, START_US, a_transition, an_event

VALIDATOR = Draft202012Validator(event_schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)
LIMITS = EventLimits(max_length=10_000, max_age_s=3600, snapshot_ttl_s=60)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    client.close()


@pytest.fixture
def emitter(redis: Redis, prefix: str) -> Emitter:
    return Emitter(redis, prefix, LIMITS)


@pytest.fixture
def log(redis: Redis, prefix: str) -> EventLog:
    return EventLog(redis, prefix)


def tell(emitter: Emitter, *events: Event) -> None:
    emitter.commit(0, emitter.claim(0).epoch, {"media": 1}, {}, events)


def test_the_schema_file_says_what_the_models_say() -> None:
    written = (files("streamer") / "event.schema.json").read_text(encoding="utf-8")
    assert json.loads(written) == json.loads(json.dumps(event_schema()))


def test_the_schema_is_a_schema_that_describes_every_field_and_allows_no_other() -> None:
    schema = event_schema()
    Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False
        assert set(part["required"]) == set(part["properties"])
        for name, field in part["properties"].items():
            assert field.get("description"), name


unit = st.floats(0, 1, allow_nan=False)
transitions = st.builds(
    a_transition,
    state=st.sampled_from(EventState),
    start_us=st.integers(0, 4_000_000_000_000_000),
    end_us=st.integers(0, 4_000_000_000_000_000),
    confidence=unit,
    seen=st.none() | unit,
    heard=st.none() | unit,
    evidence=st.none()
    | st.builds(
        Evidence,
        region=st.none() | st.tuples(unit, unit, unit, unit),
        frame_time_us=st.none() | st.integers(0, 4_000_000_000_000_000),
        attention=st.lists(st.lists(unit, max_size=4).map(tuple), max_size=4).map(tuple),
        window_us=st.none() | st.tuples(st.integers(0, 4_000_000_000_000_000), st.integers(0, 4_000_000_000_000_000)),
        since_us=st.none() | st.integers(0, 4_000_000_000_000_000),
        confidence=st.none() | unit,
        seen=st.none() | unit,
        heard=st.none() | unit,
    ),
    media=st.none() | st.builds(Position, st.text(max_size=9), st.integers(0, 99), st.integers(0, 2**40)),
    severity=st.sampled_from(["info", "warning", "critical"]),
    labels=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)


@given(transitions)
def test_every_document_fits_the_schema_and_is_read_back_as_it_was(transition: object) -> None:
    event = an_event(transition)  # type: ignore[arg-type]  # st.builds loses the type
    VALIDATOR.validate(json.loads(event.to_json()))
    assert Event.model_validate_json(event.to_json()) == event


@pytest.mark.parametrize(
    ("key", "value"),
    [("state", "ended"), ("peak", 1.5), ("start", "2026-11-24 12:00"), ("extra", 1), ("severity", "loud"), ("id", "x")],
)
def test_the_schema_refuses_what_is_no_event(key: str, value: object) -> None:
    document = json.loads(an_event().to_json()) | {key: value}
    with pytest.raises(ValidationError):
        VALIDATOR.validate(document)


def test_an_id_depends_on_stream_prompt_and_start_alone() -> None:
    ids = {event_id(s, p, t) for s in ("a", "ab") for p in ("b", "bb") for t in (1, 11)}
    assert len(ids) == 8
    assert event_id("a", "b", 1) == event_id("a", "b", 1) == "332d4741402e1780"


@given(st.integers(0, 250_000_000_000_000_000))
def test_times_survive_the_text_to_the_microsecond(at_us: int) -> None:
    assert from_rfc3339(to_rfc3339(at_us)) == at_us


def test_a_time_is_written_in_utc_with_microseconds() -> None:
    assert to_rfc3339(1_764_000_000_250_000) == "2025-11-24T16:00:00.250000Z"
    assert from_rfc3339("2025-11-24T17:00:00.25+01:00") == 1_764_000_000_250_000


def test_the_labels_of_the_prompt_count_more_than_those_of_the_stream() -> None:
    assert an_event(a_transition(labels={"site": "mine", "team": "night"})).labels == {"site": "mine", "team": "night"}


def test_a_system_prompt_is_marked() -> None:
    assert an_event(a_transition(prompt="system-dark")).prompt.system
    assert not an_event().prompt.system


def test_reading_goes_on_after_an_entry(emitter: Emitter, log: EventLog) -> None:
    opened, closed = an_event(), an_event(a_transition(state=EventState.CLOSED))
    assert log.read(START) == (START, [])
    tell(emitter, opened)
    last_id, entries = log.read(START)
    assert [entry.event for entry in entries] == [opened]
    assert (last_id, entries[-1].id) == (log.last_id(), log.last_id())
    tell(emitter, closed)
    assert [entry.event for entry in log.read(last_id)[1]] == [closed]


def test_a_read_that_waits_gets_what_comes(emitter: Emitter, log: EventLog) -> None:
    timer = threading.Timer(0.1, tell, (emitter, an_event()))
    timer.start()
    _, entries = log.read(START, block_s=2.0)
    timer.join()
    assert len(entries) == 1


def test_following_yields_what_comes_until_stopped(emitter: Emitter, log: EventLog) -> None:
    events = [an_event(a_transition(start_us=START_US + i)) for i in range(3)]
    tell(emitter, *events)
    is_stopped = iter([False, True])
    assert [entry.event for entry in log.follow(START, lambda: next(is_stopped))] == events


def test_entries_since_a_time_are_read_page_by_page(emitter: Emitter, log: EventLog) -> None:
    events = [an_event(a_transition(start_us=START_US + i)) for i in range(450)]
    tell(emitter, *events)
    assert [entry.event.id for entry in log.since(0)] == [event.id for event in events]
    told_us = next(entry.told_us for entry in log.recent(1))
    assert [entry.id for entry in log.since(told_us)][-1] == log.last_id()
    assert list(log.since(told_us + 1000)) == []


def test_the_newest_entries_come_oldest_first(emitter: Emitter, log: EventLog) -> None:
    events = [an_event(a_transition(start_us=START_US + i)) for i in range(5)]
    tell(emitter, *events)
    assert [entry.event for entry in log.recent(2)] == events[3:]
    assert log.recent(0) == []


def test_what_is_no_event_is_left_out(redis: Redis, prefix: str, emitter: Emitter, log: EventLog) -> None:
    redis.xadd(f"{prefix}events", {"event": "{}"})
    redis.xadd(f"{prefix}events", {"other": "x"})
    tell(emitter, an_event())
    assert len(log.read(START)[1]) == 1


def test_events_are_found_once_in_their_latest_state_newest_first(emitter: Emitter, log: EventLog) -> None:
    fire = a_transition()
    alarm = a_transition(prompt="alarm", start_us=START_US + SECOND_US)
    door = a_transition(stream="door-1", start_us=START_US + 2 * SECOND_US)
    closed = a_transition(state=EventState.CLOSED)
    tell(emitter, *(an_event(each) for each in (fire, alarm, door, closed)))
    assert [(event.id, event.state) for event in log.find(9)] == [
        (door.id, "open"),
        (alarm.id, "open"),
        (fire.id, "closed"),
    ]
    assert [event.id for event in log.find(9, stream="yard-1")] == [alarm.id, fire.id]
    assert [event.id for event in log.find(9, prompt="fire")] == [door.id, fire.id]
    assert [event.id for event in log.find(9, stream="yard-1", prompt="fire")] == [fire.id]
    assert [event.id for event in log.find(9, state="closed")] == [fire.id]
    assert [event.id for event in log.find(9, since_us=START_US + SECOND_US)] == [door.id, alarm.id]
    assert [event.id for event in log.find(1)] == [door.id]
    assert log.find(9, stream="nowhere") == []


def test_an_event_is_found_by_its_id(emitter: Emitter, log: EventLog) -> None:
    event = an_event()
    tell(emitter, event)
    assert log.get(event.id) == event
    assert log.get("0" * 16) is None
