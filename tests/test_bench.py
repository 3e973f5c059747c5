"""The measurements measure what they say; what takes minutes is left to `watchword bench`."""

import json
import math
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import av
import pytest
from kafka import TopicPartition

from streamer.bench import effort, footage
from streamer.bench.cameras import LIMIT_S, Load, table_rows
from streamer.bench.effort import measure_effort
from streamer.bench.feed import fill
from streamer.bench.footage import CAMERA, Shape, room, street
from streamer.bench.latency import _note
from streamer.bench.memory import summary
from streamer.bench.pipeline import PipelineFigures, settings_for_every_frame
from streamer.bench.prompts import distinct_prompts
from streamer.bench.site import Scrape, process_cpu_s, process_resident_bytes, said
from streamer.embedded.child import Child
from streamer.errors import UnavailableError
from streamer.event_log import Entry
from streamer.events import STAGES, event_of, latency_of
from streamer.kafka_client import ensure_topics, make_consumer
from streamer.kafka_producer import BoundedProducer
from streamer.media import parse_message
from streamer.prompts import parse_prompt
from streamer.settings import load_settings
from streamer.types import MediaChunk, Position
from tests.colours import colour_encoders
from tests.event_builders import SECOND_US, START_US, a_transition, an_event
from tests.footage import make_clip

SHORT = Shape(320, 136, 25, has_sound=True, duration_s=2)


def a_scrape(**series: float) -> Scrape:
    """Of a histogram `h`: `le_0_1=3` is what was counted up to 0.1 s."""
    samples = {
        ("h_bucket", frozenset({("le", name.removeprefix("le_").replace("_", ".").replace("inf", "+Inf"))})): value
        for name, value in series.items()
    }
    return Scrape(0.0, samples)


EMPTY = a_scrape(le_0_1=0, le_0_5=0, le_1_0=0, le_inf=0)


@pytest.mark.parametrize(
    ("share", "expected_s"),
    [
        (0.25, 0.05),  # the 5th of 20, halfway through the 10 up to 0.1
        (0.5, 0.1),
        (0.75, 0.5),
        (0.625, 0.3),  # 2.5 of the 5 between 0.1 and 0.5
        (1.0, 1.0),
    ],
)
def test_a_quantile_is_interpolated_in_its_bucket(share: float, expected_s: float) -> None:
    after = a_scrape(le_0_1=10, le_0_5=15, le_1_0=20, le_inf=20)
    assert after.quantile("h", share, EMPTY) == pytest.approx(expected_s)


def test_a_quantile_counts_only_what_came_between_two_scrapes() -> None:
    before = a_scrape(le_0_1=1000, le_0_5=1000, le_1_0=1000, le_inf=1000)
    after = a_scrape(le_0_1=1000, le_0_5=1000, le_1_0=1010, le_inf=1010)
    assert after.quantile("h", 0.5, before) == pytest.approx(0.75)


def test_a_quantile_beyond_the_last_bound_is_over_it_and_without_observations_it_is_nan() -> None:
    beyond = a_scrape(le_0_1=0, le_0_5=0, le_1_0=0, le_inf=4)
    assert beyond.quantile("h", 0.95, EMPTY) > 1.0
    assert math.isnan(EMPTY.quantile("h", 0.95, EMPTY))
    assert math.isnan(Scrape(0.0, {}).quantile("h", 0.95, EMPTY))


def test_a_quantile_adds_up_the_series_of_a_histogram() -> None:
    """Two streams, 10 observations each: one's up to 0.1 s, the other's up to 1 s."""
    samples = {
        ("h_bucket", frozenset({("stream", stream), ("le", bound)})): value
        for stream, counts in (("a", (10, 10, 10)), ("b", (0, 10, 10)))
        for bound, value in zip(("0.1", "1.0", "+Inf"), counts, strict=True)
    }
    assert Scrape(0.0, samples).quantile("h", 0.75, EMPTY) == pytest.approx(0.55)


