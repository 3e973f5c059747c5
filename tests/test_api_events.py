import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import httpx2 as httpx
import pytest

from streamer.events import Event, event_id, to_rfc3339
from streamer.types import EventState, Evidence
from tests.api_site import Served, serving
from tests.event_builders import SECOND_US, START_US, a_transition, an_event
from tests.site import until

SEVERITIES = ("info", "warning", "critical")
STREAMS = [f"yard-{n}" for n in range(8)] + [f"dock-{n}" for n in range(4)]
PROMPTS = [f"prompt-{n}" for n in range(20)]


def event(n: int, *, state: EventState = EventState.OPEN, **more: Any) -> Event:
    fields: dict[str, Any] = {"start_us": START_US + n * SECOND_US, "state": state} | more
    return an_event(a_transition(**fields))


@pytest.fixture(scope="module")
def served(redis_url: str) -> Iterator[Served]:
    """Sixty events: every combination of five streams, three prompts, two severities and both ends of life."""
    with serving(redis_url) as site:
        site.emit(EVENTS)
        until(lambda: site.client.get("/v1/events").json()["total"] == len(EVENTS), "all indexed")
        yield site


EVENTS = [
    event(n, stream=STREAMS[n % 5], prompt=PROMPTS[n // 5 % 3], severity=SEVERITIES[n % 2], state=state)
    for n in range(60)
    for state in (EventState.OPEN if n % 4 else EventState.CLOSED,)
]


def ids(served: Served, **query: Any) -> list[str]:
    page = served.client.get("/v1/events", params={"limit": 500, **query}).json()
    assert page["total"] == len(page["items"])
    return [item["id"] for item in page["items"]]


def test_events_come_newest_first_with_what_was_said_of_them(served: Served) -> None:
    assert ids(served) == [event.id for event in reversed(EVENTS)]
    item = served.client.get(f"/v1/events/{EVENTS[3].id}").json()
    assert item.pop("review") == {"acknowledged": None, "mark": None, "comments": []}
    assert item == json.loads(EVENTS[3].to_json())


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({"stream": "yard-1"}, lambda e: e.stream == "yard-1"),
        ({"stream": ["yard-1", "yard-3"]}, lambda e: e.stream in {"yard-1", "yard-3"}),
        ({"stream": "yard-*"}, bool),
        ({"prompt": "prompt-2"}, lambda e: e.prompt.id == "prompt-2"),
        ({"severity": "info"}, lambda e: e.severity == "info"),
        ({"state": "closed"}, lambda e: e.state == "closed"),
        ({"since": to_rfc3339(START_US + 30 * SECOND_US)}, lambda e: e.start_us >= START_US + 30 * SECOND_US),
        ({"until": to_rfc3339(START_US + 30 * SECOND_US)}, lambda e: e.start_us < START_US + 30 * SECOND_US),
        (
            {"stream": "yard-2", "prompt": "prompt-0", "severity": "warning", "state": ["open", "closed"]},
            lambda e: (e.stream, e.prompt.id, e.severity) == ("yard-2", "prompt-0", "warning"),
        ),
        ({"stream": "nowhere"}, lambda e: e is None),
        ({"since": "1m"}, lambda e: e.start_us >= time.time() * 1e6 - 60e6),
    ],
)
def test_a_filter_gives_what_fits_and_nothing_else(served: Served, query: dict[str, Any], fits: Any) -> None:
    assert ids(served, **query) == [event.id for event in reversed(EVENTS) if fits(event)]


def test_pages_hold_every_event_once_while_new_ones_arrive(redis_url: str) -> None:
    with serving(redis_url) as served:
        old = [event(n, stream=f"s-{n % 3}") for n in range(40)]
        served.emit(old)
        until(lambda: served.client.get("/v1/events").json()["total"] == 40, "indexed")
        seen: list[str] = []
        cursor: dict[str, str] = {}
        for number in range(6):
            page = served.client.get("/v1/events", params={"limit": 7, **cursor}).json()
            seen += [item["id"] for item in page["items"]]
            served.emit([event(100 + number)], partition=number + 1)
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        assert seen == [event.id for event in reversed(old)]


