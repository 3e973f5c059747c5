import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from streamer.emit import Emitter, EventLimits
from streamer.redis_client import connect_redis
from tests.event_builders import SECOND_US, START_US, a_transition, an_event
from tests.footage import bikes

WATCHWORD = str(Path(sys.executable).with_name("watchword"))

HELP_OF_ALL = """
import sys
import typer.main
import streamer.cli
streamer.cli._register()

def walk(command, path):
    for name, child in getattr(command, "commands", {}).items():
        walk(child, [*path, name])
    try:
        streamer.cli.app([*path, "--help"])
    except SystemExit as end:
        assert end.code == 0, path

walk(typer.main.get_command(streamer.cli.app), [])
slow = {"torch", "openvino", "transformers", "av", "cv2", "kafka", "redis"} & set(sys.modules)
assert not slow, slow
"""


def watchword(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run the command; colours and width as in a pipe."""
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        [WATCHWORD, *arguments], capture_output=True, text=True, timeout=timeout_s, env=environment, check=False
    )


def test_the_help_of_every_command_works_without_anything_slow() -> None:
    shown = subprocess.run([sys.executable, "-c", HELP_OF_ALL], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("Usage:") >= 20
    for command in ("run", "up", "ingest", "worker", "prompts add", "events tail", "why", "bench", "doctor"):
        assert f"watchword {command}" in shown.stdout or f" {command} " in shown.stdout


def test_alone_it_shows_its_help_with_every_command_in_its_panel() -> None:
    shown = watchword()
    assert shown.returncode == 2
    assert shown.stderr == ""
    shown_names = re.findall(r"^│ ([a-z]+) ", shown.stdout, re.MULTILINE)
    begin, run = ["demo", "doctor"], ["run", "up", "ingest", "worker", "api"]
    watch = ["prompts", "events", "streams", "why", "tokens"]
    assert shown_names == [*begin, *run, *watch, "evaluate", "train", "bench"]


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_examples_of_the_help_stand_on_one_line_each(width: str) -> None:
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": width}
    shown = subprocess.run([WATCHWORD, "--help"], capture_output=True, text=True, env=environment, check=True)
    examples = [line.strip() for line in shown.stdout.partition("Examples:")[2].splitlines() if "watchword " in line]
    assert len(examples) == 6
    assert all(len(example.split("  ")) > 1 for example in examples), "the explanation went to the next line"


def test_it_tells_its_version() -> None:
    shown = watchword("--version")
    assert shown.returncode == 0
    assert shown.stdout == f"watchword {version('watchword')}\n"


@pytest.mark.parametrize("arguments", [["events", "tail", "--json"], ["events", "tail", "-n", "2000"]])
def test_a_reader_that_leaves_early_ends_it_quietly(arguments: Sequence[str], redis_url: str, prefix: str) -> None:
    redis = connect_redis(redis_url)
    emitter = Emitter(redis, prefix, EventLimits(10_000, 3600, 60))
    events = [an_event(a_transition(start_us=START_US + number * SECOND_US)) for number in range(1000)]
    emitter.commit(0, emitter.claim(0).epoch, {"media": 1}, {}, events)
    redis.close()
    environment = os.environ | {"WATCHWORD_REDIS__PREFIX": prefix}
    with subprocess.Popen(
        [WATCHWORD, *arguments, "--redis", redis_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "fire" in process.stdout.readline().decode()
        process.stdout.close()  # a pipe holds 64 KiB, the events are several times that
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_nothing_is_said_of_a_reader_that_was_gone_before_anything_was_written() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([WATCHWORD, "events", "schema"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "nonsense"),
        (["run"], "SOURCE"),
        (["run", "x.mp4"], "--prompt"),
        (["run", "x.mp4", "-p", "fire", "--threshold", "3"], "--threshold"),
        (["run", "x.mp4", "-p", "fire", "--rate", "fast"], "--rate 'fast'"),
        (["run", "x.mp4", "-p", "fire", "--broker", "rabbit"], "--broker 'rabbit'"),
        (["run", "gopher://x/y", "-p", "fire"], "gopher"),
        (["worker"], "--kafka"),
        (["up", "nameless"], "NAME=URL"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_right(arguments: list[str], says: str) -> None:
    ended = watchword(*arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nowhere.mp4", "-p", "fire"], "source nowhere.mp4 does not exist"),
        (["run", "{film}", "-p", "fire", "--config", "{bad}"], "did you mean 'window.span_s'"),
        (["run", "{film}", "-p", "fire", "--kafka", "127.0.0.1:9"], "127.0.0.1:9"),
        (["worker", "--kafka", "127.0.0.1:9", "--redis", "redis://127.0.0.1:9/0"], "check that it runs"),
    ],
)
def test_a_failure_is_one_sentence_and_ends_with_1(arguments: list[str], says: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("window: {spam_s: 2}")
    ended = watchword(*(part.format(film=bikes(), bad=bad) for part in arguments))
    assert ended.returncode == 1
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""


def test_run_prints_events_that_fit_the_schema_and_ends_with_the_file() -> None:
    ended = watchword("run", f"street={bikes()}", "-p", "a person riding a bicycle", "--threshold", "0.3", "--json",
                      timeout_s=110)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    documents = [json.loads(line) for line in ended.stdout.splitlines()]
    schema = json.loads((files("streamer") / "event.schema.json").read_text(encoding="utf-8"))
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for document in documents:
        validator.validate(document)
    states = [document["state"] for document in documents if not document["prompt"]["id"].startswith("system-")]
    assert states[0] == "open"
    assert states[-1] == "closed"
    assert {document["stream"] for document in documents} == {"street"}
    assert "Traceback" not in ended.stderr
