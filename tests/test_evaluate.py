"""Labelled files to tables and a report: with encoders that see colours, and once with the shipped ones."""

import csv
import html.parser
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.evaluate import EvaluationError, read_manifest
from models.evaluate.manifest import Item
from models.evaluate.media import read_frames, read_sound, spectrogram
from streamer.cli.evaluate import evaluate as command
from streamer.errors import PromptError
from streamer.evaluate.questions import ask, read_also
from streamer.evaluate.run import Task, evaluate
from streamer.settings import load_settings
from streamer.stages import Stages, open_stages
from tests.colours import colour_encoders, make_film

DATA = Path(__file__).parent / "data"
COLUMNS = ("path", "prompt", "score")


def write_rows(path: Path, header: Sequence[str], *rows: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def a_manifest(folder: Path, *rows: Sequence[str]) -> Path:
    return write_rows(folder / "manifest.csv", ("path", "kind", "labels", "split"), *rows)


def table(path: Path) -> dict[tuple[str, str], float]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        rows = list(reader)
    found = {(row["path"], row["prompt"]): float(row["score"]) for row in rows}
    assert len(found) == len(rows), "a file has a prompt twice"
    assert all(0 <= score <= 1 for score in found.values())
    return found


def coloured() -> Stages:
    return open_stages(load_settings(flags={"encode.device": "cpu"}), colour_encoders())


def report_of(written: dict[str, Path]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(written["report"].read_text(encoding="utf-8"))
    return document


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A red and a blue film, the red one with a tone, and a photo of each colour."""
    folder = tmp_path / "media"
    folder.mkdir()
    make_film(folder / "red.mp4", [("red", 1.0)], tones=[(0.0, 1.0)])
    make_film(folder / "blue.mp4", [("blue", 1.0)])
    make_film(folder / "late.mp4", [("grey", 5.0), ("red", 3.0)])
    for name, colour in (("red", (10, 10, 230)), ("green", (10, 200, 10))):  # OpenCV's order: blue, green, red
        cv2.imwrite(str(folder / f"{name}.png"), np.full((96, 160, 3), colour, np.uint8))
    return folder


def test_every_file_is_scored_on_every_prompt_of_its_kind_and_on_no_other(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(
        tmp_path,
        ("red.mp4", "video", "red", "dev"),
        ("blue.mp4", "video", "blue; cold", "dev"),
        ("red.png", "image", "red", "dev"),
        ("green.png", "image", "", "dev"),
        ("red.mp4", "audio", "loud", "other"),
    )
    written = evaluate(Task(manifest, root), tmp_path / "out", coloured())
    assert set(written) == {"predictions", "report", "page"}
    scores = table(written["predictions"])
    films = {(film, prompt) for film in ("red.mp4", "blue.mp4") for prompt in ("red", "blue", "cold")}
    assert set(scores) == films | {("red.png", "red"), ("green.png", "red")}
    assert scores["red.mp4", "red"] > scores["red.mp4", "blue"]
    assert scores["blue.mp4", "blue"] > scores["blue.mp4", "red"]
    assert scores["red.png", "red"] > scores["green.png", "red"]


def test_without_a_split_all_are_scored_sound_too(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, ("blue.mp4", "video", "blue", "dev"), ("red.mp4", "audio", "loud", "test"))
    task = Task(manifest, root, split=None)
    scores = table(evaluate(task, tmp_path / "out", coloured(), with_page=False)["predictions"])
    assert set(scores) == {("blue.mp4", "blue"), ("red.mp4", "loud")}
    assert scores["red.mp4", "loud"] > 0.5


def test_names_and_captions_are_scored_on_every_photo(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streamer.stages.load_chosen", lambda *_: colour_encoders())
    out, long = tmp_path / "deep" / "out", "a wall, " * 40
    command(
        manifest=a_manifest(tmp_path, ("red.png", "image", "red", "dev")),
        root=root,
        out=out,
        also=["crimson=red"],
        open_vocab=write_rows(root / "names.csv", ("path", "name"), ("red.png", "red"), ("green.png", "green")),
        captions=write_rows(root / "captions.csv", ("path", "caption"), ("red.png", long), ("red.png", "red")),
    )
    names = ("predictions.csv", "also.csv", "open_vocab.csv", "captions.csv", "report.json", "report.html")
    assert capsys.readouterr().out.split() == [str(out / name) for name in names]
    named = table(out / "open_vocab.csv")
    assert set(named) == {(photo, name) for photo in ("red.png", "green.png") for name in ("red", "green")}
    assert named["red.png", "red"] > named["red.png", "green"]
    assert named["green.png", "green"] > named["green.png", "red"]
    assert set(table(out / "captions.csv")) == {("red.png", long), ("red.png", "red")}
    assert set(table(out / "also.csv")) == {("red.png", "crimson")}


def test_the_report_says_what_the_tables_come_to(root: Path, tmp_path: Path) -> None:
    """Two red films of four: both rank on top, and the tracker knows of the late one when its first window is over."""
    manifest = a_manifest(
        tmp_path,
        ("red.mp4", "video", "red", "dev"),
        ("late.mp4", "video", "red", "dev"),
        ("blue.mp4", "video", "blue", "dev"),
        ("red.mp4", "audio", "loud", "dev"),
    )
    report = report_of(evaluate(Task(manifest, root), tmp_path / "out", coloured(), with_page=False))
    assert set(report["kinds"]) == {"video", "audio"}
    video = report["kinds"]["video"]
    assert (video["items"], video["groups"]) == (3, 3)
    assert video["hours"] * 3600 == pytest.approx(10, abs=0.5)
    red = video["prompts"]["red"]
    assert (red["n_pos"], red["n_neg"], red["tp"], red["fp"], red["fn"], red["tn"]) == (2, 1, 2, 0, 0, 1)
    assert (red["accuracy"], red["precision"], red["recall"], red["f1"]) == (1, 1, 1, 1)
    assert (red["ap"]["value"], red["roc_auc"]["value"]) == (1, 1)
    assert sum(part["count"] for part in red["reliability"]) == 3
    assert red["false_alerts"]["events"] == 0
    assert red["false_alerts"]["hours"] * 3600 == pytest.approx(1, abs=0.2)
    # Seen in its first window, over after 2 s; and of the late film in the window from 4 to 6 s.
    assert (red["time_to_alert"]["alerted"], red["time_to_alert"]["missed"]) == (2, 0)
    assert red["time_to_alert"]["median_s"] == pytest.approx((2 + 6) / 2)
    confusion = video["confusion"]
    assert confusion["prompts"] == ["blue", "red"]
    assert [(row["label"], row["reported"]) for row in confusion["rows"]][:2] == [("blue", [1, 0]), ("red", [0, 1])]


def test_an_alert_on_ordinary_footage_is_counted_with_its_prompt(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(
        tmp_path,
        ("red.mp4", "video", "", "dev"),
        ("blue.mp4", "video", "blue", "dev"),
        ("late.mp4", "video", "red", "dev"),
    )
    report = report_of(evaluate(Task(manifest, root), tmp_path / "out", coloured(), with_page=False))
    ordinary = report["ordinary"]["video"]
    assert (ordinary["items"], ordinary["events"], ordinary["by_prompt"]) == (1, 1, {"blue": 0, "red": 1})
    assert ordinary["per_hour"] == pytest.approx(1 / ordinary["hours"])
    assert ordinary["at_most_per_hour"] > ordinary["per_hour"]
    red = report["kinds"]["video"]["prompts"]["red"]
    assert (red["fp"], red["false_alerts"]["events"]) == (1, 1)


def test_a_paraphrase_is_judged_by_its_label_and_set_against_it(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(
        tmp_path,
        ("red.mp4", "video", "red", "dev"),
        ("blue.mp4", "video", "", "dev"),
        ("late.mp4", "video", "red", "dev"),
    )
    task = Task(manifest, root, also={"nonsense": "red", "green": "red"})
    written = evaluate(task, tmp_path / "out", coloured(), with_page=False)
    prompts = report_of(written)["kinds"]["video"]["prompts"]
    assert {name: one["label"] for name, one in prompts.items()} == {"red": "red", "nonsense": "red", "green": "red"}
    for name in ("nonsense", "green"):
        expected = prompts[name]["ap"]["value"] - prompts["red"]["ap"]["value"]
        assert prompts[name]["ap_against_label"] == pytest.approx(expected, abs=1e-6)
    assert {prompt for _, prompt in table(written["predictions"])} == {"red"}
    assert {prompt for _, prompt in table(written["also"])} == {"nonsense", "green"}


def test_a_prompt_document_stands_for_the_label_of_its_text_or_id(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, ("red.mp4", "video", "a thing", "dev"), ("blue.mp4", "video", "", "dev"))
    plain = Task(manifest, root)
    chosen = Task(manifest, root, documents=[{"id": "a-thing", "text": "red", "streams": "yard-*"}])
    scores = [
        table(evaluate(task, tmp_path / "out", coloured(), with_page=False)["predictions"]) for task in (plain, chosen)
    ]
    assert scores[0]["red.mp4", "a thing"] < 0.5 < scores[1]["red.mp4", "a thing"]


@pytest.mark.parametrize(
    ("also", "says"), [({"brawl": "fight"}, "no item has; red are there"), ({"": "red"}, "it has 0 characters")]
)
def test_paraphrases_of_nothing_are_refused(also: dict[str, str], says: str) -> None:
    with pytest.raises((EvaluationError, PromptError), match=says):
        ask([Item("a.mp4", "video", ("red",), "dev")], also=also)


def test_paraphrases_come_from_pairs_and_from_a_table(tmp_path: Path) -> None:
    listed = write_rows(tmp_path / "also.csv", ("prompt", "label"), ("shots fired", "gunshot"))
    assert read_also(["brawl=fight", "1 + 1 = 2=sum"], listed) == {
        "brawl": "fight",
        "1 + 1 = 2": "sum",
        "shots fired": "gunshot",
    }
    with pytest.raises(EvaluationError, match="'brawl' is no TEXT=LABEL"):
        read_also(["brawl"], None)


class _Page(html.parser.HTMLParser):
    """What a page refers to, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.refers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass


def test_the_page_is_whole_and_needs_nothing_else(root: Path, tmp_path: Path) -> None:
    manifest = write_rows(
        tmp_path / "manifest.csv",
        ("path", "kind", "labels", "split", "group", "note"),
        ("red.mp4", "video", "red", "dev", "one", "composed: <paint>"),
        ("blue.mp4", "video", "", "dev", "two", ""),
        ("red.mp4", "audio", "loud", "dev", "one", ""),
    )
    text = evaluate(Task(manifest, root), tmp_path / "out", coloured())["page"].read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert len(page.refers) == 3  # two frames and a spectrogram
    assert all(source.startswith("data:image/jpeg;base64,/9j/") for source in page.refers)
    assert "composed: &lt;paint&gt;" in text
    assert "<paint>" not in text
    for wanted in ("prefers-color-scheme:dark", "@media print", "Reliability diagram", "1 of them composed"):
        assert wanted in text
    assert "http" not in text.replace("http-equiv", "")


def test_a_file_that_is_not_there_is_named_and_no_half_table_is_left(root: Path, tmp_path: Path) -> None:
    for kind in ("video", "image", "audio"):
        manifest = a_manifest(tmp_path, ("red.mp4", "video", "red", "dev"), (f"no.{kind}", kind, "red", "dev"))
        with pytest.raises(EvaluationError, match=rf"no\.{kind}"):
            evaluate(Task(manifest, root), tmp_path / "out", coloured())
        assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_file_without_what_it_is_judged_by_is_refused(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, ("blue.mp4", "audio", "loud", "dev"))
    with pytest.raises(EvaluationError, match=r"blue\.mp4 holds no sound"):
        evaluate(Task(manifest, root), tmp_path / "out", coloured())


@pytest.mark.parametrize(
    ("rows", "split", "says"),
    [
        ([("a.mp4", "vidoe", "red", "dev")], "dev", "a.mp4 is of kind 'vidoe'; video, image, audio are read"),
        ([("a.mp4", "video", "red", "train")], "dev", "no item of split 'dev'"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(
    rows: list[tuple[str, ...]], split: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=says):
        read_manifest(a_manifest(tmp_path, *rows), split)


def test_a_list_without_its_columns_is_refused_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"lacks column\(s\) kind, labels, split; it has \['path'\]"):
        read_manifest(write_rows(tmp_path / "manifest.csv", ("path",), ("a.mp4",)))
    with pytest.raises(EvaluationError, match="cannot be read as CSV"):
        read_manifest(DATA / "ingest_cars.mp4")


def test_frames_are_taken_at_the_rate_and_sound_at_16_khz() -> None:
    frames = read_frames(DATA / "ingest_cars.mp4", 64, 2.0)
    assert frames.shape[1:] == (64, 64, 3)
    assert len(frames) == pytest.approx(16, abs=1)  # eight seconds
    sound = read_sound(DATA / "ingest_siren.ogg")
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(4.5 * 16_000, rel=0.05)
    with pytest.raises(EvaluationError, match="cannot be decoded as video"):
        read_frames(DATA / "ingest_siren.ogg", 64, 2.0)


def test_a_spectrogram_has_a_hundred_frames_a_second_and_shows_a_tone_in_its_band() -> None:
    tone = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)).astype(np.float32)
    bands = spectrogram(tone)
    assert bands.shape == (98, 64)  # 25 ms every 10 ms
    # 1 kHz is mel 1000; 64 bands lie evenly between 125 Hz (mel 185) and 7500 Hz (mel 2774).
    assert abs(int(bands.mean(0).argmax()) - round((1000 - 185) / (2774 - 185) * 65 - 1)) <= 1


@pytest.mark.slow
def test_the_shipped_encoders_rank_real_media_the_same_each_time(tmp_path: Path) -> None:
    manifest = a_manifest(
        tmp_path,
        ("ingest_cars.mp4", "video", "car;dog", "dev"),
        ("ingest_siren.ogg", "audio", "siren", "dev"),
        ("sound_baby.ogg", "audio", "crying baby", "dev"),
        ("sound_gunshot.ogg", "audio", "gunshot", "dev"),
    )
    stages = open_stages(load_settings(flags={"encode.device": "cpu"}))
    tables = [evaluate(Task(manifest, DATA), tmp_path / out, stages)["predictions"] for out in ("one", "two")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    scores = table(tables[0])
    assert len(scores) == 2 + 3 * 3
    assert scores["ingest_cars.mp4", "car"] > scores["ingest_cars.mp4", "dog"]
    for file, label in (("ingest_siren.ogg", "siren"), ("sound_baby.ogg", "crying baby")):
        assert max(("siren", "crying baby", "gunshot"), key=lambda prompt: scores[file, prompt]) == label


def test_scores_are_told_as_probabilities(root: Path, tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, ("red.png", "image", "red", "dev"))
    stages = coloured()
    scores = table(evaluate(Task(manifest, root), tmp_path / "out", stages, with_page=False)["predictions"])
    raw = stages.calibrations.seen.score(np.array([scores["red.png", "red"]], np.float32))
    assert 0.8 < float(raw[0]) <= 1.01  # the photo is that colour: a similarity near 1