def test_a_query_that_is_wrong_says_what_is_allowed(served: Served) -> None:
    for query, where in (
        ("since=yesterday", "query/since"),
        ("limit=0", "query/limit"),
        ("state=over", "query/state/0"),
        ("stream=A%20B", "query/stream/0"),
        ("cursor=x", "query/cursor"),
        ("colour=red", "query/colour"),
        ("since=99999999999d", "query/since"),
    ):
        assert served.problem("GET", f"/v1/events?{query}", 422)["errors"][0]["where"] == where


def test_an_event_that_is_not_there_is_a_404(served: Served) -> None:
    served.problem("GET", "/v1/events/0123456789abcdef", 404)
    served.problem("GET", "/v1/events/nonsense", 422)


def test_an_events_new_state_replaces_the_old_one(redis_url: str) -> None:
    with serving(redis_url) as served:
        served.emit([event(1)])
        until(lambda: ids(served, state="open"), "open")
        served.emit([event(1, state=EventState.CLOSED)], partition=1)
        until(lambda: ids(served, state="closed"), "closed")
        assert ids(served, state="open") == []
        assert len(ids(served)) == 1


def test_events_that_workers_have_forgotten_are_gone_from_pages(redis_url: str) -> None:
    with serving(redis_url) as served:
        events = [event(n) for n in range(10)]
        served.emit(events)
        until(lambda: len(ids(served)) == 10, "indexed")
        for gone in events[2:9]:
            served.redis.delete(f"{served.prefix}event:{gone.id}")
        page = served.client.get("/v1/events?limit=2").json()
        assert [item["id"] for item in page["items"]] == [events[9].id, events[1].id]


def test_what_people_say_of_an_event_is_kept(served: Served) -> None:
    path = f"/v1/events/{EVENTS[7].id}"
    assert served.client.put(f"{path}/acknowledge").json()["acknowledged"]["by"] == "local"
    served.client.put(f"{path}/mark", json={"verdict": "wrong"}).raise_for_status()
    assert served.client.put(f"{path}/mark", json={"verdict": "right"}).json()["mark"]["verdict"] == "right"
    made = served.client.post(f"{path}/comments", json={"text": "the gardener\nagain"})
    assert (made.status_code, made.json()["number"]) == (201, 1)
    served.client.post(f"{path}/comments", json={"text": "twice"}).raise_for_status()
    review = served.client.get(path).json()["review"]
    assert [comment["text"] for comment in review["comments"]] == ["the gardener\nagain", "twice"]
    listed = served.client.get("/v1/events?limit=500").json()["items"]
    assert next(item for item in listed if item["id"] == EVENTS[7].id)["review"] == review
    served.client.delete(f"{path}/mark").raise_for_status()
    assert served.client.delete(f"{path}/acknowledge").json()["acknowledged"] is None
    assert served.client.get(path).json()["review"]["mark"] is None


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("mark", {"verdict": "maybe"}, "body/verdict"),
        ("mark", {}, "body/verdict"),
        ("comments", {"text": "  "}, "body/text"),
        ("comments", {"text": "bell\x07"}, "body/text"),
        ("comments", {"text": "x" * 2001}, "body/text"),
        ("comments", {"text": "hi", "colour": 1}, "body/colour"),
    ],
)
def test_what_cannot_be_said_is_refused(served: Served, path: str, body: dict[str, Any], where: str) -> None:
    method = "PUT" if path == "mark" else "POST"
    problem = served.problem(method, f"/v1/events/{EVENTS[1].id}/{path}", 422, json=body)
    assert problem["errors"][0]["where"] == where


def test_a_snapshot_is_the_picture_that_the_worker_drew(served: Served) -> None:
    served.redis.set(f"{served.prefix}snapshot:{EVENTS[0].id}", b"\xff\xd8picture")
    answer = served.client.get(f"/v1/events/{EVENTS[0].id}/snapshot")
    assert (answer.headers["content-type"], answer.content) == ("image/jpeg", b"\xff\xd8picture")
    assert "no picture" in served.problem("GET", f"/v1/events/{EVENTS[1].id}/snapshot", 404)["detail"]


