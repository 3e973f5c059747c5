from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.calibrate import PRIOR
from streamer.align import AlignStage, PromptEmbedder, PromptSet, cells_of, region_of
from streamer.encode import EncodeStage
from streamer.prompts import Prompt, parse_prompt
from streamer.types import Batch, Tokens, Window
from tests.builders import SECOND_US, a_window
from tests.colours import Words, colour_encoders

RED, GREY = (230, 10, 10), (110, 110, 110)
GRID = (7, 7)


def a_prompt(text: str, **fields: object) -> Prompt:
    return parse_prompt({"id": text, "text": text, **fields})


def prompts_of(*prompts: Prompt, generation: int = 1) -> PromptSet:
    return PromptEmbedder(colour_encoders(), PRIOR).embed(generation, prompts)


def tokens_of(*windows: Window) -> Tokens:
    stage = EncodeStage(colour_encoders(), hop_s=1.0, reuse_max_age_s=0, reuse_noise=3)
    return stage.encode(Batch(windows, 0.0, tuple(0.0 for _ in windows)))


def picture(colour: tuple[int, int, int], box: tuple[slice, slice] | None = None) -> NDArray[np.uint8]:
    """Grey, with a colour in a box or everywhere."""
    pixels = np.full((224, 224, 3), GREY, np.uint8)
    pixels[box if box is not None else ...] = colour
    return pixels


def a_stage(prompts: PromptSet) -> AlignStage:
    return AlignStage(lambda: prompts, PRIOR, GRID)


def test_a_window_takes_its_best_frame() -> None:
    window = a_window(frames=np.stack([picture(GREY), picture(RED), picture(GREY)]))
    alignment, _ = a_stage(prompts_of(a_prompt("red"), a_prompt("blue"))).align(tokens_of(window))
    assert alignment.confidence.shape == (1, 2)
    assert alignment.confidence[0, 0] > 0.99
    assert alignment.confidence[0, 1] < 0.01
    assert np.isnan(alignment.heard).all()


def test_a_window_with_neither_sense_has_no_confidence() -> None:
    window = a_window(frames=np.zeros((0, 224, 224, 3), np.uint8), times_us=())
    alignment, _ = a_stage(prompts_of(a_prompt("red"))).align(tokens_of(window))
    assert np.isnan(alignment.confidence).all()


def test_without_prompts_there_is_nothing_to_say() -> None:
    alignment, _ = a_stage(prompts_of()).align(tokens_of(a_window(frames=picture(RED)[None])))
    assert alignment.confidence.shape == (1, 0)


def test_a_region_sees_only_its_own_part() -> None:
    left = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
    right = [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]
    stage = a_stage(
        prompts_of(
            parse_prompt({"id": "left", "text": "red", "region": left}),
            parse_prompt({"id": "right", "text": "red", "region": right}),
        )
    )
    window = a_window(frames=picture(RED, (slice(None), slice(0, 96)))[None])
    alignment, _ = stage.align(tokens_of(window))
    assert alignment.confidence[0, 0] > 0.9
    assert alignment.confidence[0, 1] < 0.1


def test_evidence_says_where_and_when() -> None:
    prompts = prompts_of(a_prompt("red"))
    stage = a_stage(prompts)
    lit = picture(RED, (slice(32, 64), slice(160, 192)))
    tokens = tokens_of(a_window(frames=np.stack([picture(GREY), lit]), times_us=(0, SECOND_US)))
    stage.align(tokens)
    evidence = stage.evidence(tokens, 0, 0, prompts)
    assert evidence.frame_time_us == SECOND_US
    strongest = np.unravel_index(np.argmax(evidence.attention), (7, 7))
    assert tuple(map(int, strongest)) == (1, 5)
    assert evidence.region is not None
    left, top, right, bottom = evidence.region
    assert left <= 5 / 7 < 6 / 7 <= right
    assert top <= 1 / 7 < 2 / 7 <= bottom
    assert (right - left) * (bottom - top) < 1 / 4
    assert sum(map(sum, evidence.attention)) == pytest.approx(1, abs=0.01)


