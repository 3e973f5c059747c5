"""``/v1/events``: what was seen and heard, as pages and as a feed."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from fnmatch import translate
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from streamer.api.access import Caller, EventReader, Stores
from streamer.api.bodies import JSON
from streamer.api.event_index import Found, Wanted
from streamer.api.feed import FeedResponse, lost, order_of
from streamer.api.problems import ProblemError, responses
from streamer.api.site import Site
from streamer.errors import ContractError
from streamer.event_log import Entry
from streamer.events import Event, from_rfc3339
from streamer.overlay import draw_attention
from streamer.reviews import Review

MAX_PAGE: Final = 500
_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CURSOR: Final = r"^-?\d{1,17}-[0-9a-f]{16}$"
_ENTRY: Final = r"^\d{1,15}(-\d{1,15})?$"
_GLOB: Final = r"^[a-z0-9._*?\[\]!-]{1,128}$"

router = APIRouter(prefix="/v1/events", tags=["events"])
EventId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="The event's id.", examples=["1f0c8e5b2a7d4c93"])]
Glob = Annotated[str, Field(pattern=_GLOB)]
Severity = Literal["info", "warning", "critical"]
State = Literal["open", "update", "closed"]


class Filter(BaseModel):
    """Which events."""

    model_config = ConfigDict(extra="forbid")

    stream: list[Glob] = Field([], max_length=64, description="Only of these streams; globs. May be repeated.")
    prompt: list[Glob] = Field([], max_length=64, description="Only of these prompts; globs. May be repeated.")
    severity: list[Severity] = Field([], max_length=3, description="Only of these severities. May be repeated.")
    state: list[State] = Field([], max_length=3, description="Only in these states. May be repeated.")


class EventQuery(Filter):
    """Which events, and how many."""

    since: str | None = Field(
        None, max_length=40, description="Began then or later: a time (RFC 3339), or how long ago: 30s, 10m, 2h, 7d."
    )
    until: str | None = Field(None, max_length=40, description="Began before: likewise.")
    limit: int = Field(50, ge=1, le=MAX_PAGE, description="At most so many.")
    cursor: str | None = Field(None, pattern=_CURSOR, description="`next` of the page before.")


class FeedQuery(Filter):
    """Which events, and from where on."""

    last_event_id: str | None = Field(
        None, pattern=_ENTRY, description="The same as the header `Last-Event-ID`, which counts if both are there."
    )


class ReviewedEvent(Event):
    """An event in its latest state, and what people said of it."""

    review: Review = Field(description="Acknowledged by whom, marked right or wrong, comments.")


class EventPage(BaseModel):
    """Events, the newest start first."""

    items: list[ReviewedEvent]
    next: str | None = Field(description="`cursor` of the next page; null: this is the last.")
    total: int = Field(description="How many fit in all.")


@router.get("", responses=responses(401, 403, 422, 429, 503), response_model=EventPage)
def list_events(caller: EventReader, site: Stores, query: Annotated[EventQuery, Query()]) -> Response:
    """List events in their latest state, the newest first, a page at a time."""
    must_be_ready(site)
    found, events = _page(site, _wanted(caller, site, query), query.limit)
    reviews = site.reviews.get([event.id for event in events])
    items = ",".join(reviewed(event, review) for event, review in zip(events, reviews, strict=True))
    following = "null"
    if len(found.keys) > query.limit:
        start_us, event_id = found.keys[query.limit - 1]
        following = f'"{start_us}-{event_id}"'
    return Response(f'{{"items":[{items}],"next":{following},"total":{found.total}}}', media_type=JSON)


@router.get(
    "/feed",
    responses={
        **responses(401, 403, 422, 429, 503),
        200: {
            "description": "Server-sent events: `data` is an event document, `id` the place to resume from.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
    },
    response_class=Response,
)
async def feed(
    caller: EventReader,
    site: Stores,
    query: Annotated[FeedQuery, Query()],
    last_event_id: Annotated[str | None, Header(pattern=_ENTRY, description="Go on after this.")] = None,
) -> Response:
    """Every change of an event's state as it comes, after what was missed since `Last-Event-ID`."""
    must_be_ready(site)
    if len(site.hub) >= site.settings.api.max_feeds:
        raise ProblemError(
            503,
            f"{len(site.hub)} clients follow the feed already (api.max_feeds); try again",
            headers={"Retry-After": "5"},
        )
    return FeedResponse(_follow(caller, site, query, last_event_id or query.last_event_id))


@router.get("/{event_id}", responses=responses(401, 403, 404, 422, 429, 503), response_model=ReviewedEvent)
def read_event(caller: EventReader, site: Stores, event_id: EventId) -> Response:
    """Read one event in its latest state."""
    event = event_of(site, caller, event_id)
    return Response(reviewed(event, site.reviews.get([event_id])[0]), media_type=JSON)


@router.get(
    "/{event_id}/snapshot",
    responses={
        **responses(401, 403, 404, 422, 429, 503),
        200: {"description": "The picture, with the region drawn.", "content": {"image/jpeg": {}}},
    },
    response_class=Response,
)
def read_snapshot(caller: EventReader, site: Stores, event_id: EventId) -> Response:
    """The picture of an event, with the region drawn on it."""
    event = event_of(site, caller, event_id)
    return Response(snapshot_of(site, event), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})


