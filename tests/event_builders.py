"""Events for tests, with every field that the test does not care about filled in."""

from collections.abc import Mapping

from streamer.events import Event, EventModel, event_id, event_of, latency_of
from streamer.types import EventState, Evidence, Position, PromptNote, Transition

SECOND_US = 1_000_000
START_US = 1_764_000_000_000_000


def a_transition(
    *,
    stream: str = "yard-1",
    prompt: str = "fire",
    state: EventState = EventState.OPEN,
    start_us: int = START_US,
    end_us: int | None = None,
    confidence: float = 0.75,
    seen: float | None = 0.75,
    heard: float | None = None,
    evidence: Evidence | None = None,
    media: Position | None = None,
    severity: str = "critical",
    labels: Mapping[str, str] | None = None,
) -> Transition:
    return Transition(
        id=event_id(stream, prompt, start_us),
        state=state,
        stream=stream,
        prompt=PromptNote(prompt, 1, "fire", severity, labels or {}),
        start_us=start_us,
        end_us=start_us + 2 * SECOND_US if end_us is None else end_us,
        confidence=confidence,
        peak=confidence,
        seen=seen,
        heard=heard,
        is_peak=state is not EventState.CLOSED,
        evidence=evidence,
        media=media,
    )


def an_event(transition: Transition | None = None, *, snapshot: str | None = None) -> Event:
    return event_of(
        transition or a_transition(),
        stream_labels={"site": "north"},
        model=EventModel(name="compact", sha256="0" * 64, calibrated=False, note="not calibrated"),
        latency=latency_of(1.25, {"decode": 0.01}),
        snapshot=snapshot,
    )
