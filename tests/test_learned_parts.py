"""Standing prompts and the trained senses: who takes part, and that everybody else is left alone."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.calibrate import PRIOR
from models.encoders import PictureTokens
from models.learned import AttentionNet, Gate, Learned, LearnedSense
from models.motion import FEWEST_FRAMES
from streamer.align import AlignStage, PromptEmbedder, PromptSet
from streamer.encode import EncodeStage
from streamer.learned import STILL_LOGIT
from streamer.prompts import Prompt, parse_prompt
from streamer.types import Alignment, Batch, Tokens, Window
from tests.builders import SECOND_US, a_window
from tests.colours import DIM, ColourPictures, Words, colour_encoders

RED, GREY = (230, 10, 10), (110, 110, 110)
GRID = (7, 7)
MOTION_DIM = DIM
RATE = 8


def a_sense(name: str, token_dim: int, kind: str = "red") -> LearnedSense:
    torch.manual_seed(1)
    words = torch.from_numpy(Words().encode([kind, "something else"]))
    gate = Gate((kind,), words, torch.tensor([0, -1]), (0.8, 0.9), (0.0, 0.1))
    net = AttentionNet(token_dim, DIM, width=8, heads=2, layers=0).eval()
    shape = {"token_dim": token_dim, "query_dim": DIM, "width": 8, "heads": 2, "layers": 0}
    return LearnedSense(name, gate, net, torch.tensor([[1.0, 0.0]]), shape)


def prompts_of(*texts: str, learned: Learned | None = None, **fields: object) -> PromptSet:
    prompts: Sequence[Prompt] = [parse_prompt({"id": text, "text": text, **fields}) for text in texts]
    return PromptEmbedder(colour_encoders(), PRIOR, learned=learned).embed(1, prompts)


def walking(seconds: float = 2.0) -> NDArray[np.uint8]:
    """A bright block that walks over grey, from left to right in the upper part."""
    frames = np.full((round(seconds * RATE), 224, 224, 3), GREY, np.uint8)
    for number, frame in enumerate(frames):
        rows = np.arange(40, 80)[:, None] * np.ones(30, int)
        texture = (rows * 7 % 90 + 120).astype(np.uint8)
        frame[40:80, 10 + 7 * number : 40 + 7 * number] = texture[..., None]
    return frames


def looked_at(prompts: PromptSet, *windows: Window) -> tuple[Tokens, Alignment, AlignStage]:
    encode = EncodeStage(
        colour_encoders(),
        hop_s=1.0,
        reuse_max_age_s=0,
        reuse_noise=3,
        wants_motion=lambda: prompts.parts.moved is not None,
    )
    tokens = encode.encode(Batch(windows, 0.0, tuple(0.0 for _ in windows)))
    stage = AlignStage(lambda: prompts, PRIOR, GRID)
    return tokens, stage.align(tokens)[0], stage


def test_prompts_that_mean_something_else_are_scored_the_same_to_the_bit() -> None:
    learned = Learned({"seen": a_sense("seen", DIM), "moved": a_sense("moved", MOTION_DIM)}, "a" * 64)
    window = a_window(frames=walking())
    _, without, _ = looked_at(prompts_of("blue", "green", "red", "cat"), window)
    _, trained, _ = looked_at(prompts_of("blue", "green", "red", "cat", learned=learned), window)
    others = [0, 1, 3]
    assert np.array_equal(without.confidence[:, others], trained.confidence[:, others])
    assert without.confidence[0, 2] != trained.confidence[0, 2]


def test_a_prompt_that_means_a_trained_kind_has_the_probability_that_was_learned() -> None:
    sense = a_sense("seen", DIM)
    prompts = prompts_of("red", learned=Learned({"seen": sense}))
    tokens, alignment, _ = looked_at(prompts, a_window(frames=walking()))
    cells = torch.stack([frame.tokens for frame in tokens.frames[0]])
    whole = torch.stack([frame.whole for frame in tokens.frames[0]])
    logits = sense.logits(cells, whole, prompts.embeddings.picture.vectors)
    np.testing.assert_allclose(alignment.seen[0, 0], float(logits.max().sigmoid()), atol=1e-5)


def test_a_prompt_set_knows_which_prompts_were_trained_for() -> None:
    learned = Learned({"seen": a_sense("seen", DIM)})
    assert prompts_of("red", "blue", learned=learned).trained == {"red"}
    assert prompts_of("red", "blue").trained == frozenset()


def test_a_trained_prompt_sees_nothing_outside_its_region() -> None:
    learned = Learned({"seen": a_sense("seen", DIM)})
    left = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
    frame = np.full((1, 224, 224, 3), GREY, np.uint8)
    lit = frame.copy()
    lit[:, :, 160:] = RED
    confidences = [
        looked_at(prompts_of("red", learned=learned, region=left), a_window(frames=part))[1].confidence[0, 0]
        for part in (frame, lit)
    ]
    assert confidences[0] == confidences[1]


def test_motion_is_looked_at_only_where_a_prompt_asks_for_it() -> None:
    learned = Learned({"moved": a_sense("moved", MOTION_DIM)})
    window = a_window(frames=walking())
    assert looked_at(prompts_of("blue", learned=learned), window)[0].motions == ()
    assert len(looked_at(prompts_of("red", learned=learned), window)[0].motions[0]) == 2


def test_motion_is_told_from_as_many_frames_a_second_as_training_saw() -> None:
    prompts = prompts_of("red", learned=Learned({"moved": a_sense("moved", MOTION_DIM)}))
    slow = walking()
    often = np.repeat(slow, 3, axis=0)
    times = tuple(round(number * SECOND_US / RATE) for number in range(len(slow)))
    many = tuple(round(number * SECOND_US / (3 * RATE)) for number in range(len(often)))
    tokens = [
        looked_at(prompts, a_window(frames=frames, times_us=times_us))[0].motions[0]
        for frames, times_us in ((slow, times), (often, many))
    ]
    for one, other in zip(*tokens, strict=True):
        torch.testing.assert_close(one.token, other.token)


def test_a_stretch_that_two_windows_share_is_looked_at_once() -> None:
    calls: list[int] = []

    class Counting(ColourPictures):
        def encode(self, pixels: NDArray[np.uint8]) -> PictureTokens:
            calls.append(len(pixels))
            return super().encode(pixels)

    words = Words()
    others = colour_encoders()
    encoders = type(others)(Counting(), words, others.sound, words)
    stage = EncodeStage(encoders, hop_s=1.0, reuse_max_age_s=0, reuse_noise=3, wants_motion=lambda: True)
    film = walking(3.0)
    windows = (a_window(frames=film[:16]), a_window(start_us=SECOND_US, frames=film[8:]))
    tokens = stage.encode(Batch(windows, 0.0, (0.0, 0.0)))
    assert tokens.motions[0][1] is tokens.motions[1][0]
    assert calls == [24, 8, 8, 8]


def test_where_too_little_is_seen_to_tell_motion_a_doubt_is_all_that_is_left() -> None:
    learned = Learned({"moved": a_sense("moved", MOTION_DIM)})
    few = np.full((FEWEST_FRAMES - 1, 224, 224, 3), RED, np.uint8)
    prompts = prompts_of("red", learned=learned)
    _, alignment, _ = looked_at(prompts, a_window(frames=few))
    assert alignment.seen[0, 0] <= 1 / (1 + np.exp(-STILL_LOGIT)) + 1e-6
    _, nothing, _ = looked_at(prompts, a_window(frames=few[:0], times_us=()))
    assert np.isnan(nothing.confidence).all()


def test_evidence_of_motion_lies_where_it_moves() -> None:
    prompts = prompts_of("red", learned=Learned({"moved": a_sense("moved", MOTION_DIM)}))
    tokens, _, stage = looked_at(prompts, a_window(frames=walking()))
    evidence = stage.evidence(tokens, 0, 0, prompts)
    assert evidence.region is not None
    assert evidence.frame_time_us in tokens.windows[0].times_us.tolist()
    assert evidence.region[3] <= 0.6
    assert abs(sum(map(sum, evidence.attention)) - 1) < 0.01


def test_evidence_of_a_trained_prompt_is_what_it_attends_to() -> None:
    sense = a_sense("seen", DIM)
    prompts = prompts_of("red", learned=Learned({"seen": sense}))
    tokens, _, stage = looked_at(prompts, a_window(frames=walking()[:1]))
    evidence = stage.evidence(tokens, 0, 0, prompts)
    expected = sense.attention(tokens.frames[0][0].tokens, prompts.embeddings.picture.vectors[0])
    np.testing.assert_allclose(np.array(evidence.attention).reshape(-1), expected.numpy(), atol=1e-4)
