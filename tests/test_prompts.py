import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import PromptError
from streamer.prompts import ALLOWED, SYSTEM_PROMPTS, Prompt, parse_prompt, slug

FIRE_YARD = """
id: fire-yard
text: fire
phrasings: [open flames]
contrast: [sunset, a street lamp]
modality: any
streams: "yard-*"
region: [[0.1, 0.4], [0.9, 0.4], [0.9, 1], [0.1, 1]]
schedule: "Mo-Su 20:00-06:00 Europe/Berlin"
threshold: 0.5
min_duration: 2s
cooldown: 30s
severity: critical
labels: {team: night}
enabled: true
"""


def refusal(document: Any) -> str:
    with pytest.raises(PromptError) as caught:
        parse_prompt(document)
    return str(caught.value)


def test_the_documented_example_is_read_in_full() -> None:
    prompt = parse_prompt(yaml.safe_load(FIRE_YARD))
    assert (prompt.id, prompt.text, prompt.phrasings, prompt.contrast) == (
        "fire-yard",
        "fire",
        ("open flames",),
        ("sunset", "a street lamp"),
    )
    assert prompt.region == ((0.1, 0.4), (0.9, 0.4), (0.9, 1.0), (0.1, 1.0))
    assert (prompt.min_duration_us, prompt.cooldown_us) == (2_000_000, 30_000_000)
    assert (prompt.severity, prompt.labels, prompt.system) == ("critical", {"team": "night"}, False)


def test_a_text_alone_gets_the_defaults() -> None:
    prompt = parse_prompt("  Glass breaking!  ")
    assert prompt == parse_prompt({"text": "Glass breaking!"})
    assert prompt.to_document() == {
        "id": "glass-breaking",
        "text": "Glass breaking!",
        "modality": "any",
        "streams": "*",
        "threshold": 0.5,
        "min_duration": "2s",
        "cooldown": "30s",
        "severity": "warning",
        "enabled": True,
    }


def test_a_key_that_is_null_has_its_default() -> None:
    assert parse_prompt({"text": "fire", "threshold": None, "region": None}) == parse_prompt("fire")


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "Fire Yard"),
        ("id", "-fire"),
        ("id", "a" * 64),
        ("id", "fire\n"),
        ("id", 7),
        ("id", "system-silent"),
        ("text", ""),
        ("text", "   "),
        ("text", "x" * 201),
        ("text", "two\nlines"),
        ("text", "nul\0"),
        ("text", "turned \u202e round"),
        ("text", 911),
        ("phrasings", "open flames"),
        ("phrasings", [""]),
        ("phrasings", ["a"] * 17),
        ("contrast", ["a", "b\x1b"]),
        ("contrast", {"a": 1}),
        ("modality", "sight"),
        ("streams", ""),
        ("streams", "yard-*,,dock-*"),
        ("streams", "Yard *"),
        ("streams", "site=north,yard-*"),
        ("streams", "site="),
        ("streams", ["yard-*"]),
        ("region", [[0, 0], [1, 1]]),
        ("region", [[0, 0], [1, 0], [1, 1.01]]),
        ("region", [[0, 0], [1, 0], [1, math.nan]]),
        ("region", [[0, 0], [1, 0], [1, True]]),
        ("region", [[0, 0], [1, 0, 0], [1, 1]]),
        ("region", [[0, 0], [1, 1], [1, 0], [0, 1]]),
        ("region", [[0, 0], [0.5, 0.5], [1, 1]]),
        ("region", [[0, 0], [1, 0], [0.5, 0], [0.5, 1]]),
        ("region", [[0, 0], [0, 0], [1, 0], [1, 1]]),
        ("region", [[0, 0], [1, 0], [0.5, 0.5], [1, 1], [0, 1], [0.5, 0.5]]),
        ("region", [[0.5 + 0.5 * math.cos(i / 65 * 6.28), 0.5 + 0.5 * math.sin(i / 65 * 6.28)] for i in range(65)]),
        ("region", "0,0 1,1"),
        ("schedule", "at night"),
        ("schedule", ""),
        ("schedule", 8),
        ("threshold", 1.5),
        ("threshold", -0.1),
        ("threshold", "0.5"),
        ("threshold", math.nan),
        ("threshold", True),
        ("min_duration", "2 fortnights"),
        ("min_duration", -1),
        ("min_duration", "25h"),
        ("min_duration", "0.1ms"),
        ("min_duration", True),
        ("min_duration", math.inf),
        ("min_duration", 1e300),
        ("cooldown", ""),
        ("cooldown", [1]),
        ("severity", "fatal"),
        ("labels", ["night"]),
        ("labels", {"Team": "night"}),
        ("labels", {"team": True}),
        ("labels", {"team": "x" * 65}),
        ("labels", {f"l{i}": "x" for i in range(17)}),
        ("enabled", "yes"),
        ("enabled", 1),
        ("version", -1),
        ("version", "1"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_and_what_is_allowed(key: str, value: Any) -> None:
    message = refusal({"text": "fire", key: value})
    assert f"{key}" in message
    assert ALLOWED[key] in message


def test_a_document_without_text_says_so() -> None:
    assert "text is missing" in refusal({"id": "fire"})


@pytest.mark.parametrize("document", [None, 3, ["fire"], b"fire"])
def test_what_is_no_document_is_refused(document: Any) -> None:
    assert "is not a document" in refusal(document)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("treshold", "threshold"), ("min-duration", "min_duration"), ("phrases", "phrasings"), ("stream", "streams")],
)
def test_an_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    assert f"unknown key {key!r}; did you mean {nearest!r}?" in refusal({"text": "fire", key: 1})


