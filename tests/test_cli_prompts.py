import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from streamer.cli.prompts import app
from streamer.errors import PromptError, UnavailableError, UsageError
from tests.redis_server import RedisServer

Watchword = Callable[..., Result]


@pytest.fixture
def watchword(redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Watchword:
    monkeypatch.setenv("WATCHWORD_REDIS__URL", redis_url)
    monkeypatch.setenv("WATCHWORD_REDIS__PREFIX", prefix)

    def run(*arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return run


def ok(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def shown(watchword: Watchword, prompt_id: str) -> Any:
    return json.loads(ok(watchword("show", prompt_id, "--json")))


def test_add_says_the_id_and_list_shows_it(watchword: Watchword) -> None:
    assert ok(watchword("add", "glass breaking", "--modality", "audio")) == "added glass-breaking (version 1)\n"
    assert ok(watchword("list")).split("\t")[:3] == ["glass-breaking", "glass breaking", "audio"]


def test_every_key_has_an_option(watchword: Watchword) -> None:
    arguments = [
        *("--id", "fire-yard", "--phrasing", "open flames", "--phrasing", "a blaze", "--contrast", "sunset"),
        *("--modality", "video", "--streams", "yard-*", "--region", "0.1,0.4 0.9,0.4 0.9,1", "--threshold", "0.7"),
        *("--schedule", "Mo-Su 20:00-06:00 Europe/Berlin", "--min-duration", "500ms", "--cooldown", "1m"),
        *("--severity", "critical", "--label", "team=night", "--label", "floor=2", "--disable", "--json"),
    ]
    document = json.loads(ok(watchword("add", "fire", *arguments)))
    assert document == {
        "id": "fire-yard",
        "text": "fire",
        "phrasings": ["open flames", "a blaze"],
        "contrast": ["sunset"],
        "modality": "video",
        "streams": "yard-*",
        "region": [[0.1, 0.4], [0.9, 0.4], [0.9, 1.0]],
        "schedule": "Mo-Su 20:00-06:00 Europe/Berlin",
        "threshold": 0.7,
        "min_duration": "500ms",
        "cooldown": "1m",
        "severity": "critical",
        "labels": {"team": "night", "floor": "2"},
        "enabled": False,
        "version": 1,
    }
    assert shown(watchword, "fire-yard") == document


def test_list_as_json_is_one_document_a_line(watchword: Watchword) -> None:
    ok(watchword("add", "fire"))
    ok(watchword("add", "Überfall"))
    lines = ok(watchword("list", "--json")).splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["fire", "Überfall"]


def test_a_terminal_gets_a_table_with_texts_as_they_are(watchword: Watchword, monkeypatch: pytest.MonkeyPatch) -> None:
    ok(watchword("add", "a [red] car", "--schedule", "Sa,Su"))
    ok(watchword("add", "fire", "--disable"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    table = ok(watchword("list"))
    assert "severity" in table.splitlines()[0]
    assert "a [red] car" in table
    assert "Sa,Su" in table
    assert "disabled" in table


def test_an_empty_list_says_what_to_do_on_stderr(watchword: Watchword) -> None:
    result = watchword("list")
    assert ok(result) == ""
    assert "watchword prompts add" in result.stderr


def test_an_update_keeps_the_rest_and_an_empty_value_clears(watchword: Watchword) -> None:
    ok(
        watchword(
            "add", "fire", "--schedule", "Sa,Su", "--label", "a=b", "--phrasing", "flames", "--region", "0,0 1,0 1,1"
        )
    )
    arguments = ("--threshold", "0.9", "--schedule", "", "--label", "", "--phrasing", "", "--region", "", "--disable")
    assert ok(watchword("update", "fire", *arguments)) == "updated fire (version 2)\n"
    document = shown(watchword, "fire")
    assert (document["threshold"], document["enabled"], document["text"]) == (0.9, False, "fire")
    assert not {"schedule", "labels", "phrasings", "region"} & set(document)


def test_an_update_of_an_old_version_is_refused(watchword: Watchword) -> None:
    ok(watchword("add", "fire"))
    ok(watchword("update", "fire", "--threshold", "0.9", "--expected-version", "1"))
    result = watchword("update", "fire", "--threshold", "0.8", "--expected-version", "1")
    assert isinstance(result.exception, PromptError)


def test_show_is_a_yaml_document_that_import_reads(watchword: Watchword) -> None:
    ok(watchword("add", "fire", "--region", "0,0 1,0 1,1", "--label", "a=b"))
    text = ok(watchword("show", "fire"))
    assert text.startswith("id: fire\ntext: fire\n")
    assert "0 added, 0 updated, 1 unchanged" in ok(watchword("import", "-", stdin=text))


def test_removed_prompts_are_gone(watchword: Watchword) -> None:
    for text in ("fire", "smoke", "fight"):
        ok(watchword("add", text))
    assert ok(watchword("remove", "fire", "smoke")) == "removed fire, smoke\n"
    assert json.loads(ok(watchword("remove", "fight", "--json"))) == {"removed": ["fight"]}
    assert ok(watchword("list", "--json")) == ""


FILES = {
    "list.yaml": "- fire\n- {text: smoke, min_duration: 3s}\n",
    "mapping.yaml": "fire: fire\nsmoke:\n  text: smoke\n  min_duration: 3s\n",
    "under.yaml": "prompts:\n  - text: fire\n  - {id: smoke, text: smoke, min_duration: 3}\n",
    "list.json": '["fire", {"text": "smoke", "min_duration": "3s"}]',
    "lines.jsonl": '{"text": "fire"}\n\n{"text": "smoke", "min_duration": "3s"}\n',
    "bom.yaml": "\ufeff- fire\n- {text: smoke, min_duration: 3s}\n",
}


@pytest.mark.parametrize("name", FILES)
def test_each_form_of_a_file_is_imported(watchword: Watchword, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(FILES[name], encoding="utf-8")
    assert json.loads(ok(watchword("import", str(file), "--json"))) == {
        "added": ["fire", "smoke"],
        "updated": [],
        "unchanged": [],
    }
    assert shown(watchword, "smoke")["min_duration"] == "3s"


@pytest.mark.parametrize("form", ["list", "yaml", "json", "file.yaml", "file.json"])
def test_what_is_written_is_read_again_without_loss(watchword: Watchword, tmp_path: Path, form: str) -> None:
    ok(
        watchword(
            "add", "fire", "--region", "0.1,0.3 1,0 1,1", "--schedule", "Sa,Su", "--label", "a=1", "--phrasing", "火"
        )
    )
    ok(watchword("add", "yes", "--id", "no", "--disable"))
    before = ok(watchword("list", "--json"))
    if form == "list":
        text = before
    elif form in ("yaml", "json"):
        text = ok(watchword("export", *(["--json"] if form == "json" else [])))
    else:
        assert ok(watchword("export", str(tmp_path / form))) == ""
        text = (tmp_path / form).read_text(encoding="utf-8")
    ok(watchword("remove", "fire", "no"))
    ok(watchword("import", "-", stdin=text))
    after = [json.loads(line) for line in ok(watchword("list", "--json")).splitlines()]
    assert [d | {"version": 1} for d in after] == [json.loads(line) for line in before.splitlines()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no prompts"),
        ("[]", "holds no prompts"),
        ("7", "holds no prompts"),
        ("fire", "holds no prompts"),
        ("a: [1", "is neither YAML nor JSON"),
        ("a: {id: b, text: c}", "holds no document with that id"),
        ("threshold: 1", "holds no document with that id"),
        ("- !!python/object/apply:os.getcwd []", "is neither YAML nor JSON"),
        ("- {text: fire}\n- {text: smoke, treshold: 1}", "did you mean 'threshold'?"),
        ("[" * 100_000, "is neither YAML nor JSON"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ntext: *c", "holds no document"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_refused_whole(watchword: Watchword, text: str, says: str) -> None:
    result = watchword("import", "-", stdin=text)
    assert isinstance(result.exception, PromptError)
    assert says in str(result.exception)
    assert ok(watchword("list", "--json")) == ""


def test_a_file_that_cannot_be_read_is_named(watchword: Watchword, tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("- Überfall".encode("latin-1"))
    for file, says in (
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "cannot be read"),
        (tmp_path / "latin.yaml", "not UTF-8"),
    ):
        result = watchword("import", str(file))
        assert isinstance(result.exception, PromptError)
        assert str(file) in str(result.exception)
        assert says in str(result.exception)


def test_a_refused_prompt_is_a_failure_not_a_wrong_usage(watchword: Watchword) -> None:
    result = watchword("add", "fire", "--threshold", "2", "--severity", "fatal")
    assert isinstance(result.exception, PromptError)
    assert "threshold = 2.0" in str(result.exception)
    assert "severity = 'fatal'" in str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "fire", "--region", "left half"),
        ("add", "fire", "--label", "night"),
        ("update", "fire"),
    ],
)
def test_an_option_that_cannot_be_read_is_wrong_usage(watchword: Watchword, arguments: tuple[str, ...]) -> None:
    assert isinstance(watchword(*arguments).exception, UsageError)


@pytest.mark.parametrize(
    "arguments", [("add",), ("add", "fire", "--threshold", "high"), ("add", "fire", "--treshold", "1")]
)
def test_wrong_usage_exits_2(watchword: Watchword, arguments: tuple[str, ...]) -> None:
    assert watchword(*arguments).exit_code == 2


def test_no_redis_is_wrong_usage_with_advice(watchword: Watchword, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHWORD_REDIS__URL", "")
    result = watchword("list")
    assert isinstance(result.exception, UsageError)
    assert "--redis" in str(result.exception)


def test_a_redis_that_is_away_is_named_without_its_password(watchword: Watchword, tmp_path: Path) -> None:
    port = RedisServer(tmp_path).port
    result = watchword("list", "--redis", f"redis://:hunter2@127.0.0.1:{port}/0")
    assert isinstance(result.exception, UnavailableError)
    assert f"127.0.0.1:{port}" in str(result.exception)
    assert "hunter2" not in str(result.exception)


@pytest.mark.parametrize("command", ["add", "update", "import", "export", "list", "show", "remove"])
def test_help_gives_an_example(watchword: Watchword, command: str) -> None:
    assert f"watchword prompts {command}" in " ".join(ok(watchword(command, "--help")).split())


def test_marks_are_forgotten_with_what_followed(watchword: Watchword) -> None:
    ok(watchword("add", "fire"))
    marked = {"of": "0" * 16, "asks": "0" * 16, "right": 1, "wrong": 2, "seen": [1.0, -0.5]}
    ok(watchword("import", "-", stdin=json.dumps([{"id": "fire", "text": "fire", "marked": marked}])))
    assert shown(watchword, "fire")["marked"] == {**marked, "heard": None}
    ok(watchword("update", "fire", "--reset-marks"))
    assert "marked" not in shown(watchword, "fire")


def test_a_threshold_and_a_budget_take_each_others_place(watchword: Watchword) -> None:
    ok(watchword("add", "fire", "--alerts-per-day", "2"))
    assert shown(watchword, "fire")["alerts_per_day"] == 2
    assert "\t2 a day\t" in ok(watchword("list"))
    ok(watchword("update", "fire", "--threshold", "0.6"))
    assert "alerts_per_day" not in shown(watchword, "fire")
    ok(watchword("update", "fire", "--alerts-per-day", "1"))
    assert "threshold" not in shown(watchword, "fire")
