import contextlib
import functools
import http.server
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from streamer.embedded import TansuBroker
from streamer.errors import SourceError, UnavailableError
from streamer.ingest.ingestor import Ingestor
from streamer.ingest.session import Session
from streamer.ingest.spec import SourceSpec
from streamer.kafka_client import ensure_topics, make_consumer
from streamer.kafka_producer import BoundedProducer, Headers, OnDelivery
from streamer.media import parse_message
from streamer.settings import Settings, load_settings
from streamer.types import MediaChunk, Position
from tests.footage import make_clip
from tests.programs import need_program
from tests.test_ingest_session import picture_times_us

SYSTEM_PYTHON = "/usr/bin/python3"  # GStreamer's bindings come with the system, not from PyPI
HERE = Path(__file__).parent
RUN = """
import streamer.cli
from streamer.cli.ingest import ingest
streamer.cli._register = lambda: streamer.cli.app.command()(ingest)  # this command alone: the others load more
streamer.cli.main()
"""


class KeepingProducer:
    """Takes everything, at once."""

    def __init__(self) -> None:
        self.chunks: list[MediaChunk] = []
        self._changed = threading.Condition()

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Headers = (),
        on_delivery: OnDelivery | None = None,
        *,
        timeout_s: float = 10.0,
    ) -> None:
        del timeout_s
        position = Position(topic, 0, len(self.chunks))
        with self._changed:
            self.chunks.append(parse_message(key, headers, value, position, time.time_ns() // 1_000_000, 60.0))
            self._changed.notify_all()
        assert on_delivery is not None
        on_delivery(position, None)

    def wait_for(self, count: int, timeout_s: float = 30.0) -> list[MediaChunk]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.chunks) >= count, timeout_s)
        return self.chunks[:]


class Camera:
    """The RTSP server of `tests/rtsp_server.py` in a process of its own."""

    def __init__(self, clip: Path, port: int) -> None:
        command = [SYSTEM_PYTHON, str(HERE / "rtsp_server.py"), str(clip), str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def need_gstreamer() -> None:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    found = (
        Path(SYSTEM_PYTHON).exists()
        and not subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, check=False).returncode
    )
    if not found:
        need_program("gst-rtsp-server with python3-gi")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("live") / "street.mp4", seconds=20.0)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


@contextlib.contextmanager
def ingesting(url: str, producer: KeepingProducer, **ingest: object) -> Iterator[Ingestor]:
    flags = {f"ingest.{key}": value for key, value in ingest.items()}
    ingestor = Ingestor({"cam": SourceSpec(url)}, load_settings(flags=flags), producer)
    ingestor.start()
    try:
        yield ingestor
    finally:
        ingestor.stop()


