"""Bytes in Kafka to events in Redis, with a real broker, a real Redis and real media."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.encoders import Encoders, PictureTokens
from streamer.errors import PromptError
from streamer.events import Event
from tests.colours import ColourPictures, colour_encoders, make_film
from tests.programs import need_program
from tests.site import START_US, Site, chunks_of, page, until

SCENES = (("grey", 3.0), ("red", 4.0), ("grey", 4.0))


@pytest.fixture
def site(broker: str, redis_url: str, tmp_path: Path) -> Site:
    return Site(broker, redis_url, tmp_path)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "red.mp4", SCENES, tones=[(4.0, 6.0)])


def test_a_colour_in_a_film_becomes_an_event_with_its_time_and_evidence(site: Site, film: Path) -> None:
    site.prompts.add({"id": "red", "text": "red", "severity": "critical"})
    site.prompts.add({"id": "loud", "text": "loud", "modality": "audio"})
    with site.worker():
        site.send(chunks_of(film, "yard"))
        site.wait_done()
    by_prompt = {name: [event for event in site.events() if event.prompt.id == name] for name in ("red", "loud")}
    for name, (start_s, end_s) in {"red": (3, 7), "loud": (4, 6)}.items():
        first, last = by_prompt[name][0], by_prompt[name][-1]
        assert [str(event.state) for event in (first, last)] == ["open", "closed"]
        assert abs((first.start_us - START_US) / 1e6 - start_s) <= 2
        assert abs(_end_us(last) - START_US - end_s * 1e6) <= 2e6
    seen = by_prompt["red"][0]
    assert seen.seen is not None
    assert seen.seen > 0.9
    assert seen.evidence is not None
    assert seen.evidence.region is not None
    jpeg = site.redis.get(f"{site.prefix}snapshot:{seen.id}")
    assert jpeg is not None
    heard = by_prompt["loud"][0]
    assert heard.heard is not None
    assert heard.evidence is None or heard.evidence.region is None


def test_a_file_sent_by_kcat_is_matched_like_its_chunks_from_ingest(
    apache_kafka: str, redis_url: str, tmp_path: Path
) -> None:
    kcat, redis_cli = need_program("kcat"), need_program("redis-cli")
    site = Site(apache_kafka, redis_url, tmp_path, kafka__session_timeout_s=6.0)
    film = make_film(tmp_path / "red.ts", SCENES)
    site.prompts.add({"id": "red", "text": "red"})
    with site.worker(encode__reuse_max_age_s=0):
        site.send(chunks_of(film, "ingested"))
        headers = {"content-type": "video/mp2t", "capture-us": str(START_US), "last": "1"}
        flags = [part for name, value in headers.items() for part in ("-H", f"{name}={value}")]
        bootstrap = site.settings.kafka.bootstrap
        command = [kcat, "-P", "-b", bootstrap, "-t", site.topic, "-k", "by-kcat", *flags, str(film)]
        subprocess.run(command, check=True, timeout=30)
        site.wait_done()
    ours, theirs = site.events("ingested"), site.events("by-kcat")
    assert [(e.state, e.start, e.end) for e in ours] == [(e.state, e.start, e.end) for e in theirs]
    assert ours
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.confidence == pytest.approx(other.confidence, abs=1e-3)
        assert mine.peak == pytest.approx(other.peak, abs=1e-3)
    url = site.settings.redis.url
    shown = subprocess.run(
        [redis_cli, "-u", url, "XREAD", "STREAMS", f"{site.prefix}events", "0"],
        check=True, capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    documents = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    assert {document["stream"] for document in documents} == {"ingested", "by-kcat"}
    assert {document["state"] for document in documents} >= {"open", "closed"}


def test_bad_chunks_become_dead_letters_as_they_came_and_the_stream_goes_on(site: Site, film: Path) -> None:
    site.prompts.add({"id": "red", "text": "red"})
    good = chunks_of(film, "yard")
    clean = [("content-type", b"video/mp2t"), ("capture-us", str(START_US).encode())]
    bad: list[tuple[bytes | None, bytes, list[tuple[str, bytes]]]] = [
        (b"yard", np.random.default_rng(1).bytes(20_000), clean),  # garbage
        (b"yard", good[2].payload[:900], clean),  # truncated
        (b"yard", good[2].payload, [("content-type", b"image/png")]),  # wrongly labelled
        (b"yard", good[2].payload, [("content-type", b"video/quicktime")]),
        (b"yard", good[2].payload, [("content-type", b"video/mp2t"), ("capture-us", b"noon")]),
        (b"yard", b"", clean),
        (b"No Stream!", good[2].payload, clean),
        (None, good[2].payload, clean),
        (b"loner", b"\x00" * 8_000_000, [*clean, ("extra", b"\xff\xfe")]),  # as large as a message may be, nearly
    ]
    with site.worker() as worker:
        site.send(good[:5])
        site.send_raw(bad)
        site.send(good[5:])
        site.wait_done()
        assert worker.is_ready
        _, metrics = page(f"{worker.url}/metrics")
    undisturbed = [event for event in site.events("yard") if event.prompt.id == "red"]
    assert [str(event.state) for event in undisturbed][0 :: len(undisturbed) - 1] == ["open", "closed"]
    letters = site.dead_letters(len(bad))
    assert sorted((letter.key or b"", letter.value or b"") for letter in letters) == sorted(
        (key or b"", value) for key, value, _ in bad
    )
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["topic"].decode() == site.topic
        assert int(headers["partition"]) in {0, 1}
        assert int(headers["offset"]) >= 0
        assert headers["reason"].decode() in {"key", "header", "type", "empty", "malformed", "undecodable"}
        assert "refused" in headers["error"].decode()
    assert sum(f'watchword_dead_letters_total{{reason="{r}"}}' in metrics for r in ("key", "type", "empty")) == 3


def test_a_prompt_takes_effect_in_under_a_second_and_a_refused_one_changes_nothing(site: Site, tmp_path: Path) -> None:
    film = make_film(tmp_path / "long.mp4", [("red", 4.0)])
    site.prompts.add({"id": "green", "text": "green"})
    live = f"{site.prefix}live:yard"
    sent = 0

    def send_some() -> None:
        nonlocal sent
        site.send(chunks_of(film, "yard", start_us=START_US + sent * 4_000_000, is_whole=False))
        sent += 1

    with site.worker() as worker:

        def active() -> float:
            return _value(page(f"{worker.url}/metrics")[1], "watchword_prompts_active")

        send_some()
        until(lambda: site.redis.hexists(live, "green"), "a confidence is shown")
        assert active() == 1
        took_s = []
        for count in (2, 3, 4):
            add = partial(site.prompts.add, {"id": f"red-{count - 2}", "text": "red"})
            took_s.append(_timed(add, lambda count=count: active() == count))  # type: ignore[misc]  # its default
        assert min(took_s) < 0.5
        assert max(took_s) < 1.0
        with pytest.raises(PromptError, match="threshold"):
            site.prompts.update("red-0", {"threshold": 7})
        send_some()
        until(lambda: any(event.prompt.id == "red-0" for event in site.events("yard")), "the new prompt matches")
        assert active() == 4
        assert _timed(lambda: site.prompts.remove("red-0"), lambda: active() == 3) < 1.0
        send_some()
        until(
            lambda: ("red-0", "closed") in {(event.prompt.id, str(event.state)) for event in site.events("yard")},
            "the removed prompt's event is closed",
        )


def _end_us(event: Event) -> float:
    assert event.end is not None
    return datetime.fromisoformat(event.end).timestamp() * 1e6


def _timed(change: Callable[[], object], is_seen: Callable[[], bool]) -> float:
    began_s = time.monotonic()
    change()
    until(is_seen, "the change is in force", timeout_s=5, poll_s=0.005)
    return time.monotonic() - began_s


def test_nothing_under_a_mask_reaches_tokens_live_values_or_snapshots(site: Site, tmp_path: Path) -> None:
    film = make_film(tmp_path / "red.mp4", [("red", 6.0)], is_moving=False)
    site.prompts.add({"id": "red", "text": "red"})
    left_half = [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]
    everywhere = [[[0, 0], [1, 0], [1, 1], [0, 1]]]
    seen = _Recording()
    masks = {"halved": {"masks": left_half}, "hidden": {"masks": everywhere}}
    with site.worker(seen.encoders(), streams=masks, system__enabled=True, system__hold_s=1.0):
        for stream in ("open", "halved", "hidden"):
            site.send(chunks_of(film, stream))
        site.wait_done()
        confidence = float(until(lambda: site.redis.hget(f"{site.prefix}live:hidden", "red"), "a live value"))
    assert confidence < 0.01
    assert not [event for event in site.events("hidden") if event.prompt.id == "red"]
    masked = [frame for frame in seen.frames if not frame[:, : 224 // 2].any()]
    assert any(frame[:, 224 // 2 + 8 :].any() for frame in masked)  # the halved stream was looked at
    assert any(not frame.any() for frame in masked)  # and the hidden one
    whole = [frame for frame in seen.frames if frame[:, : 224 // 2].all(axis=-1).any()]
    assert all(frame[:, : 224 // 2].any(axis=-1).all() for frame in whole)  # nothing half masked got through
    event = next(event for event in site.events("halved") if event.prompt.id == "red")
    picture = _snapshot(site, event.id)
    height, width, _ = picture.shape
    assert picture[height // 3 : -height // 3, : width // 2 - 12].max() < 24  # JPEG's ringing at most; text is above
    assert picture[height // 2, -width // 4].max() > 150
    dark = next(event for event in site.events("hidden") if event.prompt.id == "system-dark")
    hidden = _snapshot(site, dark.id)
    assert hidden[hidden.shape[0] // 3 : -hidden.shape[0] // 3].max() < 24


def _snapshot(site: Site, event_id: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    raw = site.redis.get(f"{site.prefix}snapshot:{event_id}")
    assert isinstance(raw, bytes)
    picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture, np.uint8)


class _Recording:
    """Keeps every frame that comes to the picture encoder."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []

    def encoders(self) -> "Encoders":
        quick, frames = colour_encoders(), self.frames

        class Recorder(ColourPictures):
            def encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
                frames.extend(pixels)
                return super().encode(pixels)

        return Encoders(Recorder(), quick.picture_text, quick.sound, quick.sound_text)


