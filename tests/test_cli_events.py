import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from redis import Redis
from typer.testing import CliRunner

from streamer.cli import events as cli
from streamer.cli.streams import streams
from streamer.cli.why import why
from streamer.emit import Emitter, EventLimits
from streamer.errors import SettingsError, UnavailableError, UsageError, WatchwordError
from streamer.events import Event
from streamer.live import LiveBoard
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.types import EventState, Evidence
from tests.event_builders import SECOND_US, START_US, a_transition, an_event
from tests.test_live import a_glimpse

FIRE, CLOSED = an_event(), an_event(a_transition(state=EventState.CLOSED))
ALARM = an_event(a_transition(stream="door-1", prompt="alarm", start_us=START_US + SECOND_US))

app = typer.Typer()
app.add_typer(cli.app, name="events")
app.command()(why)
app.command()(streams)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    client.close()


@pytest.fixture
def settings(redis_url: str, prefix: str, tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps({"redis": {"url": redis_url, "prefix": prefix}}))
    return path


def tell(redis: Redis, prefix: str, *events: Event) -> None:
    emitter = Emitter(redis, prefix, EventLimits(1000, 3600, 60))
    emitter.commit(0, emitter.claim(0).epoch, {"media": 1}, {}, events)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def documents(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def as_documents(*events: Event) -> list[Any]:
    return [json.loads(event.to_json()) for event in events]


def test_tail_prints_a_document_per_line_in_the_order_told(redis: Redis, prefix: str, settings: Path) -> None:
    tell(redis, prefix, FIRE, ALARM, CLOSED)
    assert documents(run("events", "tail", "--json", "--config", settings)) == as_documents(FIRE, ALARM, CLOSED)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-n", "1"], [CLOSED]),
        (["-n", "0"], []),
        (["--since", "1h"], [FIRE, ALARM, CLOSED]),
        (["--since", "2999-01-01T00:00:00Z"], []),
        (["--stream", "door-*"], [ALARM]),
        (["--prompt", "fi*"], [FIRE, CLOSED]),
        (["--prompt", "fi*", "-n", "1"], [CLOSED]),
    ],
)
def test_tail_can_be_narrowed(
    redis: Redis, prefix: str, settings: Path, options: list[str], expected: list[Event]
) -> None:
    tell(redis, prefix, FIRE, ALARM, CLOSED)
    assert documents(run("events", "tail", "--json", "--config", settings, *options)) == as_documents(*expected)


def test_tail_without_events_prints_nothing(settings: Path) -> None:
    assert run("events", "tail", "--config", settings) == ""


def test_tail_for_people_names_stream_prompt_and_state(redis: Redis, prefix: str, settings: Path) -> None:
    tell(redis, prefix, FIRE)
    line = run("events", "tail", "--config", settings)
    for part in ("2025-11-24 16:00:00", "open", "yard-1", "fire", "0.75", FIRE.id):
        assert part in line


