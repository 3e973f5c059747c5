"""Cameras that fall silent, dark or still, that send rubbish, that are too many; picture and sound apart."""

import time
from pathlib import Path
from typing import Any

import pytest

from streamer.types import MediaChunk
from tests.colours import make_film
from tests.footage import make_tone
from tests.site import START_US, Site, chunks_of, page, until
from tests.worker_process import slow_encoders


def camera_site(broker: str, redis_url: str, folder: Path, **flags: Any) -> Site:
    quick: dict[str, Any] = {
        "system__enabled": True,
        "system__silent_after_s": 1.5,
        "system__hold_s": 2.0,
        "system__frozen_after_s": 4.0,
        "window__idle_flush_s": 0.5,
    }
    return Site(broker, redis_url, folder, **(quick | flags))


def told(site: Site, stream: str) -> list[tuple[str, str]]:
    return [(event.prompt.id, str(event.state)) for event in site.events(stream)]


def test_a_dark_and_a_frozen_camera_are_told(broker: str, redis_url: str, tmp_path: Path) -> None:
    site = camera_site(broker, redis_url, tmp_path, system__silent_after_s=60.0)
    dark = make_film(tmp_path / "dark.mp4", [("grey", 3.0), ("black", 5.0), ("grey", 4.0)])
    frozen = make_film(tmp_path / "frozen.mp4", [("blue", 9.0)], is_moving=False)
    lively = make_film(tmp_path / "lively.mp4", [("blue", 9.0)])
    with site.worker():
        for stream, film in (("dark", dark), ("frozen", frozen), ("lively", lively)):
            site.send(chunks_of(film, stream))
        site.wait_done()
    assert told(site, "dark") == [("system-dark", "open"), ("system-dark", "closed")]
    assert told(site, "frozen") == [("system-frozen", "open"), ("system-frozen", "closed")]
    assert told(site, "lively") == []