METRICS = """frames_decoded_total frames_skipped_total chunks_total windows_total batch_size_count
batch_wait_seconds_count stage_seconds_count queue_depth kafka_lag stream_last_frame_timestamp_seconds
stream_gaps_total events_total prompt_confidence event_latency_seconds_count commit_seconds_count dead_letters_total
redis_up kafka_up model_info device_memory_bytes device_busy_ratio prompts_active"""


def test_every_metric_of_the_design_is_there_with_a_sane_value_after_a_run(site: Site, film: Path) -> None:
    site.prompts.add({"id": "red", "text": "red"})
    chunks = chunks_of(film, "yard", start_us=int((time.time() - 11) * 1e6))
    with site.worker() as worker:
        site.send([*chunks[:2], *chunks[3:]])  # a gap
        site.send_raw([(b"yard", b"rubbish", [("content-type", b"video/mp2t")])])
        site.wait_done()
        until(lambda: "watchword_kafka_lag{" in page(f"{worker.url}/metrics")[1], "a beat after the first fetch")
        status, text = page(f"{worker.url}/metrics")
        assert status == 200
        assert page(f"{worker.url}/readyz")[0] == page(f"{worker.url}/healthz")[0] == 200
    for name in METRICS.split():
        assert f"\nwatchword_{name}" in text, name
    frames = _value(text, 'watchword_frames_decoded_total{stream="yard"}')
    skipped = _sum(text, "watchword_frames_skipped_total")
    assert 20 <= frames <= 100
    assert frames + skipped >= 250  # 11 s of 25 frames less the gap, those that were still counted twice
    assert _value(text, 'watchword_windows_total{stream="yard"}') >= 8
    assert _value(text, 'watchword_stream_gaps_total{stream="yard"}') == 1
    assert _sum(text, "watchword_dead_letters_total") == 1
    assert _value(text, "watchword_redis_up") == _value(text, "watchword_kafka_up") == 1
    assert _value(text, "watchword_prompts_active") == 1
    assert _value(text, "watchword_device_memory_bytes") > 50e6
    assert 0 <= _value(text, "watchword_device_busy_ratio") <= 1
    assert _value(text, 'watchword_model_info{device="cpu",name="colours",sha256="' + "c" * 64 + '"}') == 1
    for stage in ("decode", "encode", "align", "track"):
        assert _value(text, f'watchword_stage_seconds_count{{stage="{stage}"}}') > 0
    assert _value(text, "watchword_commit_seconds_count") > 0
    latency_s = _value(text, "watchword_event_latency_seconds_sum") / _value(
        text, "watchword_event_latency_seconds_count"
    )
    assert 0 < latency_s < 60