def test_a_total_is_over_all_series_that_carry_the_labels() -> None:
    samples = {
        ("n_total", frozenset({("stream", "a"), ("result", "ok")})): 1.0,
        ("n_total", frozenset({("stream", "b"), ("result", "ok")})): 2.0,
        ("n_total", frozenset({("stream", "b"), ("result", "bad")})): 4.0,
        ("other_total", frozenset({("result", "ok")})): 8.0,
    }
    scrape = Scrape(0.0, samples)
    assert scrape.total("n_total") == 7
    assert scrape.total("n_total", result="ok") == 3
    assert scrape.total("n_total", result="ok", stream="b") == 2
    assert scrape.total("n_total", result="lost") == 0


def test_the_films_are_720p25_with_sound_and_a_keyframe_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footage, "cache_folder", lambda: tmp_path)
    assert (CAMERA.width, CAMERA.height, CAMERA.rate_hz, CAMERA.has_sound) == (1280, 720, 25, True)
    two_seconds = replace(CAMERA, duration_s=2)
    for make in (street, room):
        chunks = make(two_seconds, load_settings())
        assert len(chunks) == 2
        assert all(not chunk.is_last and chunk.session == "" for chunk in chunks)
    for film in (tmp_path / "bench").iterdir():
        assert film.suffix == ".mp4", "a draft was left"
        with av.open(str(film)) as container:
            picture, sound = container.streams.video[0], container.streams.audio[0]
            assert (picture.width, picture.height) == (1280, 720)
            assert float(picture.average_rate or 0) == 25
            assert sound.rate == 48_000
            packets = [packet for packet in container.demux(picture) if packet.size]
        assert len(packets) == 50
        keyframes = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        assert keyframes == [0, 25]


def test_a_film_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footage, "cache_folder", lambda: tmp_path)
    first = room(SHORT, load_settings())
    monkeypatch.setattr(footage, "_encode", lambda *_: pytest.fail("it was made again"))
    assert [chunk.payload for chunk in room(SHORT, load_settings())] == [chunk.payload for chunk in first]


def test_ten_thousand_prompts_are_valid_and_different() -> None:
    documents = distinct_prompts(10_000)
    assert len(documents) == 10_000
    assert len({str(document["text"]) for document in documents}) == 10_000
    prompts = [parse_prompt(document) for document in documents]
    assert len({prompt.id for prompt in prompts}) == 10_000
    assert documents[:100] == distinct_prompts(100)


def test_memory_is_summed_up_by_thirds() -> None:
    told = summary({"worker": [10_000_000] * 3 + [20_000_000] * 3 + [24_000_000] * 3, "redis": [5_000_000] * 9}, 16, 9)
    assert told["mb_by_third"] == {"worker": [10.0, 20.0, 24.0], "redis": [5.0, 5.0, 5.0]}
    assert told["together_mb_by_third"] == [15.0, 25.0, 29.0]
    assert told["growth"] == pytest.approx(29 / 25 - 1, abs=1e-4)


def test_filling_sends_every_stream_every_chunk_in_order_of_capture(broker: str) -> None:
    topic = f"test.{uuid.uuid4().hex[:12]}"
    ensure_topics(broker, [topic], partitions=1, message_max_bytes=8_388_608)
    chunks = [a_chunk(b"one"), a_chunk(b"two", START_US + SECOND_US)]
    with BoundedProducer(broker, message_max_bytes=8_388_608) as producer:
        assert fill(producer, topic, ["a", "b"], chunks, rounds=3) == 6
    got = received(broker, topic, 6)
    assert [(chunk.stream, chunk.payload) for chunk in got] == [
        (stream, payload) for payload in (b"one", b"two", b"one") for stream in ("a", "b")
    ]
    starts = [chunk.capture_us for chunk in got if chunk.stream == "a"]
    assert [start - starts[0] for start in starts] == [0, SECOND_US, 2 * SECOND_US]


def a_chunk(payload: bytes, capture_us: int = START_US) -> MediaChunk:
    return MediaChunk("film", "video/mp4", payload, capture_us, Position("t", 0, 0), duration_us=SECOND_US)


def received(bootstrap: str, topic: str, count: int) -> list[MediaChunk]:
    consumer = make_consumer(bootstrap, group=None, message_max_bytes=1 << 20, poll_max_bytes=1 << 20)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        records: list[object] = []
        for _ in range(50):
            for found in consumer.poll(timeout_ms=200).values():
                records += found
            if len(records) >= count:
                break
    finally:
        consumer.close()
    return [as_chunk(record) for record in records]


