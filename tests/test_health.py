"""Over real HTTP, as Prometheus and an orchestrator would ask."""

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from streamer.errors import SettingsError
from streamer.health import Conditions, HealthServer
from streamer.metrics import Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def ready() -> Conditions:
    return Conditions(["models", "partitions"])


@pytest.fixture
def server(registry: CollectorRegistry, ready: Conditions) -> Iterator[HealthServer]:
    with HealthServer(registry, ready) as running:
        yield running


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310  # our own loopback server
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_a_scrape_reads_what_was_counted(server: HealthServer, registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    metrics.decoded("dock-3", 8)
    status, headers, body = get(f"{server.url}/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    (sample,) = [s for s in families["watchword_frames_decoded"].samples if s.name.endswith("_total")]
    assert (sample.labels, sample.value) == ({"stream": "dock-3"}, 8)


def test_a_scrape_in_openmetrics_is_answered_in_kind(server: HealthServer) -> None:
    _, headers, body = get(f"{server.url}/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_readyz_says_what_is_missing_until_nothing_is(server: HealthServer, ready: Conditions) -> None:
    status, headers, body = get(f"{server.url}/readyz")
    assert (status, headers["Content-Type"]) == (503, "application/json")
    assert json.loads(body) == {"status": "unavailable", "reasons": {"models": "not yet", "partitions": "not yet"}}
    ready.meet("models")
    assert json.loads(get(f"{server.url}/readyz")[2])["reasons"] == {"partitions": "not yet"}
    ready.meet("partitions")
    assert get(f"{server.url}/readyz")[::2] == (200, b'{"status": "ok"}')


def test_readyz_turns_back_when_a_server_goes_away(server: HealthServer, ready: Conditions) -> None:
    ready.meet("models")
    ready.meet("partitions")
    ready.fail("redis", "Redis at 127.0.0.1:6399 does not answer")
    assert get(f"{server.url}/readyz")[0] == 503
    ready.meet("redis")
    assert get(f"{server.url}/readyz")[0] == 200


def test_a_watched_condition_is_asked_each_time() -> None:
    answers: list[str | None] = ["polling ended", None]
    conditions = Conditions()
    conditions.watch("source", lambda: answers.pop(0))
    assert conditions.reasons() == {"source": "polling ended"}
    assert conditions.reasons() == {}


def test_healthz_is_well_while_readyz_is_not(server: HealthServer) -> None:
    assert get(f"{server.url}/healthz")[0] == 200
    assert get(f"{server.url}/readyz")[0] == 503


def test_healthz_tells_when_the_worker_is_beyond_help(registry: CollectorRegistry, ready: Conditions) -> None:
    alive = Conditions()
    with HealthServer(registry, ready, alive=alive) as server:
        alive.fail("source", "polling ended")
        status, _, body = get(f"{server.url}/healthz")
    assert status == 503
    assert json.loads(body)["reasons"] == {"source": "polling ended"}


def test_head_gives_the_headers_alone(server: HealthServer) -> None:
    status, headers, body = get(f"{server.url}/healthz", method="HEAD")
    assert (status, int(headers["Content-Length"]), body) == (200, len(b'{"status": "ok"}'), b"")


@pytest.mark.parametrize("path", ["/", "/metricsx", "/..%2f..%2fetc/passwd"])
def test_other_paths_are_not_found_and_say_which_there_are(server: HealthServer, path: str) -> None:
    status, _, body = get(server.url + path)
    assert status == 404
    assert "/readyz" in json.loads(body)["error"]


def test_a_query_is_no_other_page(server: HealthServer) -> None:
    assert get(f"{server.url}/healthz?verbose=1")[0] == 200


def test_a_client_that_says_nothing_holds_nobody_up(server: HealthServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))):
        assert get(f"{server.url}/healthz")[0] == 200


def test_garbage_is_answered_with_an_error_and_the_next_is_served(server: HealthServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"\x16\x03\x01\x00 not http\r\n\r\n")
        assert b"400" in client.recv(1_000)
    assert get(f"{server.url}/healthz")[0] == 200


def test_a_post_is_refused(server: HealthServer) -> None:
    assert get(f"{server.url}/metrics", method="POST")[0] == 501


def test_it_is_gone_after_close_even_with_a_client_that_dawdles(registry: CollectorRegistry) -> None:
    server = HealthServer(registry, Conditions())
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))):
        server.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=5)
    assert "health" not in {thread.name for thread in threading.enumerate()}


def test_a_port_in_use_is_one_clear_error(server: HealthServer, registry: CollectorRegistry) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(SettingsError, match=rf"metrics.port {port} cannot be listened on.*port 0"):
        HealthServer(registry, Conditions(), port=port)


def test_an_address_that_is_not_ours_is_one_clear_error(registry: CollectorRegistry) -> None:
    with pytest.raises(SettingsError, match=r"metrics.host 192\.0\.2\.1"):
        HealthServer(registry, Conditions(), host="192.0.2.1")


def test_scrapes_and_changes_at_once_do_not_disturb_each_other(
    server: HealthServer, registry: CollectorRegistry
) -> None:
    metrics = Metrics(registry, max_streams=8)
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            metrics.decoded(f"cam-{number % 20}", 1)
            metrics.forget_stream(f"cam-{(number * 7) % 20}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        host, port = server.url.removeprefix("http://").split(":")
        for _ in range(30):
            client = http.client.HTTPConnection(host, int(port), timeout=5)
            client.request("GET", "/metrics")
            response = client.getresponse()
            assert response.status == 200
            response.read()
            client.close()
    finally:
        stop.set()
        thread.join()