def test_a_still_stream_encodes_few_frames_and_says_nearly_the_same(site: Site, tmp_path: Path) -> None:
    film = make_film(tmp_path / "still.mp4", [("red", 16.0)], is_moving=False)
    site.prompts.add({"id": "red", "text": "red"})
    site.prompts.add({"id": "grey", "text": "green", "threshold": 0.01})
    peaks: dict[float, float] = {}
    encoded: dict[float, int] = {}
    for age_s in (10.0, 0.0):
        stream, seen = f"age-{age_s:g}", _Recording()
        with site.worker(seen.encoders(), encode__reuse_max_age_s=age_s, decode__effort="motion") as worker:
            seen.frames.clear()  # the picture that warmed the encoder up
            site.send(chunks_of(film, stream))
            site.wait_done()
            text = page(f"{worker.url}/metrics")[1]
        peaks[age_s] = max(event.peak for event in site.events(stream))
        encoded[age_s] = len(seen.frames)
        still = _sum(text, "watchword_frames_skipped_total", reason="still")
        audited = _value(text, "watchword_reuse_confidence_error_count")
        assert _value(text, f'watchword_frames_decoded_total{{stream="{stream}"}}') == still + encoded[age_s] - audited
        if audited:  # still frames that were encoded all the same
            assert _value(text, 'watchword_reuse_confidence_error_bucket{le="0.01"}') == audited
    assert encoded[10.0] <= 5
    assert encoded[0.0] >= 16 * 4
    assert peaks[10.0] == pytest.approx(peaks[0.0], abs=0.01)


