"""What each stream of ours always shows and sounds like, and what of a prompt's log-odds that explains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from numpy.typing import NDArray

from models.background import Background, from_document, to_document, update, usual_lead
from models.calibrate import Calibrations
from models.errors import ModelError
from models.normalise import Normaliser, Ordinary, Scaling
from streamer.types import Encoded

if TYPE_CHECKING:
    from torch import Tensor

    from streamer.align import PromptSet

_log = structlog.get_logger(__name__)
VERSION = 1  # of the written form
SENSES = ("seen", "heard")


@dataclass(frozen=True, slots=True, eq=False)
class Lead:
    """What is taken away from the log-odds of a stream's windows: float32 ``(P,)`` each, not negative."""

    seen: NDArray[np.float32]
    heard: NDArray[np.float32]


@dataclass(slots=True, eq=False)
class _Known:
    """Of one stream: its backgrounds by sense, how they are written, and what followed from them last."""

    states: dict[str, Background]
    written: dict[str, Any] | None = None
    prompts: "PromptSet | None" = None
    lead: Lead | None = None


class Usual:
    """The backgrounds of our streams. Owned by the pipeline's thread.

    Args:
        normaliser: What prompts were normalised by; a sense without a bank has no background.
        calibrations: Turn scores into log-odds.
        dims: Length of each sense's tokens.
        mark: Of the encoders: what others learnt is not ours.
    """

    def __init__(self, normaliser: Normaliser, calibrations: Calibrations, dims: Mapping[str, int], mark: str) -> None:
        banks = {"seen": normaliser.seen, "heard": normaliser.heard}
        self._banks: dict[str, Ordinary] = {name: bank for name, bank in banks.items() if bank is not None}
        self._slopes = {"seen": calibrations.seen.slope, "heard": calibrations.heard.slope}
        self._dims = dims
        self._mark = mark
        self._streams: dict[str, _Known] = {}

    def lead(self, stream: str, prompts: "PromptSet") -> Lead | None:
        """What is to be taken away now; None: nothing, so far."""
        known = self._streams.get(stream)
        if known is None or not any(state.is_warm for state in known.states.values()):
            return None
        if known.lead is None or known.prompts is not prompts:
            known.prompts, known.lead = prompts, self._lead_of(known.states, prompts)
        return known.lead

    def take_in(
        self, stream: str, frames: Sequence[Encoded], sounds: Sequence[Encoded], end_us: int, *, is_alert: bool
    ) -> None:
        """A window was judged; see `models.background.update`."""
        known = self._streams.setdefault(stream, _Known({}))
        for name, items in (("seen", frames), ("heard", sounds)):
            before = known.states.get(name) or Background.empty(self._dims[name])
            if name not in self._banks or not items or not before.is_due(end_us):
                continue
            after = update(before, [item.whole for item in items], end_us, is_alert=is_alert)
            if not is_alert:  # otherwise nothing follows that did not follow before
                known.lead = None
            known.states[name], known.written = after, None

    def state(self, stream: str) -> dict[str, Any] | None:
        """What `restore` needs, plain JSON, about 2 kB a sense; None: nothing is known."""
        known = self._streams.get(stream)
        if known is None or not known.states:
            return None
        if known.written is None:
            senses = {name: to_document(state) for name, state in known.states.items()}
            known.written = {"version": VERSION, "of": self._mark, **senses}
        return known.written

    def restore(self, stream: str, saved: Mapping[str, Any] | None) -> None:
        """Go on where a commit was. What other encoders or versions learnt is left: it is learnt anew in minutes."""
        self.forget(stream)
        if not saved or saved.get("version") != VERSION or saved.get("of") != self._mark:
            return
        try:
            states = {name: from_document(saved[name], self._dims[name]) for name in self._banks if name in saved}
        except ModelError as error:
            _log.warning("background not taken over", stream=stream, reason=str(error))
            return
        self._streams[stream] = _Known(states)

    def forget(self, stream: str) -> None:
        """Another worker has the stream now, or it is gone."""
        self._streams.pop(stream, None)

    def _lead_of(self, states: Mapping[str, Background], prompts: "PromptSet") -> Lead:
        queries = {"seen": prompts.embeddings.picture.vectors, "heard": prompts.embeddings.sound.vectors}
        scalings = {"seen": prompts.seen_scaling, "heard": prompts.heard_scaling}
        found = {name: self._of_sense(name, states, queries[name], scalings[name], prompts) for name in SENSES}
        return Lead(found["seen"], found["heard"])

    def _of_sense(
        self, name: str, states: Mapping[str, Background], queries: "Tensor", scaling: Scaling, prompts: "PromptSet"
    ) -> NDArray[np.float32]:
        if name not in states or name not in self._banks:
            return np.zeros(len(queries), np.float32)
        lead = usual_lead(states[name], queries.cpu(), self._banks[name], scaling).numpy() * self._slopes[name]
        return np.asarray(lead * prompts.bridge_shares[name], np.float32)