def test_a_camera_that_breaks_off_is_silent_and_one_that_ended_is_not(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    site = camera_site(broker, redis_url, tmp_path)
    film = make_film(tmp_path / "film.mp4", [("grey", 4.0)])
    with site.worker():
        site.send(chunks_of(film, "gate", is_whole=False))
        site.send(chunks_of(film, "yard"))
        until(lambda: told(site, "gate"), "it is told")
        assert told(site, "gate") == [("system-silent", "open")]
        event = site.events("gate")[0]
        assert 2_000_000 <= event.start_us - START_US <= 5_000_000  # where it broke off
        site.send(chunks_of(film, "gate", start_us=START_US + 60_000_000))
        until(lambda: len(told(site, "gate")) == 2, "it is back")
        site.wait_done()
        time.sleep(2.5)  # longer than a silence
    assert told(site, "gate") == [("system-silent", "open"), ("system-silent", "closed")]
    assert told(site, "yard") == []


def test_a_camera_whose_chunks_wait_for_a_slow_worker_is_neither_silent_nor_cut_short(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    site = camera_site(broker, redis_url, tmp_path, decode__queue_chunks=1, kafka__poll_max_bytes=65_536)
    site.prompts.add({"id": "red", "text": "red", "cooldown": "0s"})
    film = make_film(tmp_path / "film.mp4", [("red", 6.0)])
    chunks = [chunk for row in zip(*(chunks_of(film, f"cam-{n}") for n in range(3)), strict=True) for chunk in row]
    with site.worker(slow_encoders(0.7), batch__max_frames=1):
        site.send(chunks)
        site.wait_done(timeout_s=60)
    for n in range(3):
        events = [event for event in site.events(f"cam-{n}") if event.state != "update"]
        assert [(event.prompt.id, event.state) for event in events] == [("red", "open"), ("red", "closed")]


def test_a_stream_that_sends_nothing_but_rubbish_is_not_decoded_for_a_while_and_then_forgiven(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    site = Site(broker, redis_url, tmp_path)
    site.prompts.add({"id": "red", "text": "red"})
    headers = [("content-type", b"video/mp2t"), ("capture-us", str(START_US).encode())]
    film = make_film(tmp_path / "film.mp4", [("red", 4.0)])
    with site.worker() as worker:
        site.send_raw((b"yard", b"rubbish %d" % n, headers) for n in range(5))
        site.wait_done()
        site.send_raw((b"yard", b"rubbish %d" % n, headers) for n in range(5, 12))
        site.send(chunks_of(film, "gate"))  # others do not suffer
        site.wait_done()
        reasons = [dict(letter.headers)["reason"].decode() for letter in site.dead_letters(12)]
        assert reasons.count("malformed") == 5
        assert reasons.count("quarantine") == 7
        assert "watchword_dead_letters_total" in page(f"{worker.url}/metrics")[1]
        assert told(site, "gate")
        time.sleep(2.1)  # its first pause
        site.send(chunks_of(film, "yard"))
        site.wait_done()
    assert {state for _, state in told(site, "yard")} >= {"open", "closed"}


def test_under_live_overload_every_chunk_is_counted_and_no_stream_is_starved(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    site = Site(
        broker, redis_url, tmp_path, overload__policy="live", overload__max_age_s=3.0, decode__queue_chunks=1,
        kafka__poll_max_bytes=1 << 20,
    )  # fmt: skip
    film = make_film(tmp_path / "film.mp4", [("red", 24.0)])
    names = [f"cam-{n}" for n in range(4)]
    rounds = list(zip(*(chunks_of(film, name) for name in names), strict=True))
    with site.worker(slow_encoders(0.25), batch__max_frames=1) as worker:
        for row in rounds:
            site.send(row)
            time.sleep(0.3)  # over thrice what it can look at
        site.wait_done(timeout_s=60)
        text = page(f"{worker.url}/metrics")[1]
    skipped = [_count(text, name, "skipped-") for name in names]
    decoded = [_count(text, name, "decoded") for name in names]
    assert [a + b for a, b in zip(skipped, decoded, strict=True)] == [len(rounds)] * 4
    assert min(skipped) > 0
    assert min(decoded) >= 2


def _count(text: str, stream: str, result: str) -> int:
    rows = [row for row in text.splitlines() if row.startswith("watchword_chunks_total{")]
    mine = [row for row in rows if f'stream="{stream}"' in row and f'result="{result}' in row]
    return int(sum(float(row.rpartition(" ")[2]) for row in mine))


@pytest.mark.parametrize("is_sound_first", [True, False])
def test_picture_and_sound_in_topics_of_their_own_meet_in_one_window(
    broker: str, redis_url: str, tmp_path: Path, is_sound_first: bool
) -> None:
    site = Site(broker, redis_url, tmp_path)
    sound_topic = f"{site.topic}.sound"
    site.add_topic(sound_topic)
    site.prompts.add({"id": "both", "text": "red", "modality": "video"})
    site.prompts.add({"id": "loud", "text": "loud", "modality": "audio"})
    picture = chunks_of(make_film(tmp_path / "film.mp4", [("red", 5.0)]), "yard")
    sound = chunks_of(make_tone(tmp_path / "tone.wav", "pcm_s16le", seconds=5.0), "yard")

    def send_sound() -> None:
        site.send(sound, topic=sound_topic)

    with site.worker():
        if is_sound_first:
            send_sound()
        site.send(picture)
        if not is_sound_first:
            send_sound()
        site.wait_done()
    events = site.events("yard")
    assert {(event.prompt.id, str(event.state)) for event in events} >= {
        ("both", "open"), ("both", "closed"), ("loud", "open"), ("loud", "closed"),
    }  # fmt: skip
    assert any(event.seen is not None and event.heard is not None for event in events)


def test_a_last_chunk_that_is_rubbish_still_ends_its_stream(broker: str, redis_url: str, tmp_path: Path) -> None:
    site = camera_site(broker, redis_url, tmp_path, system__silent_after_s=60.0, window__idle_flush_s=60.0)
    site.prompts.add({"id": "red", "text": "red"})
    chunks: list[MediaChunk] = chunks_of(make_film(tmp_path / "film.mp4", [("red", 5.0)]), "yard")
    headers = [("content-type", b"video/mp2t"), ("capture-us", str(START_US + 5_000_000).encode()), ("last", b"1")]
    with site.worker():
        site.send(chunk for chunk in chunks if not chunk.is_last)
        site.send_raw([(b"yard", b"rubbish", headers)])
        site.wait_done()
    assert [state for _, state in told(site, "yard")][-1] == "closed"