def _value(text: str, series: str) -> float:
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == series]
    assert found, f"{series} is not there"
    return float(found[0])


def _sum(text: str, name: str, *, reason: str = "") -> float:
    series = [line for line in text.splitlines() if line.startswith(f"{name}{{") and f'reason="{reason}' in line]
    return sum(float(line.rpartition(" ")[2]) for line in series)


class _SlowWords:
    """A text encoder that is held up, as a real one is by ten thousand new prompts."""

    def __init__(self) -> None:
        self._words = colour_encoders().picture_text
        self.name, self.sha256, self.dim = self._words.name, self._words.sha256, self._words.dim
        self.may_go_on = threading.Event()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if texts:
            self.may_go_on.wait(20)
        return self._words.encode(texts)


def test_nothing_is_looked_at_before_the_standing_prompts_are_embedded(site: Site, film: Path) -> None:
    site.prompts.add({"id": "red", "text": "red"})
    site.send(chunks_of(film, "yard"))
    slow = _SlowWords()
    encoders = replace(colour_encoders(), picture_text=slow, sound_text=slow)
    threading.Timer(1.5, slow.may_go_on.set).start()
    with site.worker(encoders):
        site.wait_done()
    assert [(str(event.state), event.prompt.id) for event in site.events()][:1] == [("open", "red")]
