import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from streamer.embedded import EmbeddedRedis
from streamer.emit import Emitter, EventLimits, _Held
from streamer.errors import ContractError, FencedError, UnavailableError
from streamer.events import Event
from streamer.redis_client import connect_redis
from streamer.track import WindowScores, advance
from streamer.track_state import StreamState, from_document, to_document
from streamer.types import EventState
from tests.event_builders import SECOND_US, START_US, a_transition, an_event
from tests.test_track import OPTIONS, PROMPTS, timelines, track_all

LIMITS = EventLimits(max_length=1000, max_age_s=3600, snapshot_ttl_s=60)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    client.close()


@pytest.fixture
def emitter(redis: Redis, prefix: str) -> Emitter:
    return Emitter(redis, prefix, LIMITS)


def entries(redis: Redis, prefix: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    reply: Any = redis.xrange(f"{prefix}events")
    return list(reply)


def ids_and_states(redis: Redis, prefix: str) -> list[tuple[str, str]]:
    return [(fields[b"id"].decode(), fields[b"state"].decode()) for _, fields in entries(redis, prefix)]


def test_a_partition_that_was_never_committed_has_no_offsets_and_no_state(emitter: Emitter) -> None:
    claim = emitter.claim(3)
    assert (claim.partition, claim.epoch, claim.offsets, claim.state) == (3, 1, {}, None)


def test_a_claim_gives_back_what_was_committed(redis: Redis, emitter: Emitter, prefix: str) -> None:
    epoch = emitter.claim(0).epoch
    emitter.commit(0, epoch, {"media": 7, "sound": 9}, {"streams": {"yard-1": [1.5, "ü"]}}, [])
    claim = Emitter(redis, prefix, LIMITS).claim(0)
    assert (claim.epoch, claim.offsets) == (epoch + 1, {"media": 7, "sound": 9})
    assert claim.state == {"streams": {"yard-1": [1.5, "ü"]}}


def test_a_commit_appends_its_events_in_order_with_fields_to_filter_by(
    redis: Redis, emitter: Emitter, prefix: str
) -> None:
    opened = an_event()
    closed = an_event(a_transition(state=EventState.CLOSED))
    emitter.commit(0, emitter.claim(0).epoch, {"media": 1}, {}, [opened, closed])
    written = [fields for _, fields in entries(redis, prefix)]
    assert [json.loads(fields.pop(b"event")) for fields in written] == [
        json.loads(event.to_json()) for event in (opened, closed)
    ]
    common = {b"id": opened.id.encode(), b"stream": b"yard-1", b"prompt": b"fire", b"severity": b"critical"}
    assert written == [common | {b"state": b"open"}, common | {b"state": b"closed"}]


def test_the_latest_state_of_an_event_is_found_by_its_id_and_by_time(
    redis: Redis, emitter: Emitter, prefix: str
) -> None:
    epoch = emitter.claim(0).epoch
    emitter.commit(0, epoch, {"media": 1}, {}, [an_event()])
    closed = an_event(a_transition(state=EventState.CLOSED))
    emitter.commit(0, epoch, {"media": 2}, {}, [closed])
    stored = redis.hgetall(f"{prefix}event:{closed.id}")
    assert stored[b"state"] == b"closed"
    assert stored[b"entry"] == entries(redis, prefix)[-1][0]
    for index in ("events:times", "events:stream:yard-1", "events:prompt:fire"):
        assert redis.zrange(f"{prefix}{index}", 0, -1, withscores=True) == [(closed.id.encode(), START_US)]
        assert 0 < redis.ttl(f"{prefix}{index}") <= LIMITS.max_age_s


def test_a_worker_that_lost_its_partition_writes_nothing(redis: Redis, emitter: Emitter, prefix: str) -> None:
    epoch = emitter.claim(0).epoch
    emitter.commit(0, epoch, {"media": 1}, {"by": "first"}, [])
    second = Emitter(redis, prefix, LIMITS, owner="second")
    taken = second.claim(0)
    with pytest.raises(
        FencedError, match=f"partition 0 was taken over by second .epoch {taken.epoch}; ours was {epoch}"
    ):
        emitter.commit(0, epoch, {"media": 2}, {"by": "first"}, [an_event()])
    assert ids_and_states(redis, prefix) == []
    second.commit(0, taken.epoch, {"media": 2}, {"by": "second"}, [an_event()])
    assert second.claim(0).offsets == {"media": 2}


def test_the_same_worker_is_fenced_by_its_own_newer_claim(emitter: Emitter) -> None:
    old, new = emitter.claim(0).epoch, emitter.claim(0).epoch
    with pytest.raises(FencedError, match="claim it first"):
        emitter.commit(0, old, {"media": 1}, {}, [])
    emitter.commit(0, new, {"media": 1}, {}, [])


def test_a_commit_whose_answer_was_lost_is_written_once_when_sent_again(
    redis: Redis, emitter: Emitter, prefix: str
) -> None:
    epoch = emitter.claim(0).epoch
    with Cut(redis) as cut:
        behind = Emitter(cut.client, prefix, LIMITS, owner=emitter.owner)
        behind.claim(0)
        epoch += 1
        behind.commit(0, epoch, {"media": 1}, {}, [])
        cut.swallow_answers()
        with pytest.raises(UnavailableError):
            behind.commit(0, epoch, {"media": 2}, {"n": 2}, [an_event()])
        deadline_s = time.monotonic() + 10
        while not ids_and_states(redis, prefix) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        cut.pass_answers()
        behind.commit(0, epoch, {"media": 2}, {"n": 2}, [an_event()])
        behind.commit(0, epoch, {"media": 3}, {"n": 3}, [an_event(a_transition(state=EventState.CLOSED))])
    assert [state for _, state in ids_and_states(redis, prefix)] == ["open", "closed"]
    assert emitter.claim(0).offsets == {"media": 3}


def test_a_commit_that_comes_after_its_successor_is_refused(redis: Redis, emitter: Emitter, prefix: str) -> None:
    epoch = emitter.claim(0).epoch
    late = Emitter(redis, prefix, LIMITS, owner=emitter.owner)
    late._held[0] = _Held(epoch, 0)
    emitter.commit(0, epoch, {"media": 1}, {}, [])
    emitter.commit(0, epoch, {"media": 2}, {}, [])
    with pytest.raises(FencedError, match="stands at commit 2 in redis, ours is 1"):
        late.commit(0, epoch, {"media": 1}, {}, [an_event()])
    assert ids_and_states(redis, prefix) == []
    assert emitter.claim(0).offsets == {"media": 2}


def test_a_worker_ahead_of_a_redis_that_lost_commits_is_told_to_claim_again(
    redis: Redis, emitter: Emitter, prefix: str
) -> None:
    epoch = emitter.claim(0).epoch
    emitter.commit(0, epoch, {"media": 1}, {}, [])
    redis.hset(f"{prefix}partition:0", "serial", 0)
    with pytest.raises(FencedError, match="redis lost commits"):
        emitter.commit(0, epoch, {"media": 2}, {}, [])
    redis.delete(f"{prefix}partition:0")
    with pytest.raises(FencedError, match="claim it first"):
        emitter.commit(0, epoch, {"media": 2}, {}, [])
    emitter.commit(0, emitter.claim(0).epoch, {"media": 2}, {}, [])


def test_an_epoch_given_out_twice_by_a_redis_that_lost_a_claim_fences_by_owner(
    redis: Redis, emitter: Emitter, prefix: str
) -> None:
    epoch = emitter.claim(0).epoch
    redis.delete(f"{prefix}partition:0")
    second = Emitter(redis, prefix, LIMITS, owner="second")
    assert second.claim(0).epoch == epoch
    with pytest.raises(FencedError, match="taken over by second"):
        emitter.commit(0, epoch, {"media": 2}, {}, [])


def test_another_commit_with_a_serial_that_is_taken_is_refused(redis: Redis, emitter: Emitter, prefix: str) -> None:
    epoch = emitter.claim(0).epoch
    emitter.commit(0, epoch, {"media": 1}, {}, [])
    emitter._held[0] = _Held(epoch, 0)
    with pytest.raises(FencedError, match="stands at commit 1 in redis, ours is 1"):
        emitter.commit(0, epoch, {"media": 1}, {"other": 1}, [an_event()])
    assert ids_and_states(redis, prefix) == []


@pytest.mark.parametrize("key", ["events", "events:times", "events:stream:yard-1"])
def test_a_key_of_another_type_stops_a_commit_before_anything_is_written(
    redis: Redis, emitter: Emitter, prefix: str, key: str
) -> None:
    epoch = emitter.claim(0).epoch
    redis.set(f"{prefix}{key}", "in the way")
    with pytest.raises(UnavailableError, match="WRONGTYPE"):
        emitter.commit(0, epoch, {"media": 1}, {}, [an_event()])
    assert emitter.claim(0).offsets == {}


def test_the_script_is_loaded_again_when_redis_forgot_it(redis: Redis, emitter: Emitter, prefix: str) -> None:
    epoch = emitter.claim(0).epoch
    redis.script_flush()
    emitter.commit(0, epoch, {"media": 1}, {}, [an_event()])
    assert len(ids_and_states(redis, prefix)) == 1


def test_every_key_that_a_commit_touches_is_declared(redis: Redis, emitter: Emitter, prefix: str) -> None:
    before = set(redis.scan_iter(f"{prefix}*"))
    epoch = emitter.claim(0).epoch
    keys, _ = emitter._arguments(_Held(epoch, 1), {"media": 1}, {}, [an_event()])
    emitter.commit(0, epoch, {"media": 1}, {}, [an_event()])
    touched = {key.decode() for key in set(redis.scan_iter(f"{prefix}*")) - before}
    assert touched == {*keys, f"{prefix}partition:0"}


def test_the_event_stream_is_bounded(redis: Redis, prefix: str) -> None:
    emitter = Emitter(redis, prefix, EventLimits(max_length=100, max_age_s=3600, snapshot_ttl_s=60))
    epoch = emitter.claim(0).epoch
    for step in range(30):
        batch = [an_event(a_transition(start_us=START_US + (20 * step + i) * SECOND_US)) for i in range(20)]
        emitter.commit(0, epoch, {"media": step}, {}, batch)
    assert 100 <= redis.xlen(f"{prefix}events") <= 250  # whole nodes of the stream are dropped, not single entries


def test_entries_over_the_age_are_trimmed(redis: Redis, prefix: str) -> None:
    for number in range(300):
        redis.xadd(f"{prefix}events", {"id": "0" * 16}, id=f"{1000 + number}-0")
    emitter = Emitter(redis, prefix, LIMITS)
    emitter.commit(0, emitter.claim(0).epoch, {"media": 1}, {}, [an_event()])
    assert redis.xlen(f"{prefix}events") <= 101


def test_tidying_forgets_events_that_are_too_old_or_too_many(redis: Redis, prefix: str) -> None:
    emitter = Emitter(redis, prefix, EventLimits(max_length=5, max_age_s=60, snapshot_ttl_s=60))
    events = [an_event(a_transition(start_us=START_US + i * SECOND_US)) for i in range(8)]
    emitter.commit(0, emitter.claim(0).epoch, {"media": 1}, {}, events)
    assert emitter.tidy(START_US) == 3
    assert emitter.tidy(START_US + 65 * SECOND_US) == 2
    kept = [event.id.encode() for event in events[5:]]
    for index in ("events:times", "events:stream:yard-1", "events:prompt:fire"):
        assert redis.zrange(f"{prefix}{index}", 0, -1) == kept
    assert [redis.exists(f"{prefix}event:{event.id}") for event in events] == [0] * 5 + [1] * 3


def test_snapshots_are_kept_for_a_while(redis: Redis, emitter: Emitter) -> None:
    emitter.write_snapshots({"0" * 16: b"jpeg", "1" * 16: b"another"})
    key = emitter.snapshot_key("0" * 16)
    assert redis.get(key) == b"jpeg"
    assert redis.get(emitter.snapshot_key("1" * 16)) == b"another"
    assert 0 < redis.ttl(key) <= LIMITS.snapshot_ttl_s


def test_a_state_that_is_not_ours_is_refused(redis: Redis, emitter: Emitter, prefix: str) -> None:
    redis.hset(f"{prefix}partition:4", "state", "[1, 2")
    with pytest.raises(ContractError, match="state of partition 4 in redis is not a JSON object"):
        emitter.claim(4)


def test_what_was_committed_outlives_a_killed_redis() -> None:
    with EmbeddedRedis() as server:
        client = connect_redis(server.url)
        emitter = Emitter(client, "ww:", LIMITS)
        epoch = emitter.claim(0).epoch
        emitter.commit(0, epoch, {"media": 1}, {"n": 1}, [an_event()])
        server.kill()
        with pytest.raises(UnavailableError, match=r"redis at 127\.0\.0\.1:\d+"):
            emitter.commit(0, epoch, {"media": 2}, {"n": 2}, [an_event(a_transition(state=EventState.CLOSED))])
        server.start()
        emitter.commit(0, epoch, {"media": 2}, {"n": 2}, [an_event(a_transition(state=EventState.CLOSED))])
        assert [state for _, state in ids_and_states(client, "ww:")] == ["open", "closed"]
        assert emitter.claim(0).offsets == {"media": 2}
        client.close()


@settings(max_examples=25, deadline=None)
@given(timelines(), st.integers(1, 4), st.lists(st.integers(0, 12), max_size=4))
def test_a_worker_killed_anywhere_tells_each_state_once(
    redis_url: str, timeline: list[WindowScores], commit_every: int, lives: list[int]
) -> None:
    """Offsets are places in the timeline; each successor reads two windows again that were tracked already."""
    prefix = f"kill-{uuid.uuid4().hex}:"
    client = connect_redis(redis_url)
    for life in (*lives, len(timeline)):
        emitter = Emitter(client, prefix, LIMITS)
        claim = emitter.claim(0)
        done = claim.offsets.get("media", 0)
        state = from_document(cast("dict[str, Any]", claim.state), "yard-1") if claim.state else StreamState()
        pending: list[Event] = []
        for place in range(max(0, done - 2), min(len(timeline), done + life)):
            state, changes, _ = advance(state, timeline[place], PROMPTS, OPTIONS)
            pending += [an_event(change) for change in changes]
            if place >= done and ((place + 1) % commit_every == 0 or place + 1 == len(timeline)):
                emitter.commit(0, claim.epoch, {"media": place + 1}, to_document(state), pending)
                pending = []
    _, told = track_all(StreamState(), timeline, OPTIONS)
    assert ids_and_states(client, prefix) == [(change.id, change.state.value) for change in told]
    client.close()


class Cut:
    """A wire to Redis that can swallow the answers."""

    def __init__(self, redis: Redis) -> None:
        place = redis.connection_pool.connection_kwargs
        self._target = (place["host"], place["port"])
        self._is_passing = threading.Event()
        self._is_passing.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()
        self.client = connect_redis(f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0", timeout_s=0.5)

    def __enter__(self) -> "Cut":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        for each in self._sockets:
            each.close()

    def swallow_answers(self) -> None:
        self._is_passing.clear()

    def pass_answers(self) -> None:
        self._is_passing.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            threading.Thread(target=self._carry, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, True), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(65_536):
                if not is_answer or self._is_passing.is_set():
                    sink.sendall(data)
        except OSError:
            return
