import contextlib
import functools
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamer.camera_store import Camera, CameraStore
from streamer.errors import UnavailableError
from streamer.ingest.managed import CameraSupervisor
from streamer.kafka_producer import Headers
from streamer.stream_follower import StreamFollower
from streamer.stream_store import StreamStore
from streamer.types import Position
from tests.api_site import Served, serving
from tests.builders import a_chunk
from tests.colours import make_film
from tests.site import Site, until

CORNER = [[0.0, 0.0], [0.5, 0.0], [0.5, 0.5]]
EVERYTHING = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


@pytest.fixture(scope="module")
def served(redis_url: str) -> Iterator[Served]:
    streams = {"yard-*": {"labels": {"site": "north", "floor": "0"}, "masks": [EVERYTHING]}}
    with serving(redis_url, api__allowed_networks=["127.0.0.0/8"], streams=streams) as site:
        yield site


def test_masks_and_labels_stand_beside_those_of_the_settings(served: Served) -> None:
    answer = served.client.put("/v1/streams/yard-7/masks", json={"masks": [CORNER]})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    assert answer.json()["masks"] == [EVERYTHING, CORNER]
    labelled = served.client.put("/v1/streams/yard-7/labels", json={"labels": {"floor": "2", "door": "a"}}).json()
    assert labelled["labels"] == {"site": "north", "floor": "2", "door": "a"}
    assert labelled["masks"] == [EVERYTHING, CORNER]
    assert served.client.get("/v1/streams/yard-7").json() == labelled
    assert "yard-7" in [stream["id"] for stream in served.client.get("/v1/streams").json()["items"]]


def test_masks_of_an_old_version_are_refused(served: Served) -> None:
    path = "/v1/streams/gate/masks"
    served.client.put(path, json={"masks": [CORNER]}, headers={"if-match": '"0"'}).raise_for_status()
    served.problem("PUT", path, 412, json={"masks": []}, headers={"if-match": '"0"'})
    assert served.client.get("/v1/streams/gate").json()["masks"] == [CORNER]


@pytest.mark.parametrize(
    ("kind", "body", "where"),
    [
        ("masks", {"masks": [[[0, 0], [1, 1]]]}, "body/masks/0"),
        ("masks", {"masks": [[[0, 0], [1, 1], [2, 0]]]}, "body/masks/0/2/0"),
        ("masks", {"masks": [CORNER] * 33}, "body/masks"),
        ("masks", {}, "body/masks"),
        ("labels", {"labels": {"UP": "x"}}, "body/labels"),
    ],
)
def test_a_mask_or_label_that_is_none_is_refused(served: Served, kind: str, body: dict[str, Any], where: str) -> None:
    assert served.problem("PUT", f"/v1/streams/x/{kind}", 422, json=body)["errors"][0]["where"] == where


def test_a_stream_that_nobody_knows_is_a_404(served: Served) -> None:
    served.problem("GET", "/v1/streams/nowhere", 404)
    served.problem("GET", "/v1/streams/NO", 422)


def test_whoever_follows_has_a_change_within_a_second(served: Served) -> None:
    follower = StreamFollower(StreamStore(served.redis, served.prefix), served.settings)
    follower.start()
    try:
        until(lambda: follower.is_loaded, "loaded")
        served.client.put("/v1/streams/pier/masks", json={"masks": [CORNER]}).raise_for_status()
        began_s = time.monotonic()
        until(lambda: follower.of("pier").masks, "followed")
        assert time.monotonic() - began_s < 1
    finally:
        follower.close()


def test_what_cannot_be_read_keeps_the_masks_that_stood_and_can_be_mended(redis_url: str) -> None:
    with serving(redis_url) as served:
        served.client.put("/v1/streams/a/masks", json={"masks": [CORNER]}).raise_for_status()
        follower = StreamFollower(StreamStore(served.redis, served.prefix), served.settings)
        follower.look()
        served.redis.hset(f"{served.prefix}streams:settings", "a", "nonsense")
        served.redis.incr(f"{served.prefix}streams:serial")
        with pytest.raises(Exception, match="cannot be read"):
            follower.look()
        assert follower.of("a").masks
        served.client.put("/v1/streams/a/masks", json={"masks": []}).raise_for_status()
        follower.look()
        assert not follower.of("a").masks


def test_a_cameras_password_is_shown_nowhere(served: Served) -> None:
    made = served.client.post("/v1/streams", json={"url": "rtsp://bob:hunter2@127.0.0.1:9/live?key=hunter2"})
    assert made.status_code == 201, made.text
    name = made.json()["id"]
    assert made.headers["location"] == f"/v1/streams/{name}"
    shown = [made.text, served.client.get("/v1/streams").text, served.client.get("/v1/audit").text]
    shown.append(served.client.get(f"/v1/streams/{name}").text)
    assert not any("hunter2" in text or "bob" in text for text in shown)
    problem = served.problem("POST", "/v1/streams", 409, json={"id": name, "url": "rtsp://bob:hunter2@127.0.0.1/"})
    assert "hunter2" not in json.dumps(problem)
    assert served.client.get(f"/v1/streams/{name}").json()["camera"]["state"] == "unread"
    assert served.client.delete(f"/v1/streams/{name}/camera").status_code == 204
    served.problem("DELETE", f"/v1/streams/{name}/camera", 404)


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://10.0.0.7/live",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://0x7f000001:8080/",
        "file:///etc/passwd",
        "/etc/passwd",
        "/dev/video0",
        "-",
        "gopher://example.org/",
        "http://",
        "http://a b/",
        "http://user:secret@10.1.2.3/",
    ],
)
def test_an_address_that_leads_inside_is_refused(redis_url: str, url: str) -> None:
    with serving(redis_url) as served:
        problem = served.problem("POST", "/v1/streams", 422, json={"url": url})
        assert "secret" not in problem["detail"]
        assert served.client.get("/v1/streams").json()["total"] == 0