class Feed:
    """A client of the feed that reads on a thread."""

    def __init__(self, served: Served, path: str = "/v1/events/feed", **how: Any) -> None:
        self.ids: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.comments: list[str] = []
        self.kinds: list[str] = []
        self._id = ""
        self._ready = threading.Event()
        self._served, self._path, self._how = served, path, how
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Feed":
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def has(self, count: int) -> bool:
        return len(self.ids) == count

    def _read(self) -> None:
        with (
            httpx.Client(base_url=self._served.url, timeout=10) as client,
            client.stream("GET", self._path, **self._how) as answer,
        ):
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                self._take(line)
                if self._stop.is_set():
                    return

    def _take(self, line: str) -> None:
        name, _, value = line.partition(": ")
        if name == "retry":
            self._ready.set()
        elif name == "id":
            self._id = value
        elif name == "event":
            self.kinds.append(value)
        elif name == "data":
            self.events.append(json.loads(value))
            if self._id:
                self.ids.append(self._id)
                self._id = ""
        elif line.startswith(":"):
            self.comments.append(line)


@contextlib.contextmanager
def feeding(redis_url: str, **flags: Any) -> Iterator[Served]:
    with serving(redis_url, api__feed_ping_s=0.2, **flags) as served:
        yield served


def told(feed: Feed) -> list[tuple[str, str]]:
    return [(document["id"], document["state"]) for document in feed.events if "id" in document]


def states(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.id, str(event.state)) for event in events]


def test_the_feed_tells_what_comes_in_order_and_only_what_is_wanted(redis_url: str) -> None:
    with feeding(redis_url) as served:
        served.emit([event(0)])
        wanted = {"stream": "yard-*", "severity": "critical"}
        with Feed(served) as everything, Feed(served, params=wanted) as some:
            until(lambda: some.comments and everything.comments, "both follow")
            events = [event(n, stream=STREAMS[n], severity=SEVERITIES[n % 3]) for n in range(1, 12)]
            served.emit(events, partition=1)
            until(lambda: len(everything.events) == 11, "all told")
            assert told(everything) == states(events)
            fitting = [e for e in events if e.stream.startswith("yard") and e.severity == "critical"]
            until(lambda: len(some.events) == len(fitting), "some told")
            assert told(some) == states(fitting)


def test_a_feed_that_broke_off_goes_on_where_it_was(redis_url: str) -> None:
    with feeding(redis_url) as served:
        events = [event(n) for n in range(700)]  # more than one page of the log
        with Feed(served) as first:
            until(lambda: first.comments, "it follows")
            served.emit(events[:5])
            until(lambda: len(first.ids) == 5, "five told")
        served.emit(events[5:650], partition=1)
        with Feed(served, headers={"last-event-id": first.ids[2]}) as second:
            served.emit(events[650:], partition=2)
            until(lambda: len(second.ids) >= 697, "the rest told")
            assert told(first)[:3] + told(second) == states(events)
            assert len(set(second.ids)) == len(second.ids)
        with Feed(served, f"/v1/events/feed?last_event_id={second.ids[-3]}") as third:
            until(lambda: len(third.ids) == 2, "the last two")


def test_a_feed_is_told_that_what_it_missed_is_gone(redis_url: str) -> None:
    with feeding(redis_url) as served:
        with Feed(served) as first:
            until(lambda: first.comments, "it follows")
            served.emit([event(n) for n in range(10)])
            until(lambda: len(first.ids) == 10, "told")
        served.redis.xtrim(f"{served.prefix}events", maxlen=3, approximate=False)
        with Feed(served, headers={"last-event-id": first.ids[1]}) as second:
            until(lambda: len(second.ids) == 3, "what is left")
            assert second.kinds == ["lost"]
        with Feed(served, headers={"last-event-id": first.ids[8]}) as third:
            until(lambda: len(third.ids) == 1, "the last")
            assert third.kinds == []