def as_chunk(record: object) -> MediaChunk:
    key, headers, value = (getattr(record, name) for name in ("key", "headers", "value"))
    return parse_message(key, headers, value, Position("t", 0, 0), START_US // 1000, 1e12)


def test_the_parts_of_a_latency_add_up_to_the_whole() -> None:
    total: list[float] = []
    stages: dict[str, list[float]] = {stage: [] for stage in STAGES}
    spent = {stage: 0.1 * (number + 1) for number, stage in enumerate(STAGES) if stage != "emit"}
    event = event_of(
        a_transition(), stream_labels={}, model=an_event().model, latency=latency_of(9.0, spent), snapshot=None
    )
    _note(Entry(f"{START_US // 1000 + 5000}-0", event), total, stages)
    assert total == [5.0]
    assert all(len(values) == 1 for values in stages.values())
    assert sum(values[0] for values in stages.values()) == pytest.approx(5.0)
    assert stages["emit"] == [pytest.approx(5.0 - sum(spent.values()))]


@pytest.mark.parametrize(
    ("change", "is_carried"),
    [
        ({}, True),
        ({"p95_latency_s": LIMIT_S}, False),
        ({"p95_latency_s": float("nan")}, False),
        ({"windows_per_camera_second": 0.9}, False),
        ({"skipped": 1}, False),
    ],
)
def test_a_load_is_carried_only_if_all_was_watched_in_time(change: dict[str, float], is_carried: bool) -> None:
    load = Load(10, 0.5, 1.0, 0, {"worker": 7.0}, {"decode": 3.0})
    assert replace(load, **change).is_carried is is_carried  # type: ignore[arg-type]  # numbers all


def test_a_mix_that_ten_cameras_overload_has_its_row() -> None:
    assert table_rows({"loads": {"busy": None}}) == [["busy", "under 10", "-", "-", "-"]]


def test_following_activity_is_compared_with_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "load_chosen", lambda *_: colour_encoders())
    film = make_clip(tmp_path / "street.mp4", seconds=4)
    lines: list[str] = []
    figures = measure_effort(load_settings(), lines.append, [film])
    row = figures["films"]["street.mp4"]
    assert json.loads(json.dumps(figures)) == figures
    assert row["windows"] >= 3
    (full, by_activity), (encoded_full, encoded) = row["decoded_frames"], row["encoded_frames"]
    assert full == encoded_full == 4 * load_settings().decode.motion_rate_hz
    assert 0 < by_activity <= full
    assert 0 < encoded <= encoded_full
    assert 0 <= row["confidence_error_mean"] <= row["confidence_error_p99"] <= row["confidence_error_max"] <= 1
    assert len(lines) == 1


def test_the_pipeline_is_measured_with_every_frame_encoded() -> None:
    changed = settings_for_every_frame(load_settings())
    assert (changed.decode.effort, changed.encode.reuse_max_age_s, changed.overload.policy) == ("motion", 0, "lossless")
    assert changed.kafka == load_settings().kafka
    told = PipelineFigures(200.0, 150.0, {"8": 150.0}, {"100": 150.0}, [190.0, 210.0]).document()
    assert told["ratio"] == 0.75


def test_a_process_tells_its_memory_and_its_time(tmp_path: Path) -> None:
    busy = "print('ready', flush=True)\nwhile True: pass"
    child = Child([sys.executable, "-c", busy], tmp_path / "log")
    try:
        assert said(child, "ready", 20) == "ready"
        before_s = process_cpu_s(child.pid)
        assert process_resident_bytes(child.pid) > 1_000_000
        for _ in range(2000):
            child.wait(0.01)
            if process_cpu_s(child.pid) > before_s + 0.05:
                break
        else:
            pytest.fail("it spends no time")
    finally:
        child.kill()


def test_a_process_that_ends_before_it_is_ready_is_told_with_what_it_wrote(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "raise SystemExit('no room')"], tmp_path / "log")
    with pytest.raises(UnavailableError, match="no room"):
        said(child, "ready", 20)
