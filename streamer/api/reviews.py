"""What people say of events: ``/v1/events/{id}/acknowledge``, ``mark`` and ``comments``."""

import time
import unicodedata
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import AfterValidator, Field

from streamer.api.access import Caller, EventWriter, Stores
from streamer.api.bodies import Body, body_of, takes_model
from streamer.api.events import EventId, event_of
from streamer.api.problems import ProblemError, responses
from streamer.api.site import Site
from streamer.errors import UnavailableError, WatchwordError
from streamer.reviews import MAX_COMMENT, Comment, Review

router = APIRouter(prefix="/v1/events/{event_id}", tags=["events"])


def _prose(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty; say something")
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" for char in text):
        raise ValueError("it holds a control character; leave it out")
    return text.strip()


class NewMark(Body):
    """Whether it was what the prompt means."""

    verdict: Literal["right", "wrong"] = Field(description="`right`: it was; `wrong`: a false alarm.")


class NewComment(Body):
    """Something to say of an event."""

    text: Annotated[str, AfterValidator(_prose)] = Field(
        min_length=1, max_length=MAX_COMMENT, description="Plain text; may have several lines."
    )


_SAID = responses(401, 403, 404, 422, 429, 503)
_TOLD = responses(400, 401, 403, 404, 413, 415, 422, 429, 503)


@router.put("/acknowledge", responses=_SAID)
def acknowledge(caller: EventWriter, site: Stores, event_id: EventId) -> Review:
    """Say that somebody sees to it; the first who says so stands."""
    event_of(site, caller, event_id)
    site.reviews.acknowledge(event_id, caller.who, _now_us())
    return _told(site, caller, event_id, "event.acknowledge")


@router.delete("/acknowledge", responses=_SAID)
def take_back_acknowledge(caller: EventWriter, site: Stores, event_id: EventId) -> Review:
    """As if nobody had seen to it."""
    event_of(site, caller, event_id)
    site.reviews.take_back(event_id, "acknowledged")
    return _told(site, caller, event_id, "event.acknowledge", "taken back")


@router.put("/mark", responses=_TOLD, openapi_extra=takes_model(NewMark, {"verdict": "wrong"}))
def mark(
    caller: EventWriter, site: Stores, event_id: EventId, said: Annotated[NewMark, Depends(body_of(NewMark))]
) -> Review:
    """Mark an event right or wrong; the last who says so stands."""
    event_of(site, caller, event_id)
    site.reviews.mark(event_id, said.verdict, caller.who, _now_us())
    return _told(site, caller, event_id, "event.mark", said.verdict)


@router.delete("/mark", responses=_SAID)
def take_back_mark(caller: EventWriter, site: Stores, event_id: EventId) -> Review:
    """Take a mark back."""
    event_of(site, caller, event_id)
    site.reviews.take_back(event_id, "mark")
    return _told(site, caller, event_id, "event.mark", "taken back")


@router.post(
    "/comments",
    status_code=201,
    responses={**_TOLD, **responses(409)},
    openapi_extra=takes_model(NewComment, {"text": "the gardener burns leaves"}),
)
def comment(
    caller: EventWriter, site: Stores, event_id: EventId, said: Annotated[NewComment, Depends(body_of(NewComment))]
) -> Comment:
    """Say something of an event."""
    event_of(site, caller, event_id)
    try:
        made = site.reviews.comment(event_id, said.text, caller.who, _now_us())
    except UnavailableError:
        raise
    except WatchwordError as error:
        raise ProblemError(409, str(error)) from error
    site.audit.write(caller.who, caller.address, "event.comment", event_id, f"comment {made.number}")
    return made


def _told(site: Site, caller: Caller, event_id: str, action: str, detail: str = "") -> Review:
    site.audit.write(caller.who, caller.address, action, event_id, detail)
    return site.reviews.get([event_id])[0]


def _now_us() -> int:
    return time.time_ns() // 1000
