"""Everything around a worker in a test: topics, prompts, media in, events out; workers as threads or as processes."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from kafka import TopicPartition
from kafka.partitioner.default import murmur2

from models.encoders import Encoders
from streamer.event_log import START, EventLog
from streamer.events import Event
from streamer.ingest.session import Session
from streamer.ingest.spec import SourceSpec
from streamer.kafka_client import make_consumer
from streamer.kafka_producer import BoundedProducer
from streamer.local import prepare_topics
from streamer.media import headers_of
from streamer.prompt_store import PromptStore
from streamer.redis_client import connect_redis
from streamer.settings import Settings, load_settings
from streamer.types import MediaChunk
from streamer.worker import Worker
from tests.colours import colour_encoders

START_US = 1_764_000_000_000_000
ROOT = Path(__file__).parent.parent


def until(condition: Callable[[], Any], what: str, *, timeout_s: float = 30.0, poll_s: float = 0.02) -> Any:
    """Wait for a condition; gives what it gave."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(poll_s)
    return found


def chunks_of(path: Path, stream: str, *, start_us: int = START_US, is_whole: bool = True) -> list[MediaChunk]:
    """What ingest makes of a file; ``is_whole``: its last chunk says so."""
    spec = SourceSpec(str(path), rate=None, start_us=start_us)
    chunks = list(Session(stream, spec, load_settings(), threading.Event(), lambda _: None).chunks())
    return chunks if is_whole else [chunk for chunk in chunks if not chunk.is_last]


