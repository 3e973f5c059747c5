from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from models.calibrate import PRIOR, fit_curve, probability_of
from streamer.align import PromptEmbedder, PromptSet, model_digest
from streamer.emit import Emitter, EventLimits
from streamer.errors import PromptError, WatchwordError
from streamer.events import Event
from streamer.feedback import MAX_MARKS, Feedback, Mark, refit
from streamer.prompt_store import PromptStore
from streamer.prompts import Prompt, parse_prompt
from streamer.redis_client import connect_redis
from streamer.types import Evidence
from tests.colours import colour_encoders
from tests.event_builders import SECOND_US, START_US, a_transition, an_event

RED = parse_prompt({"id": "red", "text": "red", "version": 1})
MODELS = model_digest(colour_encoders(), None)[:16]


def a_mark(seen: float | None, *, is_right: bool, heard: float | None = None, of: str = MODELS, at: int = 0) -> Mark:
    return Mark(f"{at:016x}", is_right, of, RED.asks, seen, heard, at)


def confidence(curve: tuple[float, float] | None, logit: float) -> float:
    scale, shift = curve or (1.0, 0.0)
    return float(probability_of(np.array([scale * logit + shift], np.float32))[0])


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(redis: Redis, prefix: str) -> PromptStore:
    made = PromptStore(redis, prefix)
    made.add({"id": "fire", "text": "fire"})
    return made


@pytest.fixture
def feedback(redis: Redis, prefix: str) -> Feedback:
    return Feedback(redis, prefix)


def tell(redis: Redis, prefix: str, *raw: float | None, usual: float = 0.0) -> list[Event]:
    evidence = Evidence(None, None, (), (0, 1), 0, 0.5)
    events = [
        an_event(
            a_transition(
                start_us=START_US + number * SECOND_US, evidence=replace(evidence, seen_raw=value, seen_usual=usual)
            )
        )
        for number, value in enumerate(raw)
    ]
    emitter = Emitter(redis, prefix, EventLimits(1000, 10_000_000, 1000))
    emitter.commit(0, emitter.claim(0).epoch, {"media": 1}, {}, events)
    return events


def test_a_mark_moves_the_prompt_and_taking_it_back_puts_it_back(
    redis: Redis, prefix: str, store: PromptStore, feedback: Feedback
) -> None:
    (event,) = tell(redis, prefix, 1.5, usual=0.5)
    after = feedback.mark(event.id, is_right=False, now_us=7)
    assert store.get("fire") == after
    assert after.version == 2
    assert after.marked is not None
    assert (after.marked.right, after.marked.wrong) == (0, 1)
    assert confidence(after.marked.seen, 1.0) < confidence(None, 1.0)
    (mark,) = feedback.marks("fire")
    assert (mark.event, mark.is_right, mark.seen, mark.heard, mark.marked_us) == (event.id, False, 1.0, None, 7)
    turned = feedback.mark(event.id, is_right=True, now_us=8)
    assert turned.marked is not None
    assert (turned.marked.right, turned.marked.wrong) == (1, 0)
    assert feedback.take_back(event.id).marked is None
    assert feedback.marks("fire") == []


def test_a_reset_forgets_all_marks(redis: Redis, prefix: str, store: PromptStore, feedback: Feedback) -> None:
    for event in tell(redis, prefix, 1.0, 2.0):
        feedback.mark(event.id, is_right=True, now_us=1)
    assert feedback.reset("fire").marked is None
    assert feedback.marks("fire") == []
    assert store.get("fire").to_document().keys() == {"id", "text", *store.get("fire").to_document()} - {"marked"}


def test_what_cannot_be_learnt_from_is_refused(
    redis: Redis, prefix: str, store: PromptStore, feedback: Feedback
) -> None:
    with pytest.raises(WatchwordError, match="no event"):
        feedback.mark("0" * 16, is_right=True, now_us=1)
    event, bare = tell(redis, prefix, 1.0, None)
    with pytest.raises(WatchwordError, match="does not say"):
        feedback.mark(bare.id, is_right=True, now_us=1)
    store.update("fire", {"text": "smoke"})
    with pytest.raises(PromptError, match="earlier text"):
        feedback.mark(event.id, is_right=True, now_us=1)
    store.remove("fire")
    with pytest.raises(PromptError, match="no prompt 'fire'"):
        feedback.mark(event.id, is_right=True, now_us=1)


def test_another_wording_starts_afresh(redis: Redis, prefix: str, store: PromptStore, feedback: Feedback) -> None:
    first, second = tell(redis, prefix, 1.0, 1.0)
    feedback.mark(first.id, is_right=False, now_us=1)
    store.update("fire", {"phrasings": ["flames"]})
    marked = feedback.mark(second.id, is_right=False, now_us=2).marked
    assert marked is not None
    assert marked.wrong == 1