def test_evidence_of_sound_alone_names_no_place() -> None:
    prompts = prompts_of(a_prompt("loud", modality="audio"))
    stage = a_stage(prompts)
    tokens = tokens_of(a_window(frames=picture(GREY)[None], has_sound=True))
    stage.align(tokens)
    evidence = stage.evidence(tokens, 0, 0, prompts)
    assert (evidence.region, evidence.frame_time_us, evidence.attention) == (None, None, ())
    assert evidence.window_us == (tokens.windows[0].start_us, tokens.windows[0].end_us)


def test_when_prompts_change_frames_seen_before_are_scored_with_the_new_ones() -> None:
    current = prompts_of(a_prompt("blue"))
    stage = AlignStage(lambda: current, PRIOR, GRID)
    encode = EncodeStage(colour_encoders(), hop_s=1.0, reuse_max_age_s=0, reuse_noise=3)
    frames = np.stack([picture(RED)] * 2)
    stage.align(encode.encode(Batch((a_window(frames=frames, times_us=(0, SECOND_US)),), 0.0, (0.0,))))
    current = prompts_of(a_prompt("blue"), a_prompt("red"), generation=2)
    again = a_window(start_us=SECOND_US, frames=frames[:1], times_us=(SECOND_US,))
    alignment, used = stage.align(encode.encode(Batch((again,), 0.0, (0.0,))))
    assert used is current
    assert alignment.confidence[0, used.table.columns["red"]] > 0.99


def test_a_text_is_embedded_once_for_as_long_as_a_prompt_uses_it() -> None:
    asked: list[str] = []

    class Asked(Words):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            asked.extend(texts)
            return super().encode(texts)

    words = Asked()
    encoders = replace(colour_encoders(), picture_text=words, sound_text=words)
    embedder = PromptEmbedder(encoders, PRIOR)
    for generation, texts in enumerate((["red"], ["red", "blue"], ["blue"], ["red"])):
        embedder.embed(generation, [a_prompt(text) for text in texts])
    assert asked == ["red", "blue", "red"]


def test_views_of_streams_are_bounded() -> None:
    prompts = prompts_of(a_prompt("red"))
    for number in range(10_000):
        prompts.of_stream(f"cam-{number}", {})
    assert len(prompts._views) <= 4096


@given(st.integers(0, 6), st.integers(0, 6))
def test_the_region_of_one_bright_cell_is_that_cell(row: int, column: int) -> None:
    grid = np.full(GRID, 0.3 / 48)
    grid[row, column] = 0.7
    assert region_of(grid) == pytest.approx((column / 7, row / 7, (column + 1) / 7, (row + 1) / 7))


@given(st.integers(0, 6), st.integers(0, 6), st.floats(0.01, 0.3))
def test_a_region_of_any_size_has_the_cell_that_it_lies_in(row: int, column: int, half: float) -> None:
    middle = ((column + 0.5) / 7, (row + 0.5) / 7)
    size = half / 7
    corners = [(middle[0] + x * size, middle[1] + y * size) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    cells = cells_of(tuple(corners), 7, 7)
    assert cells[row, column]
    assert cells.sum() == 1


def test_a_contrast_of_the_settings_counts_for_prompts_without_their_own() -> None:
    window = a_window(frames=picture((160, 10, 230))[None])
    prompts = [a_prompt("red"), a_prompt("green", contrast=["grey"])]
    confidences = []
    for contrast in ((), ("blue",)):
        made = PromptEmbedder(colour_encoders(), PRIOR, contrast=contrast).embed(1, prompts)
        assert [len(made.embeddings.picture.of(torch.tensor([row])).contrast) for row in range(2)] == [len(contrast), 1]
        alignment, _ = a_stage(made).align(tokens_of(window))
        confidences.append(float(alignment.confidence[0, 0]))
    assert confidences[1] < confidences[0]