class Site:
    """One Kafka topic and one Redis prefix of a test's own."""

    def __init__(self, bootstrap: str, redis_url: str, folder: Path, *, partitions: int = 2, **flags: Any) -> None:
        name = uuid.uuid4().hex[:10]
        self.prefix, self.topic, self.dead_topic = f"t-{name}:", f"media.{name}", f"dead.{name}"
        self.flags: dict[str, object] = {
            "kafka.bootstrap": bootstrap,
            "kafka.topics": [self.topic],
            "kafka.dead_topic": self.dead_topic,
            "kafka.group": f"group.{name}",
            "kafka.partitions": partitions,
            "kafka.session_timeout_s": 1.0,
            "redis.url": redis_url,
            "redis.prefix": self.prefix,
            "overload.policy": "lossless",
            "log.level": "warning",
            "log.format": "text",
            "encode.device": "cpu",
            "system.enabled": False,
            **{name.replace("__", "."): value for name, value in flags.items()},
        }
        self.folder = folder
        self.settings: Settings = load_settings(flags=self.flags)
        self.redis = connect_redis(redis_url)
        self.prompts = PromptStore(self.redis, self.prefix)
        self.log = EventLog(self.redis, self.prefix)
        prepare_topics(self.settings)

    def add_topic(self, topic: str) -> None:
        """Read from one more topic."""
        self.flags["kafka.topics"] = [self.topic, topic]
        self.settings = load_settings(flags=self.flags)
        prepare_topics(self.settings)

    def send(self, chunks: Iterable[MediaChunk], *, topic: str = "") -> None:
        """Produce chunks, in order."""
        self.send_raw(
            ((chunk.stream.encode(), chunk.payload, headers_of(chunk)) for chunk in chunks), topic=topic or self.topic
        )

    def send_raw(
        self, messages: Iterable[tuple[bytes | None, bytes, Sequence[tuple[str, bytes]]]], *, topic: str = ""
    ) -> None:
        """Produce anything."""
        limit = self.settings.kafka.message_max_bytes
        with BoundedProducer(self.settings.kafka.bootstrap, message_max_bytes=limit) as producer:
            for key, value, headers in messages:
                producer.send(topic or self.topic, key, value, headers)

    def events(self, *streams: str) -> list[Event]:
        """Every change of state so far, in order."""
        found: list[Event] = []
        last = START
        while True:
            last, entries = self.log.read(last)
            if not entries:
                return [event for event in found if not streams or event.stream in streams]
            found += [entry.event for entry in entries]

    def states(self, *streams: str) -> list[tuple[str, str]]:
        """Event id and state of each change, in order."""
        return [(event.id, str(event.state)) for event in self.events(*streams)]

    def ends(self) -> dict[TopicPartition, int]:
        """Where the topics end now."""
        kafka = self.settings.kafka
        consumer = make_consumer(kafka.bootstrap, group=None, message_max_bytes=1 << 20, poll_max_bytes=1 << 20)
        try:
            places = [TopicPartition(topic, n) for topic in kafka.topics for n in consumer.partitions_for_topic(topic)]
            return {place: end for place, end in consumer.end_offsets(places).items() if end}
        finally:
            consumer.close()

    def committed(self, place: TopicPartition) -> int:
        """How far Redis says it is."""
        raw: Any = self.redis.hget(f"{self.prefix}partition:{place.partition}", f"offset:{place.topic}")
        return int(raw or 0)

    def wait_done(self, *, timeout_s: float = 30.0) -> None:
        """Until all that was sent is committed."""
        ends = self.ends()
        until(
            lambda: all(self.committed(place) >= end for place, end in ends.items()),
            "all committed",
            timeout_s=timeout_s,
        )

    def owners(self) -> dict[int, str]:
        """Who has claimed each partition last."""
        found: dict[int, str] = {}
        for number in range(self.settings.kafka.partitions):
            owner: Any = self.redis.hget(f"{self.prefix}partition:{number}", "owner")
            if owner is not None:
                found[number] = owner.decode()
        return found

    def partition_of(self, stream: str) -> int:
        """Where a stream's chunks go, by the partitioner that every client of Kafka knows."""
        return int(murmur2(stream.encode()) & 0x7FFFFFFF) % self.settings.kafka.partitions

    def dead_letters(self, count: int) -> list[Any]:
        """So many messages of the dead-letter topic."""
        bootstrap = self.settings.kafka.bootstrap
        consumer = make_consumer(bootstrap, group=None, message_max_bytes=1 << 24, poll_max_bytes=1 << 25)
        try:
            place = TopicPartition(self.dead_topic, 0)
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            found: list[Any] = []
            deadline_s = time.monotonic() + 20
            while len(found) < count:
                assert time.monotonic() < deadline_s, f"{len(found)} dead letters of {count}"
                for records in consumer.poll(timeout_ms=200).values():
                    found += records
            return found
        finally:
            consumer.close()

    @contextlib.contextmanager
    def worker(self, encoders: Encoders | None = None, **flags: Any) -> Iterator[Worker]:
        """A worker in a thread, ready."""
        flags = {name.replace("__", "."): value for name, value in flags.items()}
        worker = Worker(load_settings(flags=self.flags | flags), encoders or colour_encoders())
        failed: list[BaseException] = []

        def work() -> None:
            try:
                worker.run()
            except BaseException as error:  # noqa: BLE001  # the test raises it
                failed.append(error)

        thread = threading.Thread(target=work, name="tested worker")
        thread.start()
        try:
            until(lambda: worker.is_ready or failed, f"ready: {worker.not_ready}", timeout_s=40)
            yield worker
        finally:
            worker.stop()
            thread.join(30)
            assert not thread.is_alive()
            if failed:
                raise failed[0]

    def process(self, *, call_s: float = 0.0) -> "WorkerProcess":
        """A worker in a process of its own, not waited for."""
        path = self.folder / f"settings-{uuid.uuid4().hex[:6]}.yaml"
        document: dict[str, dict[str, object]] = {}
        for dotted, value in self.flags.items():
            section, _, key = dotted.partition(".")
            if key:
                document.setdefault(section, {})[key] = value
        path.write_text(yaml.safe_dump(document))
        return WorkerProcess(path, call_s)


class WorkerProcess:
    """A worker as a process."""

    def __init__(self, settings: Path, call_s: float) -> None:
        self._errors = settings.with_suffix(".log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker_process", str(settings), str(call_s)],
            cwd=ROOT,
            env=os.environ | {"PYTHONWARNINGS": "default"},
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def wait_ready(self) -> str:
        """Where its metrics are."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the worker ended before it was ready:\n" + Path(self._errors.name).read_text()
        return str(json.loads(line)["metrics"])

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


def page(url: str) -> tuple[int, str]:
    """Status and text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # our own
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
