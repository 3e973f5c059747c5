import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis import Redis

from streamer.errors import PromptError, UnavailableError
from streamer.prompt_follower import PromptFollower
from streamer.prompt_store import LOG_LENGTH, Document, PromptStore
from streamer.redis_client import connect_redis
from tests.redis_server import RedisServer

LOG = "ww:prompts:log"
LIVE_WITHIN_S = 1.0  # what the project promises
PATIENCE_S = 15.0  # for what depends on a server's restart


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["bytes", "text"])
def redis(server: RedisServer, request: pytest.FixtureRequest) -> Iterator[Redis]:
    client = connect_redis(server.url, text=request.param == "text")
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(redis: Redis) -> PromptStore:
    return PromptStore(redis, "ww:")


def state(store: PromptStore) -> tuple[Any, ...]:
    return (
        store.redis.hgetall("ww:prompts"),
        store.redis.hgetall("ww:prompts:versions"),
        store.redis.xrange("ww:prompts:log"),
    )


def text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def damage(store: PromptStore, prompt_id: str, raw: str) -> None:
    store.redis.hset("ww:prompts", prompt_id, raw)


def poll(until: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not until():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


# --- one prompt at a time -----------------------------------------------------------------------------


def test_an_added_prompt_is_there_at_version_1(store: PromptStore) -> None:
    added = store.add({"text": "fire", "region": [[0, 0], [1, 0], [1, 1]], "labels": {}})
    assert (added.id, added.version) == ("fire", 1)
    assert store.get("fire") == added
    assert store.list() == [added]


def test_the_hash_holds_json_documents_with_their_version(store: PromptStore) -> None:
    store.add({"text": "Überfall 火", "threshold": 0.1 + 0.2})
    (raw,) = store.redis.hvals("ww:prompts")
    document = json.loads(raw)
    assert (document["text"], document["threshold"], document["version"]) == ("Überfall 火", 0.1 + 0.2, 1)


def test_a_change_is_one_entry_of_the_log(store: PromptStore) -> None:
    store.add("fire")
    store.update("fire", {"threshold": 0.7})
    store.remove("fire")
    entries = [{text(key): text(value) for key, value in (e or {}).items()} for _, e in store.redis.xrange(LOG) or ()]
    assert entries == [
        {"change": "add", "id": "fire", "version": "1", "serial": "1"},
        {"change": "update", "id": "fire", "version": "2", "serial": "2"},
        {"change": "remove", "id": "fire", "version": "3", "serial": "3"},
    ]


def test_an_id_in_use_is_refused_and_one_made_from_the_text_is_counted_on(store: PromptStore) -> None:
    store.add("fire")
    assert store.add("fire").id == "fire-2"
    before = state(store)
    with pytest.raises(PromptError, match="'fire' exists already; update it"):
        store.add({"id": "fire", "text": "flames"})
    assert state(store) == before


def test_a_refused_prompt_changes_nothing(store: PromptStore) -> None:
    store.add("fire")
    before = state(store)
    with pytest.raises(PromptError, match="threshold = 2"):
        store.add({"text": "smoke", "threshold": 2})
    with pytest.raises(PromptError, match="threshold = 2"):
        store.update("fire", {"threshold": 2})
    with pytest.raises(PromptError, match="did you mean 'threshold'"):
        store.update("fire", {"treshold": 0.2})
    assert state(store) == before


def test_an_update_changes_the_named_keys_and_null_restores_a_default(store: PromptStore) -> None:
    store.add({"text": "fire", "threshold": 0.7, "severity": "critical"})
    updated = store.update("fire", {"text": "flames", "threshold": None})
    assert (updated.id, updated.text, updated.threshold, updated.severity) == ("fire", "flames", 0.5, "critical")
    assert updated.version == 2
    assert store.get("fire") == updated


def test_an_update_that_changes_nothing_makes_no_version(store: PromptStore) -> None:
    store.add("fire")
    before = state(store)
    assert store.update("fire", {"min_duration": 2}).version == 1
    assert state(store) == before


def test_an_update_expecting_another_version_is_refused(store: PromptStore) -> None:
    store.add("fire")
    store.update("fire", {"threshold": 0.6}, expected_version=1)
    for stale in ({"expected_version": 1}, {}):
        changes = {"threshold": 0.7} if stale else {"threshold": 0.7, "version": 1}
        with pytest.raises(PromptError, match="at version 2, not 1"):
            store.update("fire", changes, **stale)
    assert store.get("fire").threshold == 0.6


def test_a_prompt_keeps_its_id(store: PromptStore) -> None:
    store.add("fire")
    with pytest.raises(PromptError, match="keeps its id"):
        store.update("fire", {"id": "flames"})


def test_a_version_is_never_used_again_after_a_removal(store: PromptStore) -> None:
    store.add("fire")
    store.update("fire", {"threshold": 0.6})
    store.remove("fire")
    assert store.list() == []
    assert store.add("fire").version == 4


@pytest.mark.parametrize("act", [lambda s: s.get("x"), lambda s: s.remove("x"), lambda s: s.update("x", {})])
def test_an_unknown_prompt_is_named(store: PromptStore, act: Callable[[PromptStore], object]) -> None:
    with pytest.raises(PromptError, match="there is no prompt 'x'"):
        act(store)


def test_several_are_removed_together_or_not_at_all(store: PromptStore) -> None:
    for text in ("fire", "smoke", "fight"):
        store.add(text)
    with pytest.raises(PromptError, match="'x'"):
        store.remove("fire", "x")
    assert len(store.list()) == 3
    store.remove("fire", "smoke", "fire")
    assert [prompt.id for prompt in store.list()] == ["fight"]


def test_removing_nothing_does_nothing(store: PromptStore) -> None:
    store.remove()
    assert store.serial() == 0


def test_concurrent_updates_of_one_prompt_are_all_kept(store: PromptStore) -> None:
    store.add("fire")

    def add_label(number: int) -> None:
        while True:
            old = store.get("fire")
            try:
                store.update("fire", {"labels": {**old.labels, f"l{number}": "x"}}, expected_version=old.version)
            except PromptError:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_label, range(16)))
    prompt = store.get("fire")
    assert (len(prompt.labels), prompt.version) == (16, 17)