def test_an_unknown_key_like_no_other_lists_all() -> None:
    assert "known are id, text" in refusal({"text": "fire", "zzz": 1, 5: 2})


def test_users_cannot_make_a_prompt_a_system_prompt() -> None:
    assert "unknown key 'system'" in refusal({"text": "fire", "system": True})


def test_a_budget_of_alerts_stands_in_place_of_a_threshold() -> None:
    prompt = parse_prompt({"text": "fire", "alerts_per_day": 1})
    assert (prompt.alerts_per_day, prompt.threshold) == (1.0, 0.5)
    assert "threshold" not in prompt.to_document()
    assert parse_prompt(prompt.to_document()) == prompt


def test_a_threshold_and_a_budget_cannot_both_decide() -> None:
    assert "give one" in refusal({"text": "fire", "alerts_per_day": 1, "threshold": 0.5})


@pytest.mark.parametrize("budget", [0, 0.01, 501, "1", float("nan"), True])
def test_a_budget_that_cannot_be_kept_is_refused(budget: object) -> None:
    assert "alerts_per_day" in refusal({"text": "fire", "alerts_per_day": budget})


def test_what_a_prompt_asks_is_told_apart_from_how_it_alerts() -> None:
    plain = parse_prompt({"text": "fire"})
    alike = parse_prompt({"text": "fire", "threshold": 0.9, "streams": "yard-*", "labels": {"a": "b"}})
    other = parse_prompt({"text": "fire", "contrast": ["sunset"]})
    assert plain.asks == alike.asks != other.asks
    assert plain.answers == alike.answers != other.answers
    marked = {"of": "0" * 16, "asks": plain.asks, "right": 1, "seen": [1.0, -0.5]}
    assert parse_prompt({"text": "fire", "marked": marked}).answers != plain.answers
    assert parse_prompt({"text": "fire", "marked": marked}).asks == plain.asks


@pytest.mark.parametrize("curve", [[0.0, 1.0], [-1.0, 0.0], [1.0], [1.0, float("inf")]])
def test_a_curve_that_does_not_rise_is_refused(curve: list[float]) -> None:
    marked = {"of": "0" * 16, "asks": "0" * 16, "seen": curve}
    assert "marked" in refusal({"text": "fire", "marked": marked})


def test_all_problems_are_listed_at_once() -> None:
    message = refusal({"text": "", "treshold": 1, "threshold": 2, "modality": "sight", "region": []})
    for part in ("text = ''", "'treshold'", "threshold = 2", "modality = 'sight'", "region = []"):
        assert part in message


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refusal({"text": "x" * 100_000})) < 400