def test_tail_follows_until_interrupted_and_ends_well(redis: Redis, prefix: str, settings: Path) -> None:
    tell(redis, prefix, FIRE)
    code = "from streamer.cli.events import app; app()"
    command = [sys.executable, "-c", code, "tail", "-f", "--json", "--config", str(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as it:
        try:
            assert it.stdout is not None
            assert json.loads(it.stdout.readline())["state"] == "open"
            tell(redis, prefix, CLOSED)
            assert json.loads(it.stdout.readline())["state"] == "closed"
            it.send_signal(signal.SIGINT)
            assert it.wait(10) == 0
        finally:
            it.kill()


def test_list_shows_each_event_once_in_its_latest_state(redis: Redis, prefix: str, settings: Path) -> None:
    tell(redis, prefix, FIRE, ALARM, CLOSED)
    assert documents(run("events", "list", "--json", "--config", settings)) == as_documents(ALARM, CLOSED)
    closed = run("events", "list", "--json", "--config", settings, "--state", "closed", "--stream", "yard-1")
    assert documents(closed) == as_documents(CLOSED)
    assert documents(run("events", "list", "--json", "--config", settings, "--since", "1h")) == []


def test_list_for_people_is_a_table_or_says_what_to_try(redis: Redis, prefix: str, settings: Path) -> None:
    assert "watchword why" in run("events", "list", "--config", settings)
    tell(redis, prefix, FIRE)
    assert "yard-1" in run("events", "list", "--config", settings)


def test_show_prints_one_event(redis: Redis, prefix: str, settings: Path) -> None:
    tell(redis, prefix, FIRE)
    assert json.loads(run("events", "show", FIRE.id, "--config", settings)) == as_documents(FIRE)[0]
    with pytest.raises(WatchwordError, match="there is no event 'nothing'"):
        run("events", "show", "nothing", "--config", settings)


def test_schema_prints_the_schema_without_any_server() -> None:
    assert json.loads(run("events", "schema"))["title"] == "Event"


def test_why_prints_what_other_programs_read(redis: Redis, prefix: str, settings: Path) -> None:
    PromptStore(redis, prefix).add({"id": "fire", "text": "fire"})
    LiveBoard(redis, prefix, 30).write([a_glimpse(0.3, 0.1, 0.1)], time.time())
    document = json.loads(run("why", "yard-1", "fire", "--json", "--config", settings))
    assert {"best", "threshold", "gate", "near_misses"} <= set(document)
    assert (document["best"], document["gate"]) == (pytest.approx(0.3, abs=1e-3), "threshold")
    text = run("why", "yard-1", "fire", "--config", settings)
    assert "best 0.30, threshold 0.50. It stayed under its threshold." in text


def test_streams_prints_how_each_fares(redis: Redis, prefix: str, settings: Path) -> None:
    assert "no streams yet" in run("streams", "--config", settings)
    LiveBoard(redis, prefix, 30).write([a_glimpse(0.3, 0.1, 0.1, labels={"site": "north"})], time.time())
    (document,) = documents(run("streams", "--json", "--config", settings))
    assert (document["stream"], document["rate_hz"], document["labels"]) == ("yard-1", 8.0, {"site": "north"})
    assert document["live"] == {"fire": 0.3, "alarm": 0.1, "door": 0.1}
    assert "yard-1" in run("streams", "--config", settings)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("10m", 600), ("1.5h", 5400), ("7d", 604_800)])
def test_since_takes_how_long_ago(text: str, seconds: float) -> None:
    assert cli.parse_since(text, 1_000_000.0) == round((1_000_000 - seconds) * 1e6)


@pytest.mark.parametrize("text", ["yesterday", "10", "-5m", "2026-13-01"])
def test_since_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        cli.parse_since(text, 0.0)


def test_mistakes_get_one_sentence(settings: Path) -> None:
    with pytest.raises(UsageError, match="--state 'done' is not allowed; open, update and closed are"):
        run("events", "list", "--state", "done", "--config", settings)
    with pytest.raises(UnavailableError, match=r"redis at 127\.0\.0\.1:1 cannot be reached"):
        run("events", "tail", "--redis", "redis://127.0.0.1:1/0")
    with pytest.raises(SettingsError, match=r"redis\.url is empty"):
        run("streams")


def test_events_are_marked_and_the_prompt_says_what_it_follows(redis: Redis, prefix: str, settings: Path) -> None:
    PromptStore(redis, prefix).add({"id": "fire", "text": "fire"})
    evidence = Evidence(None, None, (), (0, 1), 0, 0.75, 0.75, None, 1.5)
    event = an_event(a_transition(evidence=evidence))
    tell(redis, prefix, event)
    told = run("events", "mark", event.id, "wrong", "--config", settings)
    assert told == "fire follows 0 right and 1 wrong (version 2)\n"
    (listed,) = run("events", "marks", "fire", "--config", settings).splitlines()
    assert listed.split("\t")[1:] == [event.id, "wrong"]
    (mark,) = documents(run("events", "marks", "fire", "--json", "--config", settings))
    assert (mark["event"], mark["is_right"], mark["seen"]) == (event.id, False, 1.5)
    (document,) = documents(run("events", "mark", event.id, "none", "--json", "--config", settings))
    assert "marked" not in document
    with pytest.raises(UsageError, match="right, wrong and none"):
        run("events", "mark", event.id, "maybe", "--config", settings)
