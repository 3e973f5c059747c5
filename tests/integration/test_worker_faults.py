"""Workers that are killed, stopped and frozen, servers that go away: nothing is lost and nothing is doubled."""

import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from streamer.embedded import ApacheKafka, EmbeddedRedis
from streamer.embedded.apache import kafka_jars
from streamer.errors import UnavailableError
from streamer.types import MediaChunk
from streamer.worker import Worker
from tests.colours import colour_encoders, make_film
from tests.programs import need_program
from tests.site import START_US, Site, chunks_of, page, until

SCENES = (("grey", 2.0), ("red", 5.0), ("grey", 4.0), ("green", 3.0), ("red", 3.0), ("grey", 3.0))
PROMPTS = ({"id": "red", "text": "red", "cooldown": "0s"}, {"id": "green", "text": "green", "cooldown": "2s"})


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "scenes.mp4", SCENES)


@pytest.fixture(scope="module")
def undisturbed(
    broker: str, redis_url: str, film: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, str]]:
    """What one worker says of streams `gate` and `yard` when nothing goes wrong."""
    site = Site(broker, redis_url, tmp_path_factory.mktemp("site"))
    prepare(site)
    with site.worker():
        site.send(media(film))
        site.wait_done()
    found = site.states()
    assert Counter(state for _, state in found)["open"] == Counter(state for _, state in found)["closed"] == 6
    return found


def prepare(site: Site) -> None:
    for document in PROMPTS:
        site.prompts.add(document)


def media(film: Path, streams: Sequence[str] = ("gate", "yard")) -> list[MediaChunk]:
    """The film on each stream, chunk by chunk in turn."""
    return [chunk for row in zip(*(chunks_of(film, stream) for stream in streams), strict=True) for chunk in row]


def same(site: Site, expected: Sequence[tuple[str, str]]) -> None:
    """Each change of state once, as it would have been, and in order within each event."""
    found = site.states()
    assert Counter(found) == Counter(expected)
    for event_id in {event_id for event_id, _ in expected}:
        assert [s for e, s in found if e == event_id] == [s for e, s in expected if e == event_id]


def some_open(site: Site) -> bool:
    """An event is open and not closed."""
    states = site.states()
    return any((event_id, "closed") not in states for event_id, state in states if state == "open")


@pytest.mark.parametrize("kills", [("ready",), ("open",), ("open", "committed")])
def test_a_worker_that_is_killed_and_started_again_says_everything_once(
    broker: str, redis_url: str, tmp_path: Path, film: Path, undisturbed: list[tuple[str, str]], kills: tuple[str, ...]
) -> None:
    site = Site(broker, redis_url, tmp_path)
    prepare(site)
    site.send(media(film))
    for moment in kills:
        with site.process(call_s=0.15) as worker:
            before = sum(site.committed(place) for place in site.ends())
            if moment == "ready":
                worker.wait_ready()
            elif moment == "open":
                until(lambda: some_open(site), "an event is open")
            else:
                until(lambda: sum(site.committed(p) for p in site.ends()) > before, "a commit")  # noqa: B023
            worker.send_signal(signal.SIGKILL)
            worker.process.wait()
        assert sum(site.committed(place) for place in site.ends()) < sum(site.ends().values())
    with site.process():
        site.wait_done()
    same(site, undisturbed)


def test_sigterm_drains_and_leaves_and_a_second_one_does_not_wait(
    broker: str, redis_url: str, tmp_path: Path, film: Path, undisturbed: list[tuple[str, str]]
) -> None:
    site = Site(broker, redis_url, tmp_path)
    prepare(site)
    site.send(media(film))
    with site.process(call_s=0.15) as worker:
        until(lambda: some_open(site), "an event is open")
        worker.send_signal(signal.SIGTERM)
        assert worker.process.wait(15) == 0
    with site.process(call_s=2.0) as worker:
        worker.wait_ready()
        time.sleep(0.5)  # into an encoder's call
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        began_s = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0
        assert time.monotonic() - began_s < 6.0
    with site.process():
        site.wait_done()
    same(site, undisturbed)