class Kept:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.streams: list[str] = []

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Headers = (),
        on_delivery: Any = None,
        *,
        timeout_s: float = 10.0,
    ) -> None:
        del value, headers, timeout_s
        assert key is not None
        self.streams.append(key.decode())
        if on_delivery is not None:
            none: UnavailableError | None = None
            on_delivery(Position(topic, 0, len(self.streams)), none)


@pytest.fixture(scope="module")
def camera_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server with one long film."""
    folder = tmp_path_factory.mktemp("web")
    make_film(folder / "film.ts", [("red", 60.0)])
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/film.ts"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(OSError):  # the camera was removed
            super().copyfile(source, outputfile)


def supervisor(served: Served, producer: Kept, owner: str) -> CameraSupervisor:
    made = CameraSupervisor(CameraStore(served.redis, served.prefix), served.settings, producer, owner)
    made.start()
    return made


def test_a_camera_is_read_once_it_is_registered_until_it_is_removed(redis_url: str, camera_url: str) -> None:
    with serving(redis_url, api__allowed_networks=["127.0.0.0/8"]) as served:
        kept = Kept()
        reader = supervisor(served, kept, "one")
        try:
            made = served.client.post("/v1/streams", json={"id": "film", "url": camera_url, "labels": {"a": "b"}})
            assert made.status_code == 201
            until(lambda: "film" in kept.streams, "chunks arrive")
            until(lambda: camera(served, "film")["state"] == "reading", "the API says so")
            assert served.client.get("/v1/streams/film").json()["labels"] == {"a": "b"}
            served.client.delete("/v1/streams/film/camera").raise_for_status()
            until(lambda: not reader.streams, "it is left")
        finally:
            reader.close()


def test_a_camera_is_read_by_one_supervisor_and_taken_over_when_it_is_gone(redis_url: str, camera_url: str) -> None:
    with serving(redis_url, api__allowed_networks=["127.0.0.0/8"]) as served:
        served.client.post("/v1/streams", json={"id": "film", "url": camera_url}).raise_for_status()
        one, two = Kept(), Kept()
        first = supervisor(served, one, "one")
        until(lambda: first.streams, "read")
        second = supervisor(served, two, "two")
        try:
            until(lambda: one.streams, "chunks arrive")
            assert not second.streams
            first.close()
            until(lambda: second.streams == ("film",), "taken over")
            until(lambda: two.streams, "chunks arrive here")
        finally:
            second.close()


def test_a_camera_whose_name_leads_inside_by_now_is_not_opened(redis_url: str) -> None:
    with serving(redis_url) as served:
        store = CameraStore(served.redis, served.prefix)
        store.add("sly", Camera("http://127.0.0.1:1/film", "2026-11-24T12:00:00.000000Z", "test"))
        kept = Kept()
        reader = supervisor(served, kept, "one")
        try:
            until(lambda: camera(served, "sly")["state"] == "refused", "refused")
            assert "not a public address" in camera(served, "sly")["last_error"]
            assert not reader.streams
        finally:
            reader.close()


def camera(served: Served, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = served.client.get(f"/v1/streams/{stream}").json()["camera"]
    return found


class Pictures:
    """A camera that sends a red picture eight times a second."""

    def __init__(self, site: Site, stream: str) -> None:
        self._site, self._stream = site, stream
        is_done, jpeg = cv2.imencode(".jpg", np.full((96, 160, 3), (10, 10, 230), np.uint8))
        assert is_done
        self._jpeg = jpeg.tobytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> "Pictures":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        seq = 0
        while not self._stop.wait(0.125):
            chunk = a_chunk(
                stream=self._stream,
                payload=self._jpeg,
                content_type="image/jpeg",
                capture_us=time.time_ns() // 1000,
                session="s",
                seq=seq,
            )
            self._site.send([chunk])
            seq += 1


def test_a_running_worker_follows_prompts_and_masks_within_a_second(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    site = Site(broker, redis_url, tmp_path, window__hop_s=0.25, window__span_s=0.5, window__join_wait_s=0.25)
    with (
        serving(redis_url, redis__prefix=site.prefix) as served,
        site.worker(),
        Pictures(site, "yard"),
    ):

        def live() -> dict[str, float]:
            found: dict[str, float] = served.client.get("/v1/streams/yard/live").json()
            return found

        served.client.post("/v1/prompts", json={"text": "green"}).raise_for_status()
        until(lambda: "green" in live(), "it looks", timeout_s=60)
        began_s = time.monotonic()
        served.client.post("/v1/prompts", json={"text": "red", "modality": "video"}).raise_for_status()
        until(lambda: live().get("red", 0) > 0.5, "the new prompt scores")
        created_s = time.monotonic() - began_s
        status = served.client.get("/v1/streams/yard").json()["status"]
        assert status["last_frame_age_s"] < 5
        assert status["rate_hz"] > 0

        began_s = time.monotonic()
        served.client.put("/v1/streams/yard/masks", json={"masks": [EVERYTHING]}).raise_for_status()
        until(lambda: live().get("red", 1) < 0.5, "the mask is drawn")
        masked_s = time.monotonic() - began_s
        assert served.client.get("/v1/streams/yard/why/red").json()["gate"] == "mask"

        began_s = time.monotonic()
        served.client.delete("/v1/prompts/red", headers={"if-match": "*"}).raise_for_status()
        until(lambda: "red" not in live(), "the prompt is forgotten")
        removed_s = time.monotonic() - began_s
    assert max(created_s, removed_s) < 1, (created_s, removed_s)
    assert masked_s < 3, masked_s  # half a second of it is a window that saw the picture without
