"""What the tracker remembers of a stream, and how that is written down for whoever takes over."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from streamer.errors import ContractError
from streamer.types import Evidence, Position, PromptNote

VERSION: Final = 1  # of the written form; grows with each change that older programs cannot read
NEVER_US: Final = -(2**62)


@dataclass(frozen=True, slots=True)
class Run:
    """Windows that match one after the other; an event once it is open.

    Attributes:
        start_us: Start of its first window.
        last_us: End of the last window that held.
        confidence: Of the latest window.
        peak: Highest confidence.
        seen: The picture's own in the latest window.
        heard: The sound's own in the latest window.
        opened: What an open event says about its prompt; None while the run is too short or in the cooldown.
        told_peak: The peak when it was last told.
        told_us: End of the window with which it was last told.
        evidence: Of the best window, once attached.
        media: Where the best window's chunk lies, once attached.
    """

    start_us: int
    last_us: int
    confidence: float
    peak: float
    seen: float | None
    heard: float | None
    opened: PromptNote | None = None
    told_peak: float = 0.0
    told_us: int = NEVER_US
    evidence: Evidence | None = None
    media: Position | None = None


@dataclass(frozen=True, slots=True)
class PromptState:
    """What is remembered of a prompt that is not idle.

    Attributes:
        version: The prompt's; another one starts afresh.
        run: The current run, if any.
        free_us: No event opens before this time: the cooldown of the last one.
    """

    version: int
    run: Run | None = None
    free_us: int = NEVER_US


@dataclass(frozen=True, slots=True)
class StreamState:
    """What is remembered of a stream. A value: `advance` gives the next one.

    Attributes:
        watermark_us: Start of the last tracked window.
        prompts: By prompt id; idle ones are left out.
    """

    watermark_us: int = NEVER_US
    prompts: Mapping[str, PromptState] = field(default_factory=dict)


def to_document(state: StreamState) -> dict[str, Any]:
    """The state as JSON can hold it. Tuples are not copied: of a busy stream this is made with every commit."""
    return {"version": VERSION, **_plain(state)}


def _plain(value: Any) -> Any:
    if (names := _FIELDS.get(type(value))) is not None:
        return {name: _plain(getattr(value, name)) for name in names}
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def from_document(document: Mapping[str, Any], stream: str) -> StreamState:
    """The state that `to_document` wrote.

    Raises:
        ContractError: It was written by another version, or by something else.
    """
    version = document.get("version") if isinstance(document, Mapping) else None
    if version != VERSION:
        raise ContractError(
            f"tracker state of stream {stream!r} has version {version!r}, this program reads {VERSION};"
            " let workers of one version own the partition, or delete its partition:N key to start afresh"
        )
    try:
        return _ADAPTER.validate_python({key: value for key, value in document.items() if key != "version"})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ContractError(
            f"tracker state of stream {stream!r} cannot be read: {where}: {first['msg']}; delete its partition:N key to"
            " start afresh"
        ) from error


_ADAPTER: Final = TypeAdapter(StreamState)
_FIELDS: Final = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (StreamState, PromptState, Run, PromptNote, Evidence, Position)
}