def test_marks_are_bounded_and_the_oldest_go(redis: Redis, prefix: str, store: PromptStore, feedback: Feedback) -> None:
    del store
    (event,) = tell(redis, prefix, 1.0)
    key = f"{prefix}marks:fire"
    kept = '{"event":"%016x","is_right":true,"of":"a","asks":"b","seen":1,"heard":null,"marked_us":%d}'
    redis.hset(key, mapping={f"{n:016x}": kept % (n, n) for n in range(MAX_MARKS)})
    feedback.mark(event.id, is_right=True, now_us=10_000)
    assert len(feedback.marks("fire")) == MAX_MARKS
    assert feedback.marks("fire")[0].marked_us == 1
    redis.hset(key, "x", "not a mark")
    assert len(feedback.marks("fire")) == MAX_MARKS


def test_marks_of_other_models_do_not_count() -> None:
    old = [a_mark(1.0, is_right=False, of="a" * 16, at=n) for n in range(9)]
    marked = refit(RED, [*old, a_mark(1.0, is_right=True, at=10)])
    assert marked is not None
    assert (marked.of, marked.right, marked.wrong) == (MODELS, 1, 0)
    assert refit(RED, []) is None


def test_each_sense_learns_what_it_answers_for() -> None:
    def marked(modality: str, *marks: Mark) -> tuple[bool, bool]:
        prompt = parse_prompt({"id": "red", "text": "red", "modality": modality})
        found = refit(prompt, [replace(mark, asks=prompt.asks) for mark in marks])
        assert found is not None
        return found.seen is not None, found.heard is not None

    assert marked("video", a_mark(2.0, heard=3.0, is_right=True)) == (True, False)
    assert marked("audio", a_mark(2.0, heard=3.0, is_right=False)) == (False, True)
    assert marked("any", a_mark(-3.0, heard=3.0, is_right=True)) == (False, True)
    assert marked("any", a_mark(1.0, heard=3.0, is_right=True)) == (True, True)
    assert marked("any", a_mark(-3.0, heard=3.0, is_right=False)) == (True, True)
    assert marked("both", a_mark(1.0, heard=3.0, is_right=False)) == (True, False)
    assert marked("both", a_mark(1.0, heard=3.0, is_right=True)) == (True, True)


def test_wrong_ones_alone_shift_and_do_not_flatten() -> None:
    curve = fit_curve([1.0, 1.5, 0.5], [0.0, 0.0, 0.0])
    assert curve is not None
    assert curve[0] == pytest.approx(1, abs=1e-3)
    assert -2 < curve[1] < -0.5


def test_marks_tell_right_from_wrong() -> None:
    curve = fit_curve([0.5, 0.8, 1.0, 0.6, 3.0, 3.5, 2.8, 4.0], [0.0] * 4 + [1.0] * 4)
    assert confidence(curve, 0.7) < 0.5 < confidence(curve, 3.2)


@given(st.lists(st.tuples(st.floats(0, 6), st.booleans()), max_size=20), st.floats(-8, -3))
def test_marks_of_events_never_raise_what_was_rightly_left_out(
    marks: list[tuple[float, bool]], left_out: float
) -> None:
    curve = fit_curve([logit for logit, _ in marks], [float(is_right) for _, is_right in marks])
    assert confidence(curve, left_out) < 0.25


def a_set(*prompts: Prompt) -> PromptSet:
    return PromptEmbedder(colour_encoders(), PRIOR).embed(1, prompts)


def with_curve(seen: Sequence[float], **changes: str) -> Prompt:
    marked = {"of": MODELS, "asks": RED.asks, "right": 1, "wrong": 1, "seen": list(seen)} | changes
    return parse_prompt(RED.to_document() | {"marked": marked})


def test_a_curve_is_applied_to_its_prompt_alone() -> None:
    prompts = a_set(with_curve((0.5, 1.0)), parse_prompt({"id": "blue", "text": "blue"}))
    raw = np.full((1, 2), 2.0, np.float32)
    _, seen, heard = prompts.judge(raw, raw)
    np.testing.assert_allclose(seen[0], probability_of(np.array([2.0, 2.0], np.float32)))
    np.testing.assert_allclose(heard[0], seen[0])
    _, seen, _ = prompts.judge(raw + 1, raw)
    np.testing.assert_allclose(seen[0], probability_of(np.array([2.5, 3.0], np.float32)))
    assert set(prompts.marked) == {"red"}


def test_floors_follow_the_curve() -> None:
    plain, bolder = a_set(RED), a_set(with_curve((1.0, 2.0)))
    assert bolder.seen_floors[0] == pytest.approx(float(plain.seen_floors[0]) - 2.0 / PRIOR.seen.slope, abs=1e-4)
    assert bolder.heard_floors[0] == plain.heard_floors[0]


@pytest.mark.parametrize("changes", [{"of": "f" * 16}, {"asks": "f" * 16}])
def test_a_curve_of_other_models_or_words_does_not_count(changes: dict[str, str]) -> None:
    prompts = a_set(with_curve((0.5, 1.0), **changes))
    assert not prompts.marked
    assert prompts.table.prompts[0].marked is None