def test_a_client_that_does_not_read_is_dropped_and_holds_nobody_up(redis_url: str) -> None:
    with feeding(redis_url, api__feed_queue=16) as served, Feed(served) as quick:
        until(lambda: quick.comments, "it follows")
        host, _, port = served.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(b"GET /v1/events/feed HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            slow.recv(64)
            attention = tuple(tuple(0.001234 for _ in range(30)) for _ in range(30))
            evidence = Evidence(region=(0, 0, 1, 1), frame_time_us=START_US, attention=attention)
            sent: list[Event] = []
            deadline_s = time.monotonic() + 30
            while served.client.get("/v1/system").json()["feed"]["dropped"] == 0:
                assert time.monotonic() < deadline_s, "the slow client was not dropped"
                batch = [event(len(sent) + n, evidence=evidence) for n in range(40)]
                served.emit(batch, partition=len(sent))
                sent += batch
                until(partial(quick.has, len(sent)), "the quick one has all")
        assert told(quick) == states(sent)


def test_many_clients_are_all_told(redis_url: str) -> None:
    with feeding(redis_url) as served, contextlib.ExitStack() as stack:
        feeds = [stack.enter_context(Feed(served)) for _ in range(40)]
        until(lambda: all(feed.comments for feed in feeds), "all follow")
        events = [event(n) for n in range(20)]
        served.emit(events)
        until(lambda: all(len(feed.ids) == 20 for feed in feeds), "all told")
        assert all(told(feed) == states(events) for feed in feeds)


def test_too_many_clients_are_asked_to_come_again(redis_url: str) -> None:
    with feeding(redis_url, api__max_feeds=1) as served, Feed(served) as first:
        until(lambda: first.comments, "it follows")
        answer = served.client.get("/v1/events/feed")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_any_filter_over_a_hundred_thousand_events_takes_less_than_100_ms(redis_url: str) -> None:
    pick = random.Random(100)
    with serving(redis_url) as filled:
        _fill(filled, 100_000, pick)
        with serving(redis_url, redis__prefix=filled.prefix) as served:
            assert served.client.get("/v1/events?limit=1").json()["total"] == 100_000
            times_s = {}
            for query in QUERIES:
                least_s = 9.0
                for _ in range(5):
                    began_s = time.monotonic()
                    served.client.get(f"/v1/events?{query}").raise_for_status()
                    least_s = min(least_s, time.monotonic() - began_s)
                times_s[query] = round(least_s, 4)
            assert max(times_s.values()) < 0.1, times_s


QUERIES = (
    "",
    "stream=yard-3",
    "stream=yard-*&prompt=prompt-1&severity=critical&state=open",
    "prompt=prompt-19&state=update",
    "severity=info",
    "state=open",
    f"since={to_rfc3339(START_US + 90_000 * SECOND_US)}",
    f"until={to_rfc3339(START_US + 2_000 * SECOND_US)}&stream=dock-2",
    f"cursor={START_US + 50_000 * SECOND_US}-0000000000000000&limit=100",
    "stream=nowhere&severity=critical",
)


def _fill(served: Served, count: int, pick: random.Random) -> None:
    template = event(0)
    document = template.to_json()
    times = f"{served.prefix}events:times"
    for first in range(0, count, 5_000):
        pipeline = served.redis.pipeline(transaction=False)
        scores: dict[str, int] = {}
        for n in range(first, first + 5_000):
            stream, prompt, start_us = pick.choice(STREAMS), pick.choice(PROMPTS), START_US + n * SECOND_US
            name = event_id(stream, prompt, start_us)
            scores[name] = start_us
            state, severity = pick.choice(("open", *["closed"] * 9)), pick.choice(SEVERITIES)
            fields: Any = {"stream": stream, "prompt": prompt, "severity": severity, "state": state}
            pipeline.hset(
                f"{served.prefix}event:{name}", mapping={**fields, "event": document.replace(template.id, name)}
            )
        pipeline.zadd(times, scores)
        pipeline.execute()