def test_two_workers_share_partitions_and_a_killed_ones_are_taken_over_in_mid_event(
    apache_kafka: str, redis_url: str, tmp_path: Path, film: Path, undisturbed: list[tuple[str, str]]
) -> None:
    site = Site(apache_kafka, redis_url, tmp_path, kafka__session_timeout_s=6.0)
    prepare(site)
    chunks = media(film)
    assert len({site.partition_of(stream) for stream in ("gate", "yard")}) == 2
    with ExitStack() as workers:
        first = workers.enter_context(site.process(call_s=0.05))
        first.wait_ready()  # it owns both until the second one joins
        second = workers.enter_context(site.process(call_s=0.05))
        second.wait_ready()
        until(lambda: len(set(site.owners().values())) == 2, "each owns one")
        site.send(chunks[: len(chunks) // 4])
        until(lambda: len({event.stream for event in site.events()}) == 2, "both are at work")
        assert some_open(site)
        first.send_signal(signal.SIGKILL)
        site.send(chunks[len(chunks) // 4 :])
        site.wait_done()
        assert len(set(site.owners().values())) == 1
    same(site, undisturbed)


def test_a_worker_that_wakes_up_after_losing_its_partitions_is_refused_and_goes_on_with_what_it_gets(
    apache_kafka: str, redis_url: str, tmp_path: Path, film: Path, undisturbed: list[tuple[str, str]]
) -> None:
    site = Site(apache_kafka, redis_url, tmp_path, kafka__session_timeout_s=6.0)
    prepare(site)
    chunks = media(film)
    with ExitStack() as workers:
        first = workers.enter_context(site.process(call_s=0.1))
        first.wait_ready()  # it owns both until the second one joins
        second = workers.enter_context(site.process(call_s=0.1))
        second.wait_ready()
        until(lambda: len(set(site.owners().values())) == 2, "each owns one")
        owners = site.owners()
        site.send(chunks[: len(chunks) // 2])
        until(lambda: some_open(site), "an event is open")
        first.send_signal(signal.SIGSTOP)
        until(lambda: len(set(site.owners().values())) == 1, "its partition is taken over")
        taker = next(iter(site.owners().values()))
        first.send_signal(signal.SIGCONT)
        until(lambda: len(set(site.owners().values())) == 2, "it has joined again")
        site.send(chunks[len(chunks) // 2 :])
        site.wait_done()
        assert first.process.poll() is None
        assert second.process.poll() is None
        assert taker in owners.values()
    same(site, undisturbed)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


def test_a_redis_that_dies_in_mid_event_and_comes_back_costs_nothing(
    broker: str, own_redis: EmbeddedRedis, tmp_path: Path, film: Path, undisturbed: list[tuple[str, str]]
) -> None:
    site = Site(broker, own_redis.url, tmp_path)
    prepare(site)
    chunks = media(film)
    with site.worker() as worker:
        site.send(chunks[: len(chunks) // 3])
        until(lambda: some_open(site), "an event is open")
        own_redis.kill()
        site.send(chunks[len(chunks) // 3 :])
        until(lambda: page(f"{worker.url}/readyz")[0] == 503, "not ready")
        status, reasons = page(f"{worker.url}/readyz")
        assert status == 503
        assert "redis" in reasons
        assert "watchword_redis_up 0.0" in page(f"{worker.url}/metrics")[1]
        own_redis.start()
        site.wait_done()
        until(lambda: page(f"{worker.url}/readyz")[0] == 200, "ready again")
        assert "watchword_redis_up 1.0" in page(f"{worker.url}/metrics")[1]
    same(site, undisturbed)


def test_a_worker_whose_redis_is_away_still_obeys_two_signals(
    broker: str, own_redis: EmbeddedRedis, tmp_path: Path, film: Path
) -> None:
    site = Site(broker, own_redis.url, tmp_path)
    prepare(site)
    site.send(media(film))
    with site.process(call_s=0.1) as process:
        process.wait_ready()
        own_redis.kill()
        time.sleep(2.0)  # until commits wait for it
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.process.wait(12) == 0


def test_a_kafka_that_dies_in_mid_event_and_comes_back_costs_nothing(
    redis_url: str, tmp_path: Path, film: Path, undisturbed: list[tuple[str, str]]
) -> None:
    need_program("java")
    need_program("mvn")
    kafka_jars()
    with ApacheKafka(tmp_path / "kafka") as kafka:
        site = Site(kafka.bootstrap, redis_url, tmp_path, kafka__session_timeout_s=6.0)
        prepare(site)
        chunks = media(film)
        with site.worker() as worker:
            site.send(chunks[: len(chunks) // 3])
            until(lambda: some_open(site), "an event is open")
            kafka.kill()
            until(lambda: page(f"{worker.url}/readyz")[0] == 503, "not ready")
            assert "kafka" in page(f"{worker.url}/readyz")[1]
            assert "watchword_kafka_up 0.0" in page(f"{worker.url}/metrics")[1]
            kafka.start()
            site.send(chunks[len(chunks) // 3 :])
            site.wait_done(timeout_s=60)
            until(lambda: page(f"{worker.url}/readyz")[0] == 200, "ready again")
        same(site, undisturbed)


@pytest.mark.parametrize("missing", ["kafka.bootstrap", "redis.url"])
def test_a_server_that_is_away_at_start_is_one_clear_error(
    broker: str, redis_url: str, tmp_path: Path, missing: str
) -> None:
    site = Site(broker, redis_url, tmp_path)
    section, _, key = missing.partition(".")
    nobody = {"bootstrap": "127.0.0.1:9", "url": "redis://:secret@127.0.0.1:9/0"}[key]
    part = getattr(site.settings, section).model_copy(update={key: nobody})
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9\b.*check that it runs") as caught:
        Worker(site.settings.model_copy(update={section: part}), colour_encoders())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("order", [0, 1])
def test_events_do_not_hang_on_batches_or_on_the_order_of_streams(
    broker: str, redis_url: str, tmp_path: Path, film: Path, undisturbed: list[tuple[str, str]], order: int
) -> None:
    site = Site(broker, redis_url, tmp_path)
    prepare(site)
    streams = [chunks_of(film, stream) for stream in ("gate", "yard")]
    sent = list(itertools.chain(*(streams if order else reversed(streams))))
    flags: dict[str, Any] = {"batch__max_frames": 1 if order else 256, "batch__max_wait_s": 0 if order else 1.0}
    with site.worker(**flags), site.worker(**flags):
        site.send(sent)
        site.wait_done()
    same(site, undisturbed)
    assert min(chunk.capture_us for chunk in sent) == START_US