@contextlib.contextmanager
def serving(folder: Path, log: list[str] | None = None) -> Iterator[str]:
    """A real HTTP server over a folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            if log is not None:
                log.append(format % args)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_a_camera_over_rtsp_is_cut_at_its_keyframes_with_the_time_of_the_wall(clip: Path, port: int) -> None:
    need_gstreamer()
    camera = Camera(clip, port)
    producer = KeepingProducer()
    began_us = time.time_ns() // 1000
    try:
        with ingesting(f"rtsp://127.0.0.1:{port}/live", producer):
            chunks = producer.wait_for(4)
            seen_us = time.time_ns() // 1000
    finally:
        camera.kill()
    times_us = [time_us for chunk in chunks[:4] for time_us in picture_times_us(chunk)]
    assert times_us == sorted(times_us)
    assert began_us - 1_500_000 < times_us[0]  # a burst on connecting lies before
    assert times_us[-1] <= seen_us + 200_000
    gaps_us = [after - before for before, after in itertools.pairwise(times_us)]
    assert max(gaps_us) < 60_000
    assert [chunk.seq for chunk in chunks[:4]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_camera_that_dies_is_opened_again_as_a_new_session(clip: Path, port: int) -> None:
    need_gstreamer()
    camera = Camera(clip, port)
    producer = KeepingProducer()
    url = f"rtsp://127.0.0.1:{port}/live"
    try:
        with ingesting(url, producer, reconnect_initial_s=0.1, reconnect_max_s=0.5, open_timeout_s=3.0) as ingestor:
            before = producer.wait_for(2)
            camera.kill()
            _until(lambda: ingestor.facts()[0].state == "waiting")
            held = len(producer.chunks)
            camera = Camera(clip, port)
            after = producer.wait_for(held + 2)
            facts = ingestor.facts()[0]
    finally:
        camera.kill()
    sessions = list(dict.fromkeys(chunk.session for chunk in after))
    assert len(sessions) == 2
    assert [chunk.is_last for chunk in after if chunk.session == sessions[0]][-1]
    assert next(chunk.seq for chunk in after if chunk.session == sessions[1]) == 0
    assert before[0].session == sessions[0]
    assert facts.reconnects >= 1
    assert facts.errors >= 1


def test_a_camera_that_never_answers_is_tried_again_and_its_password_is_not_shown(port: int) -> None:
    producer = KeepingProducer()
    url = f"rtsp://operator:s3cretword@127.0.0.1:{port}/live"
    with ingesting(url, producer, reconnect_initial_s=0.05, reconnect_max_s=0.1) as ingestor:
        _until(lambda: ingestor.facts()[0].errors >= 3)
        facts = ingestor.facts()[0]
    assert "refused" in facts.last_error
    assert "check the address" in facts.last_error
    assert "s3cretword" not in str(facts)
    assert "operator" not in str(facts)
    assert facts.reconnects >= 2


def test_a_file_over_http_ends_by_itself(tmp_path: Path) -> None:
    make_clip(tmp_path / "street.ts", seconds=2.0)
    producer = KeepingProducer()
    with serving(tmp_path) as root, ingesting(f"{root}/street.ts", producer) as ingestor:
        assert ingestor.wait(20)
        assert ingestor.facts()[0].state == "ended"
    assert sum(len(picture_times_us(chunk)) for chunk in producer.chunks) == 50
    assert producer.chunks[-1].is_last


def test_an_hls_playlist_is_read_over_http_but_cannot_name_files_of_this_machine(tmp_path: Path) -> None:
    make_clip(tmp_path / "part.ts", seconds=2.0)
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n"
    (tmp_path / "good.m3u8").write_text(f"{head}part.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "evil.m3u8").write_text(f"{head}file://{tmp_path}/part.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "evil.ffconcat").write_text(f"ffconcat version 1.0\nfile file:{tmp_path}/part.ts\n")
    with serving(tmp_path) as root:
        assert sum(len(picture_times_us(chunk)) for chunk in _read(f"{root}/good.m3u8")) == 50
        for name in ("evil.m3u8", "evil.ffconcat"):
            with pytest.raises(SourceError):
                _read(f"{root}/{name}")


def test_a_web_camera_that_sends_jpegs_is_timed_by_their_arrival() -> None:
    picture = _jpeg()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            pass

        def do_GET(self) -> None:  # the base class names it so
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
            with contextlib.suppress(OSError):  # the client leaves
                while not done.wait(0.1):
                    self.wfile.write(head + picture + b"\r\n")

    done = threading.Event()
    producer = KeepingProducer()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with ingesting(f"http://127.0.0.1:{server.server_address[1]}/video", producer, chunk_s=0.5):
                chunks = producer.wait_for(4)
        finally:
            done.set()
            server.shutdown()
            thread.join()
    times_us = np.array([time_us for chunk in chunks[1:4] for time_us in picture_times_us(chunk)])
    assert {chunk.content_type for chunk in chunks} == {"video/mp4"}
    assert 80_000 < np.diff(times_us).mean() < 250_000  # ten a second; FFmpeg would say 25
    assert abs(times_us[-1] - time.time_ns() // 1000) < 5_000_000


def test_credentials_in_an_http_error_are_not_shown(tmp_path: Path) -> None:
    with serving(tmp_path) as root:
        url = root.replace("://", "://operator:s3cretword@") + "/absent.ts?token=t0psecret"
        with pytest.raises(SourceError, match="404") as caught:
            _read(url)
    assert "absent.ts" in str(caught.value)
    for secret in ("s3cretword", "operator", "t0psecret"):
        assert secret not in str(caught.value)


def test_two_sources_in_kafka_hold_all_pictures_in_order_under_their_names(
    clip: Path, tmp_path: Path, broker: str, topic: str
) -> None:
    other = make_clip(tmp_path / "other.ts", seconds=3.0, sound="aac")
    settings = load_settings(flags={"kafka.topics": [topic], "kafka.bootstrap": broker})
    sources = {"yard": SourceSpec(str(clip), rate=None), "dock": SourceSpec(str(other), rate=None)}
    with BoundedProducer(broker, message_max_bytes=settings.kafka.message_max_bytes) as producer:
        ingestor = Ingestor(sources, settings, producer)
        ingestor.start()
        assert ingestor.wait(60)
        facts = {fact.name: fact for fact in ingestor.facts()}
        ingestor.stop()
    chunks = read_topic(broker, topic, settings, facts["yard"].chunks + facts["dock"].chunks)
    for name, pictures in (("yard", 500), ("dock", 75)):
        mine = [chunk for chunk in chunks if chunk.stream == name]
        assert [chunk.seq for chunk in mine] == list(range(len(mine)))
        assert sum(len(picture_times_us(chunk)) for chunk in mine) == pictures
        assert mine[-1].is_last
        assert facts[name].bytes == sum(len(chunk.payload) for chunk in mine)
        assert facts[name].state == "ended"


def test_a_slow_kafka_makes_a_file_wait_and_nothing_is_dropped(clip: Path) -> None:
    class SlowProducer(KeepingProducer):
        def send(
            self,
            topic: str,
            key: bytes | None,
            value: bytes,
            headers: Headers = (),
            on_delivery: OnDelivery | None = None,
            *,
            timeout_s: float = 10.0,
        ) -> None:
            if len(self.chunks) == 3 and not self.was_away:
                self.was_away = True
                raise UnavailableError("away for a moment")
            super().send(topic, key, value, headers, on_delivery, timeout_s=timeout_s)

        was_away = False

    producer = SlowProducer()
    settings = load_settings(flags={"ingest.spool_max_bytes": 40_000, "ingest.reconnect_initial_s": 0.2})
    ingestor = Ingestor({"cam": SourceSpec(str(clip), rate=None)}, settings, producer)
    ingestor.start()
    assert ingestor.wait(30)
    ingestor.stop()
    facts = ingestor.facts()[0]
    assert facts.dropped == 0
    assert facts.errors == 1
    assert sum(len(picture_times_us(chunk)) for chunk in producer.chunks) == 500


@pytest.fixture
def own_broker() -> Iterator[TansuBroker]:
    with TansuBroker() as server:
        yield server


def test_a_file_is_in_kafka_whole_although_the_broker_stood_still(clip: Path, own_broker: TansuBroker) -> None:
    with outage(own_broker, SourceSpec(str(clip), rate=None), spool_max_bytes=120_000) as ingestor:
        _until(lambda: ingestor.facts()[0].errors > 0)
        os.kill(own_broker.pid, signal.SIGCONT)
        assert ingestor.wait(60)
        facts = ingestor.facts()[0]
    assert facts.dropped == 0
    chunks = read_topic(own_broker.bootstrap, "watchword.media", load_settings(), facts.chunks)
    by_seq = {chunk.seq: chunk for chunk in chunks}  # one that failed may have arrived all the same
    assert set(by_seq) == set(range(len(by_seq)))
    assert sum(len(picture_times_us(chunk)) for chunk in by_seq.values()) == 500


@pytest.mark.slow
def test_a_camera_goes_on_while_the_broker_stands_still_and_the_oldest_give_way(
    clip: Path, port: int, own_broker: TansuBroker
) -> None:
    need_gstreamer()
    camera = Camera(clip, port)
    source = SourceSpec(f"rtsp://127.0.0.1:{port}/live")
    try:
        with outage(own_broker, source, spool_max_bytes=60_000) as ingestor:
            _until(lambda: ingestor.facts()[0].dropped > 1)
            assert ingestor.facts()[0].spooled_bytes <= 60_000
            os.kill(own_broker.pid, signal.SIGCONT)
            _until(lambda: ingestor.facts()[0].chunks > 1)
    finally:
        camera.kill()
    facts = ingestor.facts()[0]
    chunks = read_topic(own_broker.bootstrap, "watchword.media", load_settings(), facts.chunks)
    seqs = [chunk.seq for chunk in chunks if chunk.seq is not None]
    assert max(seqs) + 1 > len(set(seqs))  # what gave way is a gap that the reader sees


@contextlib.contextmanager
def outage(server: TansuBroker, source: SourceSpec, **ingest: object) -> Iterator[Ingestor]:
    """A source that begins while its broker stands still; the test lets it go on."""
    flags = {f"ingest.{key}": value for key, value in ingest.items()} | {"ingest.reconnect_initial_s": 0.1}
    settings = load_settings(flags=flags)
    limit = settings.kafka.message_max_bytes
    ensure_topics(server.bootstrap, settings.kafka.topics, partitions=2, message_max_bytes=limit)
    producer = BoundedProducer(server.bootstrap, message_max_bytes=limit, delivery_timeout_s=1.0)
    producer.send(settings.kafka.topics[0], b"warm-up", b"")  # connects
    producer.flush(10)
    os.kill(server.pid, signal.SIGSTOP)
    ingestor = Ingestor({"cam": source}, settings, producer)
    ingestor.start()
    try:
        yield ingestor
    finally:
        os.kill(server.pid, signal.SIGCONT)
        ingestor.stop()
        producer.close()


def test_the_command_reads_standard_input_and_reports_in_json(clip: Path, broker: str, topic: str) -> None:
    transport = make_clip(clip.parent / "pipe.ts", seconds=2.0)
    found = run_ingest(["cam=-", "--rate", "max", "--json", "--kafka", broker], topic, transport.read_bytes())
    assert found.returncode == 0, found.stderr
    (line,) = found.stdout.decode().splitlines()
    document = json.loads(line)
    assert (document["name"], document["state"], document["dropped"]) == ("cam", "ended", 0)
    chunks = read_topic(broker, topic, load_settings(), document["chunks"])
    assert sum(len(picture_times_us(chunk)) for chunk in chunks) == 50


def test_ctrl_c_leaves_cleanly_with_what_was_read_delivered(clip: Path, broker: str, topic: str) -> None:
    process = start_ingest([f"cam={clip}", "--loop", "--json", "--kafka", broker], topic)
    try:
        read_topic(broker, topic, load_settings(), 2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    document = json.loads(output)
    assert document["state"] == "stopped"
    assert document["dropped"] == 0
    assert read_topic(broker, topic, load_settings(), document["chunks"])[-1].is_last


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["clip.mp4", "--kafka", "{broker}"], 2, "NAME=URL is expected"),
        (["cam=clip.mp4"], 2, "no Kafka is named"),
        (["cam=clip.mp4", "--rate", "fast"], 2, "realtime, max or a number"),
        (["cam=absent.mp4", "--kafka", "{broker}"], 1, "check the path"),
        (["cam=absent.mp4", "--kafka", "127.0.0.1:1"], 1, "kafka.bootstrap"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_a_status(
    arguments: Sequence[str], status: int, words: str, broker: str, topic: str
) -> None:
    found = run_ingest([argument.format(broker=broker) for argument in arguments], topic)
    assert found.returncode == status, found.stderr
    assert words in found.stderr.decode()
    assert "Traceback" not in found.stderr.decode()


def start_ingest(arguments: Sequence[str], topic: str) -> "subprocess.Popen[bytes]":
    environment = {
        "PATH": "/usr/bin:/bin",
        "WATCHWORD_KAFKA__TOPICS": json.dumps([topic]),
        "PYTHONPATH": str(HERE.parent),
    }
    command = [sys.executable, "-c", RUN, "ingest", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


def run_ingest(arguments: Sequence[str], topic: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    process = start_ingest(arguments, topic)
    output, errors = process.communicate(stdin, timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def read_topic(broker: str, topic: str, settings: Settings, count: int) -> list[MediaChunk]:
    """The first ``count`` chunks of a topic, each partition in its order."""
    from kafka import TopicPartition  # noqa: PLC0415  # beside its only use

    facts = ensure_topics(broker, [topic], partitions=2, message_max_bytes=settings.kafka.message_max_bytes)
    consumer = make_consumer(
        broker,
        group=None,
        message_max_bytes=settings.kafka.message_max_bytes,
        poll_max_bytes=settings.kafka.poll_max_bytes,
    )
    chunks: list[MediaChunk] = []
    try:
        partitions = [TopicPartition(topic, number) for number in range(facts[topic].partitions)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        deadline_s = time.monotonic() + 30
        while len(chunks) < count:
            assert time.monotonic() < deadline_s, f"{len(chunks)} of {count} chunks came"
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    if not record.value:
                        continue  # a test's warm-up
                    place = Position(record.topic, record.partition, record.offset)
                    chunks.append(
                        parse_message(record.key, record.headers, record.value, place, record.timestamp, 3600.0)
                    )
    finally:
        consumer.close()
    return chunks


def _jpeg() -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(np.full((96, 160, 3), 90, np.uint8)).save(out, "JPEG")
    return out.getvalue()


def _read(url: str) -> list[MediaChunk]:
    drops: list[str] = []
    session = Session("cam", SourceSpec(url, rate=None), load_settings(), threading.Event(), drops.append)
    return list(session.chunks())


def _until(is_true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
