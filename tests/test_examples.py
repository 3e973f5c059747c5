"""Example files of a prompt, through the guarded decoder and the shipped encoders."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from models.calibrate import NORMALISED_PRIOR
from models.normalise import Normaliser
from streamer.cli.prompts import app
from streamer.errors import PromptError
from streamer.examples import MAX_BYTES, ExampleReader
from streamer.prompts import parse_prompt
from streamer.settings import load_settings
from streamer.stages import Stages, open_stages
from streamer.types import Batch
from tests.builders import a_window


@pytest.fixture(scope="module")
def stages() -> Stages:
    return open_stages(load_settings())


@pytest.fixture
def drawing(tmp_path: Path) -> Callable[[str, int], Path]:
    def draw(kind: str, seed: int) -> Path:
        rng = np.random.default_rng(seed)
        pixels: NDArray[np.uint8] = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
        if kind == "stripes":
            pixels[::6] = 255
            pixels[3::6] = 0
        path = tmp_path / f"{kind}{seed}.png"
        assert cv2.imwrite(str(path), pixels)
        return path

    return draw


def test_a_prompt_with_examples_looks_for_what_they_show(stages: Stages, drawing: Callable[[str, int], Path]) -> None:
    prompt = ExampleReader(stages).draw(parse_prompt("a zebra"), [drawing("stripes", seed) for seed in range(3)])
    assert prompt.examples is not None
    assert prompt.examples.count == 3
    assert prompt.examples.heard is None
    again = parse_prompt(prompt.to_document())
    assert again == prompt
    plain, drawn = (
        stages.embedder().embed(1, [one]).embeddings.picture.vectors[0] for one in (parse_prompt("a zebra"), again)
    )
    shown = stages.encoders.picture.encode(
        cv2.resize(cv2.imread(str(drawing("stripes", 9))), (224, 224)).astype(np.uint8)[None]
    )
    assert float(shown.whole[0] @ drawn) > float(shown.whole[0] @ plain)


def test_other_encoders_go_by_the_text_alone(stages: Stages, drawing: Callable[[str, int], Path]) -> None:
    prompt = ExampleReader(stages).draw(parse_prompt("a zebra"), [drawing("stripes", 1)])
    assert prompt.examples is not None
    foreign = prompt.model_copy(update={"examples": prompt.examples.model_copy(update={"of": "0" * 16})})
    plain, other = (
        stages.embedder().embed(1, [one]).embeddings.picture.vectors for one in (parse_prompt("a zebra"), foreign)
    )
    assert bool((plain == other).all())


def test_a_file_that_is_no_media_is_refused_with_its_name(stages: Stages, tmp_path: Path) -> None:
    for name in ("text.png", "text.mp4"):
        path = tmp_path / name
        path.write_text("#EXTM3U\nfile:///etc/passwd\n")
        with pytest.raises(PromptError, match=name):
            ExampleReader(stages).draw(parse_prompt("a zebra"), [path])


def test_a_file_that_is_missing_or_too_large_is_refused(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="cannot be read"):
        ExampleReader(stages).draw(parse_prompt("a zebra"), [tmp_path / "none.png"])
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(PromptError, match="larger than"):
        ExampleReader(stages).draw(parse_prompt("a zebra"), [large])


def test_too_many_examples_and_none_of_the_prompts_sense_are_refused(
    stages: Stages, drawing: Callable[[str, int], Path]
) -> None:
    picture = drawing("stripes", 1)
    with pytest.raises(PromptError, match="1 to 16"):
        ExampleReader(stages).draw(parse_prompt("a zebra"), [picture] * 17)
    with pytest.raises(PromptError, match="modality audio"):
        ExampleReader(stages).draw(parse_prompt({"text": "a zebra", "modality": "audio"}), [picture])


def test_without_a_bank_examples_are_refused(stages: Stages, drawing: Callable[[str, int], Path]) -> None:
    bare = Stages(stages.settings, stages.encoders, stages.device, NORMALISED_PRIOR, Normaliser())
    with pytest.raises(PromptError, match="normalise"):
        ExampleReader(bare).draw(parse_prompt("a zebra"), [drawing("stripes", 1)])


@pytest.mark.parametrize(
    "kept",
    [
        "AAAA",
        {"of": "x", "count": 1},
        {"of": "0" * 16, "count": 0},
        {"of": "0" * 16, "count": 1, "seen": "%%"},
        {"of": "0" * 16, "count": 1, "seen": base64.b64encode(b"short").decode()},
        {"of": "0" * 16, "count": 1, "seen": "A" * 9000},
        {"of": "0" * 16, "count": 1, "more": 1},
    ],
)
def test_hand_made_examples_are_refused(kept: object) -> None:
    with pytest.raises(PromptError, match="examples"):
        parse_prompt({"text": "a zebra", "examples": kept})


def test_add_takes_example_files_and_the_store_keeps_what_they_come_to(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch, drawing: Callable[[str, int], Path]
) -> None:
    monkeypatch.setenv("WATCHWORD_REDIS__URL", redis_url)
    monkeypatch.setenv("WATCHWORD_REDIS__PREFIX", prefix)
    files = [argument for seed in (1, 2) for argument in ("--example", str(drawing("stripes", seed)))]
    added = CliRunner().invoke(app, ["add", "a zebra", *files])
    assert added.exit_code == 0, (added.output, added.exception)
    shown = CliRunner().invoke(app, ["show", "a-zebra", "--json"])
    assert json.loads(shown.stdout)["examples"]["count"] == 2


def test_frames_are_compared_with_examples_but_not_within_a_region(
    stages: Stages, drawing: Callable[[str, int], Path]
) -> None:
    prompt = ExampleReader(stages).draw(parse_prompt("a zebra"), [drawing("stripes", seed) for seed in range(3)])
    assert prompt.examples is not None
    assert prompt.examples.looks is not None
    half = parse_prompt(prompt.to_document() | {"id": "half", "region": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]})
    plain = parse_prompt("a zebra")
    prompts = stages.embedder().embed(1, [prompt, half, plain])
    assert prompts.embeddings.looks is not None
    assert prompts.embeddings.looks.rows.tolist() == [0]
    assert float(prompts.seen_floors[0]) == float("-inf")
    assert np.isfinite(prompts.seen_floors[1:].numpy()).all()
    pixels = np.stack(
        [cv2.resize(cv2.imread(str(drawing(kind, 9))), (224, 224)).astype(np.uint8) for kind in ("stripes", "noise")]
    )
    window = a_window(frames=pixels)
    tokens = stages.encode(lambda: prompts).encode(Batch((window,), 0.0, (0.0,)))
    align = stages.align(lambda: prompts)
    alignment, _ = align.align(tokens)
    assert alignment.seen[0, 0] > 0.5 > alignment.seen[0, 2]
    for frame in tokens.frames[0]:  # such as are read from an archive
        frame.features = None
    without, _ = stages.align(lambda: prompts).align(tokens)
    assert without.seen[0, 2] == pytest.approx(alignment.seen[0, 2], abs=1e-5)
    assert without.seen[0, 0] != pytest.approx(alignment.seen[0, 0], abs=1e-3)
