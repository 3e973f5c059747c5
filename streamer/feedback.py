"""Events marked right or wrong, and the curve of their prompt that follows.

Under the prefix, ``marks:{prompt}``: hash, event id -> JSON of `Mark`, at most `MAX_MARKS`. What they come to is kept
in the prompt's own document as ``marked``, so that workers follow it like any other change, exports carry it, and an
update can take it back.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError
from redis import Redis

from models.calibrate import fit_curve
from streamer.errors import PromptError, WatchwordError
from streamer.event_log import EventLog
from streamer.events import Event
from streamer.prompt_store import PromptStore
from streamer.prompts import Marked, Prompt
from streamer.redis_client import reaching

MAX_MARKS: Final = 500  # of a prompt; of more the oldest are dropped
_ATTEMPTS = 10
_SURE = 0.5  # a sense that was this sure of a right event shares the credit


@dataclass(frozen=True, slots=True)
class Mark:
    """What somebody said of an event, with what is needed to learn from it.

    Attributes:
        event: Its id.
        is_right: It was what the prompt means.
        of: Which models judged it: 16 hex digits.
        asks: `Prompt.asks` of its prompt.
        seen: Log-odds of its best window's picture, less what is usual for the stream; None: no picture.
        heard: Likewise of the sound.
        marked_us: When it was marked.
    """

    event: str
    is_right: bool
    of: str
    asks: str
    seen: float | None
    heard: float | None
    marked_us: int

    @property
    def verdict(self) -> str:
        """In a word."""
        return "right" if self.is_right else "wrong"


class Feedback:
    """Marks under a prefix. Safe to share between threads; every method may raise `UnavailableError`.

    Args:
        redis: Client that answers in bytes.
        prefix: Before every key.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._events = EventLog(redis, prefix)
        self._prompts = PromptStore(redis, prefix)

    def mark(self, event_id: str, *, is_right: bool, now_us: int) -> Prompt:
        """Mark an event; the last mark of an event stands.

        Args:
            event_id: Which.
            is_right: It was what the prompt means.
            now_us: Microseconds since 1970 UTC.

        Returns:
            The prompt as it follows the marks now; workers do within a second.

        Raises:
            PromptError: Its prompt is gone, or asks something else by now.
            WatchwordError: There is no such event, or it cannot be learnt from.
        """
        event = self._event(event_id)
        prompt = self._prompts.get(event.prompt.id)
        mark = mark_of(event, prompt, is_right=is_right, now_us=now_us)
        with reaching(self._redis):
            self._redis.hset(self._key(prompt.id), event_id, json.dumps(asdict(mark)))
        self._drop_oldest(prompt.id)
        return self._follow(prompt.id)

    def take_back(self, event_id: str) -> Prompt:
        """Forget the mark of an event, if it has one.

        Raises:
            PromptError: Its prompt is gone.
            WatchwordError: There is no such event.
        """
        prompt_id = self._event(event_id).prompt.id
        with reaching(self._redis):
            self._redis.hdel(self._key(prompt_id), event_id)
        return self._follow(prompt_id)

    def reset(self, prompt_id: str) -> Prompt:
        """Forget all marks of a prompt and the curve that followed from them.

        Raises:
            PromptError: There is no such prompt.
        """
        prompt = self._prompts.update(prompt_id, {"marked": None})
        self.forget(prompt_id)
        return prompt

    def forget(self, prompt_id: str) -> None:
        """Forget all marks of a prompt, whether it is still there or not; its curve stays as it is."""
        with reaching(self._redis):
            self._redis.delete(self._key(prompt_id))

    def marks(self, prompt_id: str) -> list[Mark]:
        """All marks of a prompt's events, the oldest first."""
        with reaching(self._redis):
            raw: Any = self._redis.hvals(self._key(prompt_id))
        return sorted((mark for one in raw if (mark := _parsed(one))), key=lambda mark: (mark.marked_us, mark.event))

    def _follow(self, prompt_id: str) -> Prompt:
        for _ in range(_ATTEMPTS):
            marks = self.marks(prompt_id)
            marked = refit(self._prompts.get(prompt_id), marks)
            document = None if marked is None else marked.model_dump(mode="json", exclude_none=True)
            prompt = self._prompts.update(prompt_id, {"marked": document})
            if self.marks(prompt_id) == marks:  # nobody marked another meanwhile
                break
        return prompt

    def _drop_oldest(self, prompt_id: str) -> None:
        marks = self.marks(prompt_id)
        if excess := [mark.event for mark in marks[: max(0, len(marks) - MAX_MARKS)]]:
            with reaching(self._redis):
                self._redis.hdel(self._key(prompt_id), *excess)

    def _event(self, event_id: str) -> Event:
        event = self._events.get(event_id)
        if event is None:
            raise WatchwordError(f"there is no event {event_id!r}, or it was forgotten; see `watchword events list`")
        return event

    def _key(self, prompt_id: str) -> str:
        return f"{self._prefix}marks:{prompt_id}"