# --- parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "kept", "us"),
    [
        ("500ms", "500ms", 500_000),
        ("2s", "2s", 2_000_000),
        (" 1.5 s ", "1500ms", 1_500_000),
        ("60s", "1m", 60_000_000),
        ("90s", "90s", 90_000_000),
        ("1m", "1m", 60_000_000),
        ("24h", "24h", 86_400_000_000),
        (2, "2s", 2_000_000),
        (0.1, "100ms", 100_000),
        ("3", "3s", 3_000_000),
        (0, "0s", 0),
    ],
)
def test_durations_are_read(written: Any, kept: str, us: int) -> None:
    prompt = parse_prompt({"text": "fire", "min_duration": written, "cooldown": written})
    assert (prompt.min_duration, prompt.min_duration_us, prompt.cooldown_us) == (kept, us, us)


@pytest.mark.parametrize(
    ("streams", "stream", "labels", "applies"),
    [
        ("*", "any", {}, True),
        ("yard-*", "yard-1", {}, True),
        ("yard-*", "backyard-1", {}, False),
        ("yard-*", "yard", {}, False),
        ("yard.1", "yardx1", {}, False),
        ("yard-*, dock-?", "dock-3", {}, True),
        ("yard-*,dock-?", "dock-31", {}, False),
        ("cam-[12]", "cam-2", {}, True),
        ("cam-[!12]", "cam-2", {}, False),
        ("site=north", "x", {"site": "north"}, True),
        ("site=north", "x", {"site": "northeast"}, False),
        ("site=north", "site=north", {}, False),
        ("site=north,floor=*", "x", {"site": "north", "floor": "2"}, True),
        ("site=north,floor=*", "x", {"site": "north"}, False),
        ("site=North", "x", {"site": "north"}, False),
    ],
)
def test_streams_are_chosen_by_glob_or_by_all_labels(
    streams: str, stream: str, labels: dict[str, str], applies: bool
) -> None:
    assert parse_prompt({"text": "fire", "streams": streams}).applies_to(stream, labels) is applies


def test_a_prompt_without_a_schedule_is_always_open() -> None:
    assert parse_prompt("fire").is_open(0)


def test_a_schedule_decides_when_it_is_open() -> None:
    prompt = parse_prompt({"text": "fire", "schedule": "Th  00:00-01:00"})  # 1 January 1970 was a Thursday
    assert prompt.schedule == "Th 00:00-01:00"
    assert prompt.is_open(0)
    assert not prompt.is_open(3_600_000_000)


def test_a_polygon_that_repeats_its_first_corner_is_closed() -> None:
    corners = [[0, 0], [1, 0], [1, 1]]
    assert parse_prompt({"text": "a", "region": [*corners, corners[0]]}).region == ((0, 0), (1, 0), (1, 1))


def test_a_concave_region_is_allowed() -> None:
    assert parse_prompt({"text": "a", "region": [[0, 0], [1, 0], [1, 1], [0.5, 0.2], [0, 1]]}).region is not None


@given(
    st.lists(st.floats(0, 2 * math.pi), min_size=3, max_size=64, unique=True),
    st.randoms(use_true_random=False),
)
def test_corners_in_turn_on_a_circle_are_simple_and_a_swap_of_two_far_ones_is_not(
    angles: list[float], random: Any
) -> None:
    step = 2 * math.pi / len(angles)
    angles = [i * step + (angle % step) * 0.5 for i, angle in enumerate(angles)]
    corners = [[0.5 + 0.5 * math.cos(angle) * 0.99, 0.5 + 0.5 * math.sin(angle) * 0.99] for angle in angles]
    assert parse_prompt({"text": "a", "region": corners}).region is not None
    if len(corners) >= 4:
        i = random.randrange(len(corners) - 1)
        corners[i], corners[i + 1] = corners[i + 1], corners[i]
        assert "meet" in refusal({"text": "a", "region": corners})


