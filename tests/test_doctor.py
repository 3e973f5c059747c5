import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import audio, load
from streamer import doctor
from streamer.cli.doctor import doctor as command
from streamer.doctor import Finding
from streamer.kafka_client import admin_of, ensure_topics
from streamer.settings import Settings, load_settings
from tests.redis_server import RedisServer

WATCHWORD = str(Path(sys.executable).with_name("watchword"))
AWAY = "127.0.0.1:9"


def found_by(check: str, settings: Settings) -> dict[str, Finding]:
    """What one check finds, by name; the others would take seconds."""
    return {finding.name: finding for finding in doctor._guarded(getattr(doctor, f"_{check}"), settings)}


@pytest.fixture
def small_topic(apache_kafka: str) -> Iterator[str]:
    name = f"test.{uuid.uuid4().hex[:12]}"
    ensure_topics(apache_kafka, [name], partitions=2, message_max_bytes=1_000_000)
    yield name
    with admin_of(apache_kafka, "deleting a topic") as admin:
        admin.delete_topics([name])


def run(*arguments: str) -> tuple[int, list[Finding], str]:
    ended = subprocess.run(
        [WATCHWORD, "doctor", "--json", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return ended.returncode, [Finding(**json.loads(line)) for line in ended.stdout.splitlines()], ended.stderr


def test_a_sound_installation_ends_with_0_and_every_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    command(as_json=True)  # raises an exit otherwise
    findings = [Finding(**json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert {finding.status for finding in findings} <= {"ok", "warn"}
    names = {finding.name for finding in findings}
    assert {"python", "torch", "kafka", "redis", "model, picture", "model, sound", "embedded broker"} <= names
    assert all(finding.mend for finding in findings if finding.status != "ok")


def test_servers_that_are_away_are_findings_that_say_how_to_mend_them_and_end_with_1() -> None:
    status, findings, said = run("--kafka", AWAY, "--redis", f"redis://:secret@{AWAY}/0")
    assert status == 1
    failed = {finding.name: finding for finding in findings if finding.status == "fail"}
    assert set(failed) == {"kafka", "redis"}
    for finding in failed.values():
        assert AWAY in finding.found
        assert "check that it runs" in finding.mend
    assert "secret" not in json.dumps([finding.found + finding.mend for finding in findings])
    assert said == ""


def test_the_table_shows_brackets_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Finding("odd", "ok", "[/] at [bold]")
    monkeypatch.setattr(doctor, "examine", lambda _: iter([odd]))
    command()
    assert "[/] at [bold]" in capsys.readouterr().out


def test_a_topic_that_takes_smaller_messages_than_ours_fails_and_both_limits_are_told(
    apache_kafka: str, small_topic: str
) -> None:
    flags = {"kafka.bootstrap": apache_kafka, "kafka.topics": [small_topic], "kafka.dead_topic": f"{small_topic}.dead"}
    settings = load_settings(flags=flags)
    found = found_by("kafka", settings)
    assert found["kafka"].status == "ok"
    topic = found[f"topic {small_topic}"]
    assert topic.status == "fail"
    assert topic.found == "2 partitions, messages up to 1000000 B"
    assert "max.message.bytes" in topic.mend
    assert "8388608" in topic.mend
    missing = found[f"topic {small_topic}.dead"]
    assert (missing.status, missing.found) == ("warn", "not there yet")
    assert found_by("sizes", settings)["size limits, ours"].found == "chunks up to 7340032 B, messages up to 8388608 B"


def test_topics_of_unequal_partitions_fail(broker: str) -> None:
    names = [f"test.{uuid.uuid4().hex[:12]}" for _ in range(2)]
    for count, name in enumerate(names, 1):
        ensure_topics(broker, [name], partitions=count, message_max_bytes=8_388_608)
    found = found_by("kafka", load_settings(flags={"kafka.bootstrap": broker, "kafka.topics": names}))
    assert found["partitions"].status == "fail"
    assert "[1, 2]" in found["partitions"].found


def test_a_redis_that_forgets_under_pressure_is_pointed_out(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        found = found_by("redis", load_settings(flags={"redis.url": server.url}))
    assert found["redis"].status == "ok"
    assert (found["redis eviction"].status, found["redis eviction"].found) == ("warn", "allkeys-lru")
    assert "noeviction" in found["redis eviction"].mend


def test_altered_weights_fail_and_say_what_to_reinstall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    altered = tmp_path / "sound.safetensors"
    content = bytearray(audio.WEIGHTS.read_bytes())
    content[-1] ^= 1
    altered.write_bytes(content)
    monkeypatch.setattr(audio, "WEIGHTS", altered)
    found = found_by("models", load_settings())
    assert set(found) == {"models"}
    assert found["models"].status == "fail"
    assert "altered" in found["models"].found
    assert found["models"].mend == "reinstall watchword"


def test_what_cannot_be_imported_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(load, "load_chosen", broken)
    found = found_by("models", load_settings())
    assert found["models"].status == "fail"
    assert "libgomp.so.1" in found["models"].found
    assert found["models"].mend == "make setup"


def test_without_java_it_says_what_needs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    java = found_by("embedded", load_settings())["java"]
    assert java.status == "warn"
    assert "--broker kafka" in java.mend


def test_a_device_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = found_by("device", load_settings(flags={"encode.device": "cuda"}))
    assert found["gpu"].status == "fail"
    assert "encode.device auto" in found["gpu"].mend
