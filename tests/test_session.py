"""A run that ends with its sources, with encoders that load at once."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from streamer.errors import PromptError, SourceError, UnavailableError
from streamer.events import Event
from streamer.ingest.spec import SourceSpec
from streamer.local import local_servers
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.session import Session, open_session
from streamer.settings import Settings, load_settings
from tests.colours import colour_encoders, make_film
from tests.site import until

RED: Mapping[str, object] = {"id": "red", "text": "red"}
SCENES = [("grey", 1.0), ("red", 4.0), ("grey", 2.0)]


@pytest.fixture(autouse=True)
def quick_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.stages.load_chosen", lambda *_: colour_encoders())


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("session") / "film.mp4", SCENES)


def settings(**flags: object) -> Settings:
    own: dict[str, object] = {"overload.policy": "lossless", "log.level": "error", "system.enabled": False}
    return load_settings(flags=own | {"encode.device": "cpu", "kafka.partitions": 2, **flags})


def at_once(path: Path) -> SourceSpec:
    return SourceSpec(str(path), rate=None)


def states(events: list[Event]) -> dict[str, list[str]]:
    """What became of each stream's event, updates left out."""
    found: dict[str, list[str]] = {}
    for event in events:
        if event.state != "update":
            found.setdefault(event.stream, []).append(event.state)
    return found


def test_it_ends_by_itself_once_every_source_was_looked_at_to_its_end(film: Path) -> None:
    waits = []
    with open_session(settings(), {"one": at_once(film), "two": at_once(film)}, [RED]) as session:
        events = list(session.events(on_wait=lambda: waits.append(1)))
        until(lambda: len(session.progress().streams) == 2, "both streams are told of", timeout_s=10)
        progress = session.progress()
        servers = session._servers
        assert len(servers) == 2
    assert states(events) == {"one": ["open", "closed"], "two": ["open", "closed"]}
    assert {event.prompt.id for event in events} == {"red"}
    assert waits
    assert [(fact.name, fact.state, fact.dropped) for fact in progress.sources] == [
        ("one", "ended", 0),
        ("two", "ended", 0),
    ]
    assert set(progress.confidences["one"]) == {"red"}
    assert not any(server.is_running for server in servers)


def test_one_source_that_fails_is_told_after_the_events_of_the_others(film: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no film" * 100)
    events: list[Event] = []
    with open_session(settings(), {"good": at_once(film), "bad": at_once(broken)}, [RED]) as session:
        with pytest.raises(SourceError, match=r"bad: .*broken\.mp4"):
            events.extend(session.events())
        assert states(events) == {"good": ["open", "closed"]}


def test_a_prompt_that_is_refused_ends_it_before_a_worker_starts(film: Path) -> None:
    with (
        pytest.raises(PromptError, match="threshold"),
        open_session(settings(), {"one": at_once(film)}, [{"text": "red", "threshold": 7}]),
    ):
        pytest.fail("it was opened")


def test_events_of_an_earlier_run_on_the_same_redis_are_not_told_again(
    film: Path, broker: str, redis_url: str, prefix: str
) -> None:
    name = prefix.strip(":")
    own = settings(
        **{
            "redis.url": redis_url,
            "redis.prefix": prefix,
            "kafka.bootstrap": broker,
            "kafka.topics": [f"media.{name}"],
            "kafka.dead_topic": f"dead.{name}",
            "kafka.group": name,
            "kafka.session_timeout_s": 1.0,
        }
    )
    for stream in ("first", "second"):
        with open_session(own, {stream: at_once(film)}, [RED] if stream == "first" else []) as session:
            assert states(list(session.events())) == {stream: ["open", "closed"]}
            assert session._servers == ()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_server_of_ours_that_ends_ends_the_run_with_what_happened(film: Path, victim: int) -> None:
    endless = SourceSpec(str(film), rate=1.0, loop=True)
    with local_servers(settings(), is_long_run=False) as (running, servers):
        with connect_redis(running.redis.url) as redis:
            PromptStore(redis, running.redis.prefix).add(RED)
        with Session(running, {"one": endless}, servers) as session:
            events = session.events()
            assert next(events).state == "open"
            os.kill(servers[victim].pid, signal.SIGKILL)
            with pytest.raises(UnavailableError, match=rf"embedded {servers[victim].kind} on .* has ended"):
                list(events)
            left_s = time.monotonic()
        assert time.monotonic() - left_s < 15, "it waits for what cannot come"