def test_concurrent_adds_of_one_text_get_ids_of_their_own(store: PromptStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = {prompt.id for prompt in pool.map(store.add, ["fire"] * 12)}
    assert ids == {"fire", *(f"fire-{n}" for n in range(2, 13))}


def test_a_document_without_a_version_of_its_own_is_still_updated(store: PromptStore) -> None:
    damage(store, "fire", '{"id":"fire","text":"fire"}')
    assert store.get("fire").version == 0
    assert store.update("fire", {"threshold": 0.6}).version == 1


# --- many ---------------------------------------------------------------------------------------------


def test_an_import_adds_replaces_and_leaves(store: PromptStore) -> None:
    store.add({"text": "fire", "threshold": 0.7})
    store.add("smoke")
    done = store.import_many([{"id": "fire", "text": "fire", "severity": "critical"}, {"text": "smoke"}, "fight"])
    assert (done.added, done.updated, done.unchanged) == (("fight",), ("fire",), ("smoke",))
    fire = store.get("fire")
    assert (fire.threshold, fire.severity, fire.version) == (0.5, "critical", 2)


def test_a_second_import_of_a_file_changes_nothing(store: PromptStore) -> None:
    documents: list[Document | str] = [
        "fire!",
        "fire",
        {"text": "fire", "id": "fire-3"},
        {"text": "fire", "threshold": 0.1},
    ]
    assert set(store.import_many(documents).added) == {"fire", "fire-2", "fire-3", "fire-4"}
    before = state(store)
    assert len(store.import_many(documents).unchanged) == 4
    assert state(store) == before


def test_one_bad_document_stops_the_whole_import_and_every_bad_one_is_named(store: PromptStore) -> None:
    store.add("fire")
    before = state(store)
    with pytest.raises(PromptError) as caught:
        store.import_many(["smoke", {"text": ""}, {"text": "a", "id": "b"}, {"text": "c", "id": "b"}, 7])  # type: ignore[list-item]  # as files hold it
    message = str(caught.value)
    assert "3 of 5 refused" in message
    for part in ("document 2:", "document 4:", "same id", "document 5:"):
        assert part in message
    assert state(store) == before


def test_an_export_is_imported_into_another_place_without_loss(store: PromptStore) -> None:
    store.import_many(
        [
            {"text": "fire", "region": [[0, 0], [1, 0], [0.3, 1 / 3]], "schedule": "Mo 08:00-09:00 Europe/Berlin"},
            {"text": "glass", "labels": {"a": "b"}, "enabled": False, "cooldown": "90s"},
        ]
    )
    other = PromptStore(store.redis, "other:")
    other.import_many(json.loads(json.dumps(store.export())))
    assert other.list() == store.list()


def test_ten_thousand_prompts_are_imported_in_one_change(store: PromptStore) -> None:
    store.import_many([{"text": f"prompt number {number}"} for number in range(10_000)])
    assert len(store.load().prompts) == 10_000
    assert store.serial() == 10_000
    assert store.redis.xlen("ww:prompts:log") <= LOG_LENGTH + 200


def test_prefixes_are_apart(store: PromptStore) -> None:
    store.add("fire")
    assert PromptStore(store.redis, "{other}:").list() == []


# --- what others left in Redis ------------------------------------------------------------------------

DAMAGED = [
    "no json",
    "[]",
    "{}",
    '{"id":"other","text":"fire"}',
    '{"id":"bad","text":""}',
    "\udcff",
    '{"id":"bad"',
    "null",
    "[" * 100_000,
]


@pytest.mark.parametrize("raw", DAMAGED)
def test_a_damaged_document_hides_no_other_and_can_be_replaced(store: PromptStore, raw: str) -> None:
    store.add("fire")
    store.redis.hset("ww:prompts", "bad", raw.encode("utf-8", "surrogateescape"))
    assert [prompt.id for prompt in store.list()] == ["fire"]
    assert list(store.load().damaged) == ["bad"]
    with pytest.raises(PromptError, match="'bad'"):
        store.get("bad")
    store.import_many([{"id": "bad", "text": "mended"}])
    assert store.get("bad").text == "mended"


def test_a_damaged_document_can_be_removed(store: PromptStore) -> None:
    store.redis.hset("ww:prompts", "bad", b"\xff")
    store.remove("bad")
    assert store.ids() == set()


def test_a_key_of_another_kind_is_reported_with_the_server(store: PromptStore) -> None:
    store.redis.set("ww:prompts", "mine")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+ refuses a command: WRONGTYPE"):
        store.list()


# --- followers ----------------------------------------------------------------------------------------


@pytest.fixture
def follower(store: PromptStore) -> Iterator[PromptFollower]:
    with PromptFollower(store, block_s=0.2) as following:
        yield following


def followed(follower: PromptFollower) -> list[tuple[str, int]]:
    return [(prompt.id, prompt.version) for prompt in follower.snapshot()[1]]


def test_a_follower_begins_with_what_is_there(store: PromptStore) -> None:
    store.add("smoke")
    store.add("fire")
    with PromptFollower(store) as follower:
        assert follower.wait_for(1, LIVE_WITHIN_S)
        assert followed(follower) == [("fire", 1), ("smoke", 1)]
        assert follower.is_connected


def test_a_follower_of_nothing_reaches_generation_1(follower: PromptFollower) -> None:
    assert follower.wait_for(1, LIVE_WITHIN_S)
    assert follower.snapshot() == (1, ())


def test_each_change_is_live_within_a_second(store: PromptStore, follower: PromptFollower) -> None:
    assert follower.wait_for(1, LIVE_WITHIN_S)
    store.add("fire")
    assert follower.wait_for(2, LIVE_WITHIN_S)
    assert followed(follower) == [("fire", 1)]
    store.update("fire", {"threshold": 0.9})
    assert follower.wait_for(3, LIVE_WITHIN_S)
    assert follower.snapshot()[1][0].threshold == 0.9
    store.remove("fire")
    assert follower.wait_for(4, LIVE_WITHIN_S)
    assert follower.snapshot()[1] == ()


def test_ten_thousand_imported_prompts_are_followed(store: PromptStore, follower: PromptFollower) -> None:
    assert follower.wait_for(1, LIVE_WITHIN_S)
    store.import_many([{"text": f"prompt number {number}"} for number in range(10_000)])
    assert poll(lambda: len(follower.snapshot()[1]) == 10_000)


def test_every_follower_ends_with_what_the_store_holds(store: PromptStore) -> None:
    def change(worker: int) -> None:
        for step in range(15):
            prompt = store.add({"text": f"{worker} {step}"})
            store.update(prompt.id, {"threshold": 0.1})
            if step % 3 == 0:
                store.remove(prompt.id)

    with PromptFollower(store) as one, PromptFollower(store) as two, ThreadPoolExecutor(3) as pool:
        list(pool.map(change, range(3)))
        expected = tuple(store.list())
        assert len(expected) == 30
        assert poll(lambda: one.snapshot()[1] == expected and two.snapshot()[1] == expected, LIVE_WITHIN_S)


def test_a_damaged_document_is_told_once_and_the_rest_goes_on(store: PromptStore) -> None:
    damage(store, "bad", "no json")
    with structlog.testing.capture_logs() as lines, PromptFollower(store, block_s=0.05) as follower:
        assert follower.wait_for(1, LIVE_WITHIN_S)
        for number in range(3):
            store.add(f"prompt {number}")
            assert follower.wait_for(2 + number, LIVE_WITHIN_S)
        store.redis.xadd("ww:prompts:log", {"note": "not one of ours"})
        store.add("after")
        assert follower.wait_for(5, LIVE_WITHIN_S)
    assert len(follower.snapshot()[1]) == 4
    assert [line["prompt"] for line in lines if "damaged" in line["event"]] == ["bad"]


def test_a_log_trimmed_past_the_followers_place_is_read_anew(store: PromptStore) -> None:
    reading, go_on = threading.Event(), threading.Event()

    class SlowStore(PromptStore):
        def read_log(self, after: str, block_ms: int | None) -> Any:
            reading.set()
            go_on.wait(PATIENCE_S)
            return super().read_log(after, block_ms)

    store.add("before")
    with PromptFollower(SlowStore(store.redis, "ww:")) as follower:
        assert reading.wait(LIVE_WITHIN_S)
        for number in range(5):
            store.add(f"prompt {number}")
        store.redis.xtrim("ww:prompts:log", maxlen=1, approximate=False)
        go_on.set()
        assert poll(lambda: len(follower.snapshot()[1]) == 6, LIVE_WITHIN_S)


def test_a_deleted_log_is_noticed(store: PromptStore, follower: PromptFollower) -> None:
    store.add("fire")
    assert poll(lambda: followed(follower) == [("fire", 1)], LIVE_WITHIN_S)
    store.redis.flushall()
    assert poll(lambda: followed(follower) == [], LIVE_WITHIN_S)
    store.add("smoke")
    assert poll(lambda: followed(follower) == [("smoke", 1)], LIVE_WITHIN_S)


def test_a_follower_survives_the_loss_of_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        store = PromptStore(connect_redis(server.url), "ww:")
        store.add("fire")
        with structlog.testing.capture_logs() as lines, PromptFollower(store, block_s=0.2) as follower:
            assert follower.wait_for(1, LIVE_WITHIN_S)
            server.kill()
            assert poll(lambda: not follower.is_connected)
            assert followed(follower) == [("fire", 1)]
            with pytest.raises(UnavailableError, match=f"127.0.0.1:{server.port} cannot be reached"):
                store.add("smoke")
            server.start()  # with nothing in it
            assert poll(lambda: follower.is_connected and followed(follower) == [])
            store.add("smoke")
            assert poll(lambda: followed(follower) == [("smoke", 1)], LIVE_WITHIN_S)
        assert [line["log_level"] for line in lines] == ["warning", "info"]
        store.redis.close()


def test_a_follower_may_start_before_redis(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    store = PromptStore(connect_redis(server.url), "ww:")
    with PromptFollower(store) as follower:
        assert not follower.wait_for(1, 0.3)
        with server:
            assert follower.wait_for(1, PATIENCE_S)
    store.redis.close()


def test_a_follower_closes_within_its_blocking_time(store: PromptStore) -> None:
    follower = PromptFollower(store, block_s=0.2)
    follower.start()
    assert follower.wait_for(1, LIVE_WITHIN_S)
    begun_s = time.monotonic()
    follower.close()
    assert time.monotonic() - begun_s < LIVE_WITHIN_S
