"""Thresholds that follow from alerts a day, on each stream of ours, for prompts that name a budget."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from models.budget import Past, from_document, to_document
from models.errors import ModelError
from streamer.prompt_table import InForce, TrackedPrompts
from streamer.prompts import Prompt

_log = structlog.get_logger(__name__)
VERSION = 1  # of the written form


class Budgets:
    """What prompts with a budget were confident of on our streams. Owned by the pipeline's thread.

    A prompt that comes to mean something else, or whose curve changes, starts afresh; another budget does not.

    Args:
        merge_gap_us: A dip shorter than this does not end an event.
    """

    def __init__(self, merge_gap_us: int) -> None:
        self._merge_gap_us = merge_gap_us
        self._streams: dict[str, dict[str, tuple[str, Past]]] = {}  # stream, prompt id, what it answers

    def of_stream(self, stream: str, view: TrackedPrompts) -> TrackedPrompts:
        """The prompts with the thresholds that are in force there now."""
        if not view.table.budgeted:
            return view
        thresholds = view.table.thresholds.copy()
        for column in view.table.budgeted:
            prompt = view.table.prompts[column]
            past, budget = self._past(stream, prompt), prompt.alerts_per_day
            if past is not None and budget is not None and (found := past.threshold(budget)) is not None:
                thresholds[column] = found
        return replace(view, thresholds=thresholds)

    def in_force(self, stream: str, view: TrackedPrompts) -> Mapping[str, InForce]:
        """Why thresholds are as they are, by prompt; of those with a budget that watch the stream."""
        found = {}
        for column in view.table.budgeted:
            prompt = view.table.prompts[column]
            if prompt.alerts_per_day is not None and view.is_selected[column]:
                past = self._past(stream, prompt) or Past()
                found[prompt.id] = InForce(
                    round(float(view.thresholds[column]), 4),
                    past.days,
                    prompt.alerts_per_day,
                    is_learnt=past.is_enough(prompt.alerts_per_day),
                )
        return found

    def take_in(
        self, stream: str, view: TrackedPrompts, confidence: NDArray[np.float32], start_us: int, end_us: int
    ) -> None:
        """A window was tracked: float32 ``(P,)``, NaN where there was nothing."""
        table = view.table
        if not table.budgeted:
            return
        is_active = view.is_selected & view.is_enabled & table.is_open(end_us)
        known = self._streams.setdefault(stream, {})
        for column in table.budgeted:
            if not view.is_selected[column]:
                continue
            prompt = table.prompts[column]
            past = self._past(stream, prompt)
            if past is None:
                past = Past()
                known[prompt.id] = (prompt.answers, past)
            past.add(
                float(confidence[column]),
                start_us,
                end_us,
                self._merge_gap_us + prompt.cooldown_us,
                is_active=bool(is_active[column]),
            )
        for prompt_id in known.keys() - {table.prompts[column].id for column in table.budgeted}:
            del known[prompt_id]

    def state(self, stream: str) -> dict[str, Any] | None:
        """What `restore` needs; plain JSON, 0.3 to 2 kB a prompt; None: nothing is known."""
        known = self._streams.get(stream)
        if not known:
            return None
        pasts = {prompt_id: [answers, to_document(past)] for prompt_id, (answers, past) in known.items()}
        return {"version": VERSION, "pasts": pasts}

    def restore(self, stream: str, saved: Mapping[str, Any] | None) -> None:
        """Go on where a commit was."""
        self.forget(stream)
        if not saved or saved.get("version") != VERSION:
            return
        try:
            pasts = {name: (str(answers), from_document(past)) for name, (answers, past) in saved["pasts"].items()}
        except (ModelError, KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("budgets not taken over", stream=stream, reason=str(error))
            return
        self._streams[stream] = pasts

    def forget(self, stream: str) -> None:
        """Another worker has the stream now, or it is gone."""
        self._streams.pop(stream, None)

    def _past(self, stream: str, prompt: Prompt) -> Past | None:
        answers, past = self._streams.get(stream, {}).get(prompt.id, ("", None))
        return past if answers == prompt.answers else None
