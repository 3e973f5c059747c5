import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from streamer.prompt_store import PromptStore
from tests.api_site import JSON_HEADERS, Served, serving


@pytest.fixture(scope="module")
def served(redis_url: str) -> Iterator[Served]:
    with serving(redis_url) as site:
        yield site


def add(served: Served, text: str, **more: Any) -> dict[str, Any]:
    answer = served.client.post("/v1/prompts", json={"text": text, **more})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/prompts/{document['id']}"
    assert answer.headers["etag"] == f'"{document["version"]}"'
    return document


def test_a_prompt_is_created_read_changed_and_removed(served: Served) -> None:
    made = add(served, "a red kite", severity="critical")
    path = f"/v1/prompts/{made['id']}"
    assert served.client.get(path).json() == made
    changed = served.client.patch(path, json={"threshold": 0.7}, headers={"if-match": '"1"'})
    assert changed.status_code == 200
    assert changed.json() == made | {"threshold": 0.7, "version": 2}
    assert served.client.delete(path, headers={"if-match": '"2"'}).status_code == 204
    assert served.problem("GET", path, 404)["instance"] == path


def test_null_puts_a_key_back_to_its_default(served: Served) -> None:
    made = add(served, "an open gate", schedule="Mo-Fr 08:00-18:00", threshold=0.9)
    path = f"/v1/prompts/{made['id']}"
    answer = served.client.patch(
        path,
        content=json.dumps({"schedule": None, "threshold": None}),
        headers={"if-match": "*", "content-type": "application/merge-patch+json"},
    )
    assert (answer.json()["schedule"], answer.json()["threshold"]) == (None, 0.5)


def test_a_change_without_a_version_is_told_to_name_one(served: Served) -> None:
    made = add(served, "a lost child")
    path = f"/v1/prompts/{made['id']}"
    problem = served.problem("PATCH", path, 428, json={"threshold": 0.6})
    assert "If-Match" in problem["detail"]
    served.problem("DELETE", path, 428)


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_of_an_old_version_is_refused_and_changes_nothing(served: Served, method: str) -> None:
    made = add(served, f"a parked van {method}")
    path = f"/v1/prompts/{made['id']}"
    served.client.patch(path, json={"threshold": 0.6}, headers={"if-match": '"1"'}).raise_for_status()
    how: dict[str, Any] = {"headers": {"if-match": '"1"'}} | ({"json": {"threshold": 0.9}} if method == "PATCH" else {})
    problem = served.problem(method, path, 412, **how)
    assert "version 2, not 1" in problem["detail"]
    assert served.client.get(path).json()["threshold"] == 0.6


def test_an_if_match_that_is_no_version_is_explained(served: Served) -> None:
    made = add(served, "a ladder on the fence")
    problem = served.problem("DELETE", f"/v1/prompts/{made['id']}", 400, headers={"if-match": "yesterday"})
    assert problem["errors"][0]["where"] == "header/If-Match"


def test_an_id_in_use_is_a_conflict(served: Served) -> None:
    made = add(served, "a broken window")
    problem = served.problem("POST", "/v1/prompts", 409, json={"text": "other", "id": made["id"]})
    assert "exists already" in problem["detail"]


def test_every_refused_key_is_named_with_what_is_allowed(served: Served) -> None:
    bad = {"text": "fire", "threshold": 7, "regiom": [], "region": [[0, 0], [1, 1], [2, 0]], "labels": {"UP": "x"}}
    problem = served.problem("POST", "/v1/prompts", 422, json=bad)
    where = {part["where"]: part["detail"] for part in problem["errors"]}
    assert where["body/threshold"].endswith("a number from 0 to 1")
    assert "body/region/2/0" in where
    assert "did you mean 'region'" in where["body"]


def test_enabling_and_disabling_needs_no_version(served: Served) -> None:
    made = add(served, "a cyclist")
    path = f"/v1/prompts/{made['id']}"
    off = served.client.post(f"{path}/disable").json()
    assert (off["enabled"], off["version"]) == (False, 2)
    assert served.client.post(f"{path}/disable").json()["version"] == 2  # nothing changed
    assert served.client.post(f"{path}/enable").json()["enabled"] is True
    served.problem("POST", f"{path}/enable", 412, headers={"if-match": '"1"'})


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_is_exported_can_be_imported(redis_url: str, form: str) -> None:
    with serving(redis_url) as one, serving(redis_url) as other:
        for text in ("fire", "glass breaking"):
            add(one, text, labels={"team": "night"}, min_duration="5s")
        file = one.client.get(f"/v1/prompts.{form}")
        done = other.client.post(
            "/v1/prompts/import", content=file.content, headers={"content-type": file.headers["content-type"]}
        )
        assert done.json() == {"added": ["fire", "glass-breaking"], "updated": [], "unchanged": []}
        assert other.client.get("/v1/prompts").json() == one.client.get("/v1/prompts").json()