@router.get(
    "/{event_id}/evidence",
    responses={
        **responses(401, 403, 404, 422, 429, 503),
        200: {"description": "The picture, coloured by attention.", "content": {"image/png": {}, "image/jpeg": {}}},
    },
    response_class=Response,
)
def read_evidence(
    caller: EventReader,
    site: Stores,
    event_id: EventId,
    form: Annotated[Literal["png", "jpeg"], Query(alias="format", description="What to write.")] = "jpeg",
) -> Response:
    """Where the prompt looked, drawn over the picture."""
    event = event_of(site, caller, event_id)
    if event.evidence is None or not event.evidence.attention:
        raise ProblemError(404, f"event {event_id} has no attention to show: only sound matched, or the camera itself")
    try:
        drawn = draw_attention(snapshot_of(site, event), event.evidence.attention, form)
    except ContractError as error:
        raise ProblemError(404, f"{error}; there is nothing to draw on") from error
    return Response(drawn, media_type=f"image/{form}", headers={"Cache-Control": "private, max-age=60"})


def must_be_ready(site: Site) -> None:
    """Refuse while the index does not hold everything.

    Raises:
        ProblemError: It does not.
    """
    reason = site.reader.why_not_ready
    if reason is not None:
        raise ProblemError(503, reason, headers={"Retry-After": "1"})


def event_of(site: Site, caller: Caller, event_id: str) -> Event:
    """An event that the caller may see.

    Raises:
        ProblemError: There is none.
    """
    missing = f"there is no event {event_id!r}, or it was forgotten by now"
    event = site.log.get(event_id)
    if event is None:
        raise ProblemError(404, f"{missing}; GET /v1/events lists those that are there")
    caller.must_see(site, event.stream, missing)
    return event


def snapshot_of(site: Site, event: Event) -> bytes:
    """Its JPEG.

    Raises:
        ProblemError: There is none.
    """
    jpeg = site.log.snapshot(event.id)
    if jpeg is None:
        kept_s = site.settings.events.snapshot_ttl_s
        raise ProblemError(
            404,
            f"event {event.id} has no picture: only sound matched, or it is older than {kept_s} s"
            " (events.snapshot_ttl_s)",
        )
    return jpeg


def reviewed(event: Event, review: Review) -> str:
    """The document of `ReviewedEvent`."""
    said = ReviewedEvent.model_construct(review=review).model_dump_json(include={"review"})
    return f"{event.to_json()[:-1]},{said[1:]}"


def _page(site: Site, wanted: Wanted, limit: int) -> tuple[Found, Sequence[Event]]:
    """Keys of one more than the page, and the events of the page; what is gone is forgotten on the way."""
    while True:
        found = site.index.find(wanted, limit + 1)
        ids = [event_id for _, event_id in found.keys[:limit]]
        events = site.log.latest(ids)
        gone = set(ids) - {event.id for event in events}
        if not gone:
            return found, events
        site.index.drop(gone)


def _wanted(caller: Caller, site: Site, query: EventQuery) -> Wanted:
    before = None
    if query.cursor is not None:
        start, _, event_id = query.cursor.rpartition("-")
        before = (int(start), event_id)
    return Wanted(
        since_us=_moment(query.since, "since"),
        until_us=_moment(query.until, "until"),
        stream=_seen_stream(caller, site, query.stream),
        prompt=_any_glob(query.prompt),
        severities=frozenset(query.severity),
        states=frozenset(query.state),
        before=before,
    )


def _seen_stream(caller: Caller, site: Site, globs: Sequence[str]) -> Callable[[str], bool] | None:
    chosen = _any_glob(globs)
    if caller.token.streams.text == "*":
        return chosen
    return lambda stream: caller.sees(site, stream) and (chosen is None or chosen(stream))


def _any_glob(globs: Sequence[str]) -> Callable[[str], bool] | None:
    if not globs:
        return None
    compiled = re.compile("|".join(translate(glob) for glob in globs))
    return lambda name: compiled.match(name) is not None


def _moment(text: str | None, name: str) -> int | None:
    """Microseconds since 1970 UTC, of a time or of how long ago it was."""
    if text is None:
        return None
    said = text.strip()
    if match := _AGO.fullmatch(said):
        return round((time.time() - float(match[1]) * _UNIT_S[match[2]]) * 1e6)
    try:
        return from_rfc3339(re.sub(r" (\d\d:\d\d)$", r"+\1", said))  # a + in a query is a space
    except (ValueError, OverflowError) as error:
        what = f"{text!r} is neither a time like 2026-11-24T12:00:00Z nor how long ago it was, like 10m"
        raise ProblemError(422, f"{name}: {what}", [(f"query/{name}", what)]) from error


async def _follow(caller: Caller, site: Site, query: FeedQuery, last_id: str | None) -> AsyncIterator[bytes]:
    stream, prompt = _seen_stream(caller, site, query.stream), _any_glob(query.prompt)
    severities, states = frozenset(query.severity), frozenset(query.state)

    def accepts(entry: Entry) -> bool:
        event = entry.event
        return (
            (not severities or event.severity in severities)
            and (not states or event.state in states)
            and (prompt is None or prompt(event.prompt.id))
            and (stream is None or stream(event.stream))
        )

    def read(after: str) -> "asyncio.Future[tuple[str, Sequence[Entry]]]":
        return asyncio.ensure_future(run_in_threadpool(site.log.read, after))

    if last_id is not None:
        oldest = await run_in_threadpool(site.log.first_id)
        if order_of(last_id) < order_of(oldest) and order_of(last_id) != (0, 0):
            yield lost()
    async for block in site.hub.follow(last_id, accepts, read, site.settings.api.feed_ping_s):
        yield block