# --- ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A person lying on the floor", "a-person-lying-on-the-floor"),
        ("Überfall!", "uberfall"),
        ("911", "prompt-911"),
        ("system silent", "prompt-system-silent"),
        ("x" * 200, "x" * 63),
    ],
)
def test_an_id_is_made_from_the_text(text: str, expected: str) -> None:
    assert parse_prompt(text).id == expected


def test_texts_without_latin_letters_get_ids_of_their_own() -> None:
    fire, water = parse_prompt("火"), parse_prompt("水")
    assert fire.id != water.id
    assert fire.id == parse_prompt("火").id


def test_ids_in_use_are_counted_past() -> None:
    assert parse_prompt("fire", {"fire"}).id == "fire-2"
    assert parse_prompt("fire", {"fire", "fire-2"}).id == "fire-3"
    assert parse_prompt("x" * 200, {"x" * 63}).id == "x" * 61 + "-2"


@given(st.text(min_size=1, max_size=200), st.integers(0, 3))
def test_every_text_makes_an_id_that_is_allowed_and_free(text: str, rivals: int) -> None:
    taken: set[str] = set()
    for _ in range(rivals + 1):
        made = slug(text, taken)
        assert made not in taken
        assert parse_prompt({"text": "a", "id": made}).id == made
        taken.add(made)


# --- round trip ---------------------------------------------------------------------------------------

lines = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=200).filter(
    str.strip
)
documents = st.fixed_dictionaries(
    {"text": lines},
    optional={
        "phrasings": st.lists(lines, max_size=16),
        "contrast": st.lists(lines, max_size=16),
        "modality": st.sampled_from(["video", "audio", "any", "both"]),
        "streams": st.sampled_from(["*", "yard-*", "a,b", "site=north,floor=2"]),
        "region": st.sampled_from([None, [[0, 0], [1, 0], [0.3, 1 / 3]]]),
        "schedule": st.sampled_from([None, "Mo-Fr 08:00-17:00 Europe/Berlin"]),
        "threshold": st.floats(0, 1),
        "min_duration": st.integers(0, 86_400_000).map(lambda ms: f"{ms}ms"),
        "cooldown": st.integers(0, 86_400),
        "severity": st.sampled_from(["info", "warning", "critical"]),
        "labels": st.dictionaries(
            st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True), lines.map(lambda t: t[:64]), max_size=16
        ),
        "enabled": st.booleans(),
        "version": st.integers(0, 2**53),
    },
)


@given(documents)
def test_a_document_gives_the_same_prompt_back_through_json_and_yaml(document: dict[str, Any]) -> None:
    prompt = parse_prompt(document)
    assert parse_prompt(prompt.to_document()) == prompt
    assert parse_prompt(json.loads(json.dumps(prompt.to_document()))) == prompt
    assert parse_prompt(yaml.safe_load(yaml.safe_dump(prompt.to_document(), allow_unicode=True))) == prompt


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*Prompt.model_fields, "alerts_per_day", "x"]), json_values))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        prompt = parse_prompt(document)
    except PromptError:
        return
    assert parse_prompt(prompt.to_document()) == prompt


def test_a_prompt_cannot_be_changed_and_can_be_a_key() -> None:
    prompt = parse_prompt({"text": "fire", "labels": {"a": "b"}})
    with pytest.raises(ValueError, match="frozen"):
        prompt.threshold = 0.1
    assert {prompt: 1}[parse_prompt({"text": "fire", "labels": {"a": "b"}})] == 1


def test_cached_parts_do_not_make_equal_prompts_differ() -> None:
    used, fresh = parse_prompt("fire"), parse_prompt("fire")
    assert used.min_duration_us == 2_000_000
    assert used == fresh


def test_system_prompts_watch_every_stream_and_users_cannot_take_their_ids() -> None:
    assert set(SYSTEM_PROMPTS) == {"system-silent", "system-dark", "system-frozen"}
    for prompt_id, prompt in SYSTEM_PROMPTS.items():
        assert prompt.id == prompt_id
        assert prompt.system
        assert prompt.applies_to("anything", {})
        assert "refused" in refusal(prompt.to_document())