def test_one_refused_document_of_a_file_leaves_everything_as_it_was(served: Served) -> None:
    before = served.client.get("/v1/prompts?limit=1000").json()
    documents = [{"text": "good"}, {"text": "bad", "threshold": 3}, "fine"]
    problem = served.problem("POST", "/v1/prompts/import", 422, json=documents)
    assert "document 2" in problem["detail"]
    assert served.client.get("/v1/prompts?limit=1000").json() == before


def test_yaml_is_read_where_it_is_announced(served: Served) -> None:
    body = yaml.safe_dump([{"id": "from-yaml", "text": "smoke"}])
    answer = served.client.post("/v1/prompts/import", content=body, headers={"content-type": "application/yaml"})
    assert answer.json()["added"] == ["from-yaml"]


def test_pages_hold_every_prompt_once_and_see_what_was_just_changed(redis_url: str) -> None:
    with serving(redis_url) as served:
        store = PromptStore(served.redis, served.prefix)
        store.import_many([{"id": f"p-{n:03}", "text": f"thing {n}"} for n in range(25)])
        seen: list[str] = []
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            cursor = {"cursor": page["next"]} if page["next"] else {}
            page = served.client.get("/v1/prompts", params={"limit": 10, **cursor}).json()
            assert page["total"] == 25
            seen += [prompt["id"] for prompt in page["items"]]
        assert seen == [f"p-{n:03}" for n in range(25)]
        store.update("p-003", {"enabled": False})
        store.remove("p-004")
        store.add({"id": "p-0035", "text": "between"})
        ids = [p["id"] for p in served.client.get("/v1/prompts?limit=6").json()["items"]]
        assert ids == ["p-000", "p-001", "p-002", "p-003", "p-0035", "p-005"]
        off = served.client.get("/v1/prompts?enabled=false").json()["items"]
        assert [p["id"] for p in off] == ["p-003"]
        assert served.client.get("/v1/prompts?q=BETWEEN").json()["total"] == 1


def test_ten_thousand_prompts_are_listed_and_edited_without_delay(redis_url: str) -> None:
    with serving(redis_url, api__max_import_bytes=1 << 24) as served:
        documents = [{"id": f"p-{n:05}", "text": f"thing {n}"} for n in range(10_000)]
        served.client.post("/v1/prompts/import", json=documents, timeout=60).raise_for_status()
        served.client.get("/v1/prompts").raise_for_status()  # the first look reads everything
        pick = random.Random(8)
        times_s = []
        for _ in range(30):
            began_s = time.monotonic()
            name = f"p-{pick.randrange(10_000):05}"
            served.client.patch(
                f"/v1/prompts/{name}", json={"threshold": pick.random()}, headers={"if-match": "*"}
            ).raise_for_status()
            page = served.client.get("/v1/prompts", params={"limit": 100, "cursor": name}).json()
            assert page["total"] == 10_000
            times_s.append(time.monotonic() - began_s)
        assert sorted(times_s)[len(times_s) // 2] < 0.25, times_s  # an edit and a page together


HOSTILE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'"fire"',
    b"1e999",
    b"\xff\xfe",
    b'{"text": "\xed\xa0\x80"}',
    b'{"text": "a\\ud800"}',
    b'{"text": NaN}',
    b'{"text": "x", "threshold": 1e400}',
    b'{"text": "x", "streams": "a=\\ud800"}',
    b'{"text": "x", "labels": {"a": "\\ud800"}}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"text": ["x"]}',
    b'{"text": "' + b"x" * 5000 + b'"}',
)


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_body_is_refused_with_a_reason(served: Served, body: bytes) -> None:
    answer = served.client.post("/v1/prompts", content=body, headers=JSON_HEADERS)
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.json()["detail"]) > 20


def test_a_body_that_is_too_large_is_refused_however_it_is_sent(served: Served) -> None:
    body = b'{"text": "' + b"x" * 300_000 + b'"}'
    served.problem("POST", "/v1/prompts", 413, content=body, headers=JSON_HEADERS)
    served.problem("POST", "/v1/prompts", 413, content=iter([body]), headers=JSON_HEADERS)


def test_a_wrong_content_type_method_or_path_is_explained(served: Served) -> None:
    assert "application/json" in served.problem("POST", "/v1/prompts", 415, content=b"text: fire")["detail"]
    answer = served.client.put("/v1/prompts", json={})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    assert "/v1/openapi.json" in served.problem("GET", "/v2", 404)["detail"]
    assert "query/limt" in served.problem("GET", "/v1/prompts?limt=3", 422)["errors"][0]["where"]