def mark_of(event: Event, prompt: Prompt, *, is_right: bool, now_us: int) -> Mark:
    """A mark of an event.

    Raises:
        PromptError: The prompt asks something else by now.
        WatchwordError: The event says nothing that could be learnt from.
    """
    if event.prompt.system:
        raise WatchwordError(f"event {event.id} is about the camera itself; settings system.* say when it is told")
    if event.prompt.text != prompt.text:
        raise PromptError(
            f"event {event.id} is of an earlier text of prompt {prompt.id!r}; it says nothing of this one"
        )
    told = event.evidence
    if told is None or (told.seen_raw is None and told.heard_raw is None):
        raise WatchwordError(f"event {event.id} does not say what its confidence came from; mark a newer one")
    return Mark(
        event=event.id,
        is_right=is_right,
        of=event.model.sha256[:16],
        asks=prompt.asks,
        seen=None if told.seen_raw is None else told.seen_raw - told.seen_usual,
        heard=None if told.heard_raw is None else told.heard_raw - told.heard_usual,
        marked_us=now_us,
    )


def refit(prompt: Prompt, marks: Sequence[Mark]) -> Marked | None:
    """What marks come to; None: none of them is of this prompt as it is.

    Only those count that the same models judged as the newest one.

    Args:
        prompt: Whose events were marked.
        marks: In order of time.
    """
    mine = [mark for mark in marks if mark.asks == prompt.asks]
    mine = [mark for mark in mine if mark.of == mine[-1].of]
    if not mine:
        return None
    seen, heard = _said(prompt.modality, mine)
    right = sum(mark.is_right for mark in mine)
    return Marked(
        of=mine[-1].of,
        asks=prompt.asks,
        right=right,
        wrong=len(mine) - right,
        seen=fit_curve(*seen),
        heard=fit_curve(*heard),
    )


def _said(modality: str, marks: Sequence[Mark]) -> tuple[tuple[list[float], list[float]], ...]:
    """What marks say of each sense: log-odds and labels."""
    seen: tuple[list[float], list[float]] = ([], [])
    heard: tuple[list[float], list[float]] = ([], [])
    for mark in marks:
        parts = [(seen, mark.seen, "audio"), (heard, mark.heard, "video")]
        there = [(said, value) for said, value, deaf in parts if value is not None and modality != deaf]
        best = max((value for _, value in there), default=0.0)
        least = min((value for _, value in there), default=0.0)
        for said, value in there:
            # Of either sense one may have been right alone; of both one may have been wrong alone.
            is_silent = modality == "any" and mark.is_right and value < min(best, np.log(_SURE / (1 - _SURE)))
            is_blameless = modality == "both" and not mark.is_right and value > least
            if not is_silent and not is_blameless:
                said[0].append(value)
                said[1].append(float(mark.is_right))
    return seen, heard


def _parsed(raw: bytes) -> Mark | None:
    try:
        return _ADAPTER.validate_json(raw)
    except ValidationError:
        return None  # written by others


_ADAPTER: Final = TypeAdapter(Mark)
