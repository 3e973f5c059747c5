"""The event document, and reading events back from Redis. `event.schema.json` is made from the models here."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from streamer.types import Evidence, Position, Transition

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SCHEMA_ID: Final = "urn:watchword:event:1"
STAGES: Final = ("decode", "window", "batch", "encode", "align", "track", "emit")

Unit = Annotated[float, Field(ge=0, le=1)]
Moment = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        json_schema_extra={"format": "date-time", "examples": ["2026-11-24T12:03:39.250000Z"]},
    ),
]


def event_id(stream: str, prompt_id: str, start_us: int) -> str:
    """The id of an event: 16 hexadecimal digits, the same in every replay."""
    return hashlib.sha256(f"{stream}\n{prompt_id}\n{start_us}".encode()).hexdigest()[:16]


def to_rfc3339(at_us: int) -> str:
    """Microseconds since 1970 UTC as ``2026-11-24T12:03:39.250000Z``."""
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> int:
    """Microseconds since 1970 UTC. A time without a zone is taken as UTC.

    Raises:
        ValueError: It is not such a time.
    """
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (moment - _EPOCH) // timedelta(microseconds=1)


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


class EventPrompt(_Part):
    """A prompt, as far as an event tells it."""

    id: str = Field(description="The prompt's id.")
    version: int = Field(ge=0, description="Its version when the event opened.")
    text: str = Field(description="Its text.")
    system: bool = Field(description="Whether it watches the camera itself: silent, dark or frozen.")


class EventEvidence(_Part):
    """Where and when the prompt matched best."""

    region: tuple[Unit, Unit, Unit, Unit] | None = Field(
        description="Left, top, right, bottom, each 0 to 1 of the picture; null where only sound matched."
    )
    frame_time: Moment | None = Field(description="Capture time of the best frame; null where only sound matched.")
    attention: tuple[tuple[Unit, ...], ...] = Field(
        description="Share of attention per cell of a small grid, rows from the top; empty where only sound matched."
    )
    window_start: Moment | None = Field(default=None, description="Capture time at which the best window starts.")
    window_end: Moment | None = Field(default=None, description="Capture time at which it ends.")
    since: Moment | None = Field(
        default=None,
        description="Capture time of the oldest frame that the best window was judged by: a still picture is not looked"
        " at again. With the media from then on it can be scored again.",
    )
    confidence: Unit | None = Field(default=None, description="Of the best window.")
    seen: Unit | None = Field(default=None, description="The picture's own confidence in it; null: no picture.")
    heard: Unit | None = Field(default=None, description="The sound's own confidence in it; null: no sound.")
    seen_raw: float | None = Field(
        default=None,
        description="Log-odds of the picture in it, before what the stream usually shows is taken away and before the"
        " prompt's own curve; null: no picture.",
    )
    heard_raw: float | None = Field(default=None, description="Likewise of the sound; null: no sound.")
    seen_usual: float = Field(
        default=0.0, ge=0, description="What of `seen_raw` the stream usually shows, and was taken away."
    )
    heard_usual: float = Field(default=0.0, ge=0, description="Likewise of `heard_raw`.")


class Stages(_Part):
    """Seconds spent in each stage on the way of the window that changed the state."""

    decode: float = Field(ge=0, description="Decoding its last chunk.")
    window: float = Field(
        ge=0,
        description="Being captured, sent and joined: from the window's first sample to its release, less decoding.",
    )
    batch: float = Field(ge=0, description="Waiting for company.")
    encode: float = Field(ge=0, description="Encoding its batch.")
    align: float = Field(ge=0, description="Aligning its batch with the prompts.")
    track: float = Field(ge=0, description="Tracking, and drawing evidence.")
    emit: float = Field(ge=0, description="From tracking until the document was made, ready to be written.")


class Latency(_Part):
    """The way from capture to document, in seconds."""

    capture_to_event_s: float = Field(
        description="Seconds from the capture of the window's first sample to this document, its span included;"
        " negative for media that is read faster than it was captured."
    )
    stages: Stages = Field(description="Where they went.")


class EventModel(_Part):
    """The models behind the confidences."""

    name: str = Field(description="The encoders' names.")
    sha256: str = Field(description="Digest of their weights.")
    calibrated: bool = Field(description="Whether confidences are calibrated probabilities.")
    note: str | None = Field(description="What to keep in mind about the confidences; null: nothing.")


class Media(_Part):
    """Where the chunk lies that holds the best window."""

    topic: str = Field(description="Kafka topic.")
    partition: int = Field(ge=0, description="Kafka partition.")
    offset: int = Field(ge=0, description="Offset in it.")


class Event(_Part):
    """A change of state of an event: a prompt began to match a stream, matched better, or ceased to."""

    id: str = Field(pattern="^[0-9a-f]{16}$", description="The same in each state; made from stream, prompt and start.")
    state: Literal["open", "update", "closed"] = Field(
        description="`open` once, then `update` at most once a second and only if the peak rose, then `closed` once."
    )
    stream: str = Field(description="Stream id.")
    prompt: EventPrompt = Field(description="What was watched for.")
    start: Moment = Field(description="Capture time at which the first matching window starts, UTC.")
    end: Moment = Field(description="Capture time until which it has matched so far; final once closed.")
    confidence: Unit = Field(description="Of the latest window.")
    peak: Unit = Field(description="The highest so far.")
    seen: Unit | None = Field(description="The picture's own confidence in the latest window; null: no picture.")
    heard: Unit | None = Field(description="The sound's own confidence in the latest window; null: no sound.")
    evidence: EventEvidence | None = Field(description="Of the best window so far; null where there is none.")
    snapshot: str | None = Field(description="Redis key of a JPEG with the region drawn, kept for a while; or null.")
    severity: Literal["info", "warning", "critical"] = Field(description="The prompt's.")
    labels: Mapping[str, str] = Field(description="The stream's labels and the prompt's; the prompt's count.")
    latency: Latency = Field(description="How long it took.")
    model: EventModel = Field(description="What judged.")
    media: Media | None = Field(description="The chunk it was matched in; null where no chunk arrived.")

    def to_json(self) -> str:
        """The document on one line."""
        return self.model_dump_json()

    @property
    def start_us(self) -> int:
        """`start` in microseconds since 1970 UTC."""
        return from_rfc3339(self.start)


def event_of(
    transition: Transition,
    *,
    stream_labels: Mapping[str, str],
    model: EventModel,
    latency: Latency,
    snapshot: str | None,
) -> Event:
    """The document for a change of state.

    Args:
        transition: What the tracker said.
        stream_labels: Of the settings.
        model: What judged.
        latency: How long it took.
        snapshot: Key of its JPEG, if there is one.
    """
    note = transition.prompt
    return Event(
        id=transition.id,
        state=transition.state.value,
        stream=transition.stream,
        prompt=EventPrompt(id=note.id, version=note.version, text=note.text, system=note.id.startswith("system-")),
        start=to_rfc3339(transition.start_us),
        end=to_rfc3339(transition.end_us),
        confidence=_rounded(transition.confidence),
        peak=_rounded(transition.peak),
        seen=_maybe_rounded(transition.seen),
        heard=_maybe_rounded(transition.heard),
        evidence=_evidence(transition.evidence),
        snapshot=snapshot,
        severity=note.severity,  # type: ignore[arg-type]  # pydantic checks it
        labels={**stream_labels, **note.labels},
        latency=latency,
        model=model,
        media=_media(transition.media),
    )


def latency_of(capture_to_event_s: float, stages: Mapping[str, float]) -> Latency:
    """Seconds by stage, those not named 0."""
    return Latency(
        capture_to_event_s=_rounded(capture_to_event_s),
        stages=Stages(**{name: _rounded(max(0.0, stages.get(name, 0.0))) for name in STAGES}),
    )


def event_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `Event`; `event.schema.json` holds it."""
    schema = Event.model_json_schema(mode="serialization")  # every field is written, those with defaults too
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}


def _evidence(evidence: Evidence | None) -> EventEvidence | None:
    if evidence is None:
        return None
    return EventEvidence(
        region=evidence.region,
        frame_time=None if evidence.frame_time_us is None else to_rfc3339(evidence.frame_time_us),
        attention=evidence.attention,
        window_start=None if evidence.window_us is None else to_rfc3339(evidence.window_us[0]),
        window_end=None if evidence.window_us is None else to_rfc3339(evidence.window_us[1]),
        since=None if evidence.since_us is None else to_rfc3339(evidence.since_us),
        confidence=_maybe_rounded(evidence.confidence),
        seen=_maybe_rounded(evidence.seen),
        heard=_maybe_rounded(evidence.heard),
        seen_raw=_maybe_rounded(evidence.seen_raw),
        heard_raw=_maybe_rounded(evidence.heard_raw),
        seen_usual=_rounded(evidence.seen_usual),
        heard_usual=_rounded(evidence.heard_usual),
    )


def _media(position: Position | None) -> Media | None:
    if position is None:
        return None
    return Media(topic=position.topic, partition=position.partition, offset=position.offset)


def _maybe_rounded(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    """Enough digits for every use, few enough to read."""
    return round(value, 6)
