from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import SettingsError
from streamer.settings import default_settings_text, load_settings, masks_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.yaml"


def test_every_default_is_allowed() -> None:
    assert load_settings().model_dump(mode="json").keys() == yaml.safe_load(default_settings_text()).keys()


def test_flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("window: {span_s: 3}\ntrack: {exit_ratio: 0.7}\ndecode: {threads: 3}")
    monkeypatch.setenv("WATCHWORD_WINDOW__SPAN_S", "4")
    monkeypatch.setenv("WATCHWORD_DECODE__THREADS", "4")
    settings = load_settings(file, {"decode.threads": 5}, {"track.exit_ratio": 0.1, "log.level": "error"})
    assert settings.decode.threads == 5
    assert settings.window.span_s == 4
    assert settings.track.exit_ratio == 0.7
    assert settings.log.level == "error"
    assert settings.window.hop_s == 1


def test_the_file_may_be_named_by_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("batch: {max_frames: 3}")
    monkeypatch.setenv("WATCHWORD_CONFIG", str(file))
    assert load_settings().batch.max_frames == 3


def test_text_in_the_environment_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHWORD_REDIS__PREFIX", "{ww}:")
    monkeypatch.setenv("WATCHWORD_KAFKA__TOPICS", "[video, sound]")
    settings = load_settings()
    assert settings.redis.prefix == "{ww}:"
    assert settings.kafka.topics == ("video", "sound")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("windows: {span_s: 2}", "unknown setting 'windows'.*did you mean 'window'"),
        ("window: {span: 2}", "unknown setting 'window.span'.*did you mean 'window.span_s'"),
        ("hop_s: 2", "unknown setting 'hop_s'.*did you mean 'window.hop_s'"),
        ("window: 2", "'window'.*is a section"),
        ("window: {span_s: -1}", r"window\.span_s = -1.*greater than 0"),
        ("window: {span_s: soon}", r"window\.span_s = 'soon'.*number"),
        ("window: {span_s: 1, hop_s: 2}", "hop_s must not exceed window.span_s"),
        ("ingest: {chunk_max_bytes: 8388608}", "64 KiB under kafka.message_max_bytes"),
        ("encode: {picture: clip}", "needs encode.picture_model"),
        ("encode: {device: cuda, runtime: openvino}", "openvino runs on the CPU"),
        ("overload: {policy: drop}", r"overload\.policy = 'drop'.*'live' or 'lossless'"),
        ("kafka: {topics: []}", r"kafka\.topics.*at least 1"),
        ("streams: {yard: {masks: [[[0, 0], [1, 1]]]}}", r"streams\.yard\.masks\.0.*at least 3"),
        (
            "streams: {yard: {masks: [[[0, 0], [1, 1], [2, 0]]]}}",
            r"masks\.0\.2\.0 = 2.*less than or equal",
        ),
        ("streams: {yard: {colour: red}}", r"streams\.yard\.colour.*not permitted"),
        ("[1, 2]", "holds a list"),
        ("window: {span_s: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_key_value_and_what_is_allowed(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings(file)
    assert "\n" not in str(caught.value)


def test_an_unknown_variable_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHWORD_WINDOW__SPAM_S", "2")
    with pytest.raises(SettingsError, match=r"'window\.spam_s' \(environment\).*'window\.span_s'"):
        load_settings()


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings\.yaml cannot be read: No such file.*--config"):
        load_settings(file)


def test_an_empty_file_changes_nothing(file: Path) -> None:
    file.write_text("")
    assert load_settings(file) == load_settings()


def test_masks_and_labels_of_every_glob_that_fits_are_joined(file: Path) -> None:
    file.write_text(
        """
        streams:
          "yard-*": {labels: {site: north, lane: "0"}, masks: [[[0, 0], [1, 0], [1, 1]]]}
          yard-1: {labels: {lane: "1"}, masks: [[[0, 0], [0, 1], [1, 1]]]}
        """
    )
    settings = load_settings(file)
    assert settings.stream("yard-1").labels == {"site": "north", "lane": "1"}
    assert len(masks_of(settings, "yard-1")) == 2
    assert len(masks_of(settings, "yard-2")) == 1
    assert masks_of(settings, "gate") == ()


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=8)), max_size=3))
def test_whatever_a_section_holds_is_allowed_or_refused_in_words(document: dict[str, object]) -> None:
    flags = {f"window.{key.replace('.', '')}": value for key, value in document.items() if key.replace(".", "")}
    allowed = {"window.span_s", "window.hop_s", "window.join_wait_s", "window.idle_flush_s"}
    if flags.keys() <= allowed:
        return
    with pytest.raises(SettingsError, match="window"):
        load_settings(flags=flags)
