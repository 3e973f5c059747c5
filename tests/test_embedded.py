"""Real servers: how they start, what they keep, and that nothing of them is left."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import structlog

from streamer.embedded import (
    ApacheKafka,
    BrokerKind,
    EmbeddedRedis,
    EmbeddedServer,
    TansuBroker,
    apache,
    choose_broker,
    server,
    tansu,
    valkey,
)
from streamer.embedded.folder import Folder
from streamer.errors import UnavailableError
from streamer.kafka_client import cluster_id_of, ensure_topics, topic_facts
from streamer.kafka_producer import BoundedProducer
from tests.programs import need_program

QUICK = [EmbeddedRedis, TansuBroker]
LIMIT_BYTES = 8_388_608


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a zombie whose new parent does not reap it has ended all the same


def folder_of(running: EmbeddedServer) -> Path:
    assert running._folder is not None
    return running._folder.path


@pytest.fixture
def no_search_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_redis_answers_and_is_gone_after_stop() -> None:
    with EmbeddedRedis() as running:
        folder = folder_of(running)
        pid = running.pid
        with redis.Redis.from_url(running.url) as client:
            assert client.set("a", "b")
        assert running.resident_bytes > 1_000_000
        assert not running.url.endswith(":6379/0")
    assert not is_alive(pid)
    assert not folder.exists()


@pytest.mark.parametrize("kind", QUICK)
def test_two_of_a_kind_do_not_get_in_each_others_way(kind: type[EmbeddedServer]) -> None:
    with kind() as one, kind() as other:
        assert one.address != other.address
        assert one.pid != other.pid


@pytest.mark.parametrize("kind", QUICK)
def test_starting_twice_starts_once(kind: type[EmbeddedServer]) -> None:
    with kind() as running:
        pid = running.pid
        assert running.start().pid == pid


def test_redis_killed_and_started_again_has_the_same_address_and_every_acknowledged_write() -> None:
    with EmbeddedRedis() as running:
        address = running.address
        with redis.Redis.from_url(running.url) as client:
            for number in range(1_000):
                client.rpush("numbers", number)
        running.kill()
        assert not running.is_running
        running.start()
        assert running.address == address
        with redis.Redis.from_url(running.url) as client:
            assert client.llen("numbers") == 1_000


def test_redis_keeps_a_folder_of_the_users_and_finds_it_again(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    for expected in (1, 2):
        with EmbeddedRedis(folder) as running, redis.Redis.from_url(running.url) as client:
            assert client.incr("starts") == expected
    assert folder.is_dir()


@pytest.mark.slow
def test_kafka_keeps_a_folder_of_the_users_and_finds_it_again(tmp_path: Path) -> None:
    need_program("java")
    need_program("mvn")
    with ApacheKafka(tmp_path / "kafka") as running:
        ensure_topics(running.bootstrap, ["kept"], partitions=3, message_max_bytes=LIMIT_BYTES)
        cluster_id = cluster_id_of(running.bootstrap)
    with ApacheKafka(tmp_path / "kafka") as running:
        assert topic_facts(running.bootstrap, ["kept"])["kept"].partitions == 3
        assert cluster_id_of(running.bootstrap) == cluster_id


def test_the_broker_can_be_killed_and_started_at_the_same_address() -> None:
    with TansuBroker() as running:
        address = running.bootstrap
        running.kill()
        assert cluster_id_of(address) is None
        running.start()
        assert running.bootstrap == address
        assert cluster_id_of(address) is not None


@pytest.mark.parametrize("kind", QUICK)
def test_a_server_outlives_the_thread_that_started_it(kind: type[EmbeddedServer]) -> None:
    running = kind()
    thread = threading.Thread(target=running.start)
    thread.start()
    thread.join()
    try:
        # The signal would come once the kernel has ended the thread, just after join() saw its end.
        until(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
        assert is_alive(running.pid)
        running.check()
    finally:
        running.stop()


PARENT = """
import sys, time
from pathlib import Path
from streamer.embedded import ApacheKafka, EmbeddedRedis, TansuBroker
kinds = {"EmbeddedRedis": EmbeddedRedis, "TansuBroker": TansuBroker, "ApacheKafka": ApacheKafka}
servers = [kinds[name]().start() for name in sys.argv[1:]]
print(*(f"{s.pid} {s._folder.path}" for s in servers), sep="\\n", flush=True)
print("ready", flush=True)
time.sleep(600)
"""


def start_parent(*kinds: str) -> tuple[subprocess.Popen[str], list[int], list[Path]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *kinds],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert parent.stdout is not None
    rows = []
    for line in parent.stdout:
        if line.strip() == "ready":
            break
        rows.append(line.split())
    return parent, [int(row[0]) for row in rows], [Path(row[1]) for row in rows]


@pytest.mark.parametrize(
    ("kinds", "number"),
    [
        (("EmbeddedRedis", "TansuBroker"), signal.SIGKILL),
        (("EmbeddedRedis", "TansuBroker"), signal.SIGTERM),
        (("EmbeddedRedis", "TansuBroker"), signal.SIGINT),
        pytest.param(("ApacheKafka",), signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_servers_are_gone_when_their_parent_is_however_it_went(kinds: tuple[str, ...], number: signal.Signals) -> None:
    if "ApacheKafka" in kinds:
        need_program("java")
        need_program("mvn")
    parent, pids, folders = start_parent(*kinds)
    with parent:
        assert all(is_alive(pid) for pid in pids)
        assert len(pids) == len(kinds)
        parent.send_signal(number)
        parent.wait(10)
    until(lambda: not any(is_alive(pid) for pid in pids))
    Folder("test", None).close()  # the next to come clears up
    assert not any(folder.exists() for folder in folders)


def test_ctrl_c_in_a_terminal_does_not_reach_a_server_before_us() -> None:
    with EmbeddedRedis() as running:
        assert os.getpgid(running.pid) != os.getpgid(0)


@pytest.mark.parametrize("kind", QUICK)
def test_a_port_that_somebody_takes_first_is_left_to_them(
    kind: type[EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedRedis() as of_somebody, redis.Redis.from_url(of_somebody.url) as client:
        client.set("theirs", "untouched")
        ports = iter([of_somebody.port, of_somebody.port, server.free_port()])
        monkeypatch.setattr(server, "free_port", lambda: next(ports))
        with kind() as running:
            assert running.port != of_somebody.port
        assert client.get("theirs") == b"untouched"
        assert of_somebody.is_running


@pytest.mark.slow
def test_kafka_leaves_a_port_that_somebody_takes_first_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    need_program("java")
    need_program("mvn")
    with socket.socket() as of_somebody:
        of_somebody.bind(("127.0.0.1", 0))
        of_somebody.listen()
        taken = of_somebody.getsockname()[1]
        ports = iter([taken, server.free_port()])
        monkeypatch.setattr(server, "free_port", lambda: next(ports))
        with ApacheKafka() as running:
            assert running.port != taken


def test_a_server_of_the_same_kind_on_our_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    with EmbeddedRedis() as of_somebody:
        assert not EmbeddedRedis(tmp_path)._answers(of_somebody.port, of_somebody.pid + 1)
    with TansuBroker() as broker_of_somebody:
        assert not TansuBroker(tmp_path)._answers(broker_of_somebody.port, broker_of_somebody.pid)


def test_a_free_port_is_free_and_under_the_range_of_outgoing_connections() -> None:
    ports = {server.free_port() for _ in range(20)}
    assert len(ports) > 15
    assert all(15_000 <= port < 32_768 for port in ports)


def test_a_server_that_cannot_start_says_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("garbage\n", encoding="ascii")
    running = EmbeddedRedis(tmp_path)
    with pytest.raises(UnavailableError, match=r"(?s)redis on 127\.0\.0\.1:\d+ ended while it started; .*manifest"):
        running.start()
    assert not running.is_running
    Folder("test", tmp_path).close()  # and the folder is free again


def test_a_server_that_does_not_answer_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TansuBroker, "_answers", lambda *_: False)
    running = TansuBroker(start_timeout_s=0.3)
    with pytest.raises(UnavailableError, match=r"does not answer within 0\.3 s"):
        running.start()
    assert not running.is_running


def test_a_crash_is_told_with_the_last_words() -> None:
    with EmbeddedRedis() as running:
        running.check()
        os.kill(running.pid, signal.SIGTERM)
        until(lambda: not running.is_running)
        with pytest.raises(UnavailableError, match=r"(?s)redis on .* has ended; .*ready to exit"):
            running.check()


def test_tansu_over_its_memory_limit_advises_a_broker_with_retention() -> None:
    with TansuBroker(memory_max_bytes=60_000_000) as running:
        running.check()
        ensure_topics(running.bootstrap, ["media"], partitions=1, message_max_bytes=LIMIT_BYTES)
        with BoundedProducer(running.bootstrap, message_max_bytes=LIMIT_BYTES) as producer:
            for _ in range(12):
                producer.send("media", b"cam", bytes(5_000_000))
        with pytest.raises(UnavailableError, match=r"holds \d+ MB, its limit is 60 MB.*--broker kafka"):
            running.check()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path), pytest.raises(UnavailableError, match=f"{re.escape(str(tmp_path))} is in use"):
        EmbeddedRedis(tmp_path).start()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be used: Not a directory; name another folder"):
        EmbeddedRedis(tmp_path / "file" / "redis").start()


def test_a_temporary_folder_in_use_is_not_cleared_away() -> None:
    with EmbeddedRedis() as running:
        Folder("test", None).close()
        assert folder_of(running).is_dir()


def test_a_folder_that_others_named_like_ours_is_not_touched() -> None:
    with tempfile.TemporaryDirectory(prefix="watchword-notes-") as folder:
        Folder("test", None).close()
        assert Path(folder).is_dir()


def test_an_address_before_the_start_is_an_error_not_a_guess() -> None:
    with pytest.raises(UnavailableError, match="embedded redis was not started"):
        _ = EmbeddedRedis().url


@pytest.mark.usefixtures("no_search_path")
@pytest.mark.parametrize(
    ("module", "find", "advice"),
    [(valkey, valkey.redis_program, "--redis"), (tansu, tansu.tansu_program, "--broker kafka")],
)
def test_a_missing_program_is_told_with_the_way_out(
    module: object, find: Callable[[], Path], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(UnavailableError, match=advice):
        find()


def test_a_redis_of_the_system_does_where_the_package_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = need_program("redis-server")
    monkeypatch.setattr(valkey, "find_spec", lambda _name: None)
    assert valkey.redis_program() == Path(found)
    with EmbeddedRedis() as running, redis.Redis.from_url(running.url) as client:
        assert client.ping()


@pytest.mark.usefixtures("no_search_path")
def test_kafka_without_java_or_maven_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not apache.has_apache_kafka()
    with pytest.raises(UnavailableError, match="java is not on PATH"):
        ApacheKafka().start()
    with pytest.raises(UnavailableError, match="mvn is not on PATH"):
        apache.kafka_jars()


def test_jars_that_cannot_be_fetched_are_told_with_mavens_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] Could not transfer artifact'\nexit 1\n", encoding="ascii")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UnavailableError, match=r"(?s)mvn exit 1; use --broker tansu.*Could not transfer"):
        apache.kafka_jars()


@pytest.mark.parametrize(
    ("kind", "is_long_run", "has_kafka", "chosen"),
    [
        ("auto", False, True, TansuBroker),
        ("auto", True, True, ApacheKafka),
        ("auto", True, False, TansuBroker),
        ("kafka", False, False, ApacheKafka),
        ("tansu", True, True, TansuBroker),
    ],
)
def test_the_broker_suits_the_run(
    kind: BrokerKind, is_long_run: bool, has_kafka: bool, chosen: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.embedded.has_apache_kafka", lambda: has_kafka)
    with structlog.testing.capture_logs() as logs:
        assert isinstance(choose_broker(kind, is_long_run=is_long_run), chosen)
    assert bool(logs) == (is_long_run and chosen is TansuBroker)
