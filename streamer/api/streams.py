"""``/v1/streams``: which there are, how they fare, their labels and masks, and ``why``."""

import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from streamer.api.access import Caller, EventReader, Stores, StreamWriter
from streamer.api.bodies import Body, body_of, takes_model
from streamer.api.cameras import CameraStatus, camera_status
from streamer.api.problems import ProblemError, responses
from streamer.api.prompts import version_of
from streamer.api.site import Site
from streamer.api.stream_id import STREAM_ID, StreamId
from streamer.camera_store import Camera
from streamer.events import to_rfc3339
from streamer.prompts import Labels
from streamer.stream_store import EMPTY, Masks
from streamer.why import explain

MAX_PAGE: Final = 1000
_NAME: Final = r"^[^\x00-\x1f]{1,200}$"

router = APIRouter(prefix="/v1/streams", tags=["streams"])
IfMatch = Annotated[str | None, Header(description="The `ETag` of the version that is meant.")]
_TOLD = responses(400, 401, 403, 404, 412, 413, 415, 422, 429, 503)
_SAID = responses(401, 403, 404, 422, 429, 503)


class StreamStatus(BaseModel):
    """How a stream fares, as its worker says."""

    last_frame: str = Field(description="Capture time of its newest picture or sound, RFC 3339.")
    last_frame_age_s: float = Field(description="How long ago that is.")
    rate_hz: float = Field(description="Pictures decoded a second.")
    lag_s: float = Field(description="From capture to tracked, of the newest window.")
    windows: int = Field(description="Windows looked at since its worker started.")
    gaps: int = Field(description="Gaps in its sequence.")
    refused: int = Field(description="Chunks that could not be used.")
    skipped: int = Field(description="Chunks skipped under overload.")
    partition: int = Field(description="Kafka partition.")


class Stream(BaseModel):
    """A stream."""

    id: str
    labels: dict[str, str] = Field(description="Of the settings file and those set here.")
    masks: list[list[tuple[float, float]]] = Field(
        description="Blacked out: those of the settings file, then those set here."
    )
    version: int = Field(description="Of the labels and masks set here; 0: none were.")
    status: StreamStatus | None = Field(description="null: no worker has seen it in the last day.")
    camera: CameraStatus | None = Field(description="null: no camera was registered here under this id.")


class StreamPage(BaseModel):
    """Streams by id."""

    items: list[Stream]
    next: str | None = Field(description="`cursor` of the next page; null: this is the last.")
    total: int = Field(description="How many the caller may see.")


class StreamQuery(BaseModel):
    """How many streams."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(200, ge=1, le=MAX_PAGE, description="At most so many.")
    cursor: str | None = Field(None, pattern=STREAM_ID, description="`next` of the page before.")


class NewMasks(Body):
    """What must not be seen."""

    masks: Masks = Field(description="Polygons of corners `[x, y]`, 0 to 1 of the picture's width and height.")


class NewLabels(Body):
    """What a stream is called."""

    labels: Labels


class NearMiss(BaseModel):
    """A window in which a prompt came near."""

    time: str
    confidence: float
    gate: str


class Why(BaseModel):
    """What kept a prompt from firing on a stream."""

    stream: str
    prompt: str
    best: float = Field(description="The best confidence of the last minutes.")
    threshold: float
    gate: str | None = Field(description="What stopped it; null: nothing, it fired.")
    near_misses: list[NearMiss]
    minutes: int
    explanation: str


@router.get("", responses=responses(401, 403, 422, 429, 503))
def list_streams(caller: EventReader, site: Stores, query: Annotated[StreamQuery, Query()]) -> StreamPage:
    """List streams by id: those that workers have seen, that have a camera, or labels or masks."""
    site.followed.look()
    statuses, cameras = site.board.streams(), site.cameras.load()
    known = sorted({*statuses, *cameras, *site.followed.table.entries})
    visible = [name for name in known if caller.sees(site, name)]
    names = [name for name in visible if query.cursor is None or name > query.cursor]
    page = names[: query.limit]
    fares = site.cameras.statuses([name for name in page if name in cameras])
    items = [_shown(site, name, statuses.get(name), cameras.get(name), fares.get(name)) for name in page]
    return StreamPage(items=items, next=page[-1] if len(names) > len(page) else None, total=len(visible))


@router.get("/{stream}", responses=_SAID)
def read_stream(caller: EventReader, site: Stores, stream: StreamId, response: Response) -> Stream:
    """Read one stream."""
    found = _seen(site, caller, stream)
    response.headers["ETag"] = f'"{found.version}"'
    return found


@router.put(
    "/{stream}/masks",
    responses=_TOLD,
    openapi_extra=takes_model(NewMasks, {"masks": [[[0, 0], [0.3, 0], [0.3, 0.2], [0, 0.2]]]}),
)
def set_masks(
    caller: StreamWriter,
    site: Stores,
    stream: StreamId,
    new: Annotated[NewMasks, Depends(body_of(NewMasks))],
    response: Response,
    if_match: IfMatch = None,
) -> Stream:
    """Black out parts of a stream's picture, in every worker within a second."""
    return _set(site, caller, stream, response, if_match, f"{len(new.masks)} masks", masks=new.masks)


@router.put("/{stream}/labels", responses=_TOLD, openapi_extra=takes_model(NewLabels, {"labels": {"site": "north"}}))
def set_labels(
    caller: StreamWriter,
    site: Stores,
    stream: StreamId,
    new: Annotated[NewLabels, Depends(body_of(NewLabels))],
    response: Response,
    if_match: IfMatch = None,
) -> Stream:
    """Label a stream; prompts and tokens that select by label follow within a second."""
    if not caller.token.streams.fits(stream, {**site.settings.stream(stream).labels, **new.labels}):
        raise ProblemError(403, f"with these labels your token would not see stream {stream!r}; keep those it needs")
    return _set(site, caller, stream, response, if_match, f"{len(new.labels)} labels", labels=new.labels)


@router.get("/{stream}/live", responses=_SAID)
def read_live(caller: EventReader, site: Stores, stream: StreamId) -> dict[str, float]:
    """The latest confidence of each prompt; of very many those nearest to their thresholds."""
    caller.must_see(site, stream, f"there is no stream {stream!r}")
    return site.board.confidences(stream)


@router.get("/{stream}/why/{prompt}", responses=_SAID, response_model=Why)
def read_why(
    caller: EventReader,
    site: Stores,
    stream: StreamId,
    prompt: Annotated[str, Path(pattern=_NAME, description="A prompt's id, or its text.")],
) -> dict[str, Any]:
    """What kept a prompt from firing on a stream in the last ten minutes."""
    caller.must_see(site, stream, f"no worker has seen a stream {stream!r}")
    prompts = tuple(site.shelf.contents().prompts.values())
    return explain(site.board, prompts, stream, prompt, site.followed.of(stream).masks, time.time_ns() // 1000)


def _set(
    site: Site, caller: Caller, stream: str, response: Response, if_match: str | None, what: str, **new: Any
) -> Stream:
    caller.must_see(site, stream, f"there is no stream {stream!r}")
    version = None if if_match is None else version_of(if_match, f"stream {stream!r}")
    entry = site.streams.set(stream, expected_version=version, **new)
    site.audit.write(caller.who, caller.address, "stream.update", stream, f"version {entry.version}: {what}")
    response.headers["ETag"] = f'"{entry.version}"'
    return read_one(site, stream)


def _seen(site: Site, caller: Caller, stream: str) -> Stream:
    missing = f"there is no stream {stream!r}"
    found = read_one(site, stream)
    if found.status is None and found.camera is None and not found.version:
        raise ProblemError(404, f"{missing}; GET /v1/streams lists those that are there")
    caller.must_see(site, stream, missing)
    return found


def read_one(site: Site, stream: str) -> Stream:
    """A stream as it is now."""
    site.followed.look()
    status, camera = site.board.stream(stream), site.cameras.load().get(stream)
    fares = site.cameras.statuses([stream]) if camera is not None else {}
    return _shown(site, stream, status, camera, fares.get(stream))


def _shown(
    site: Site,
    name: str,
    status: Mapping[str, str] | None,
    camera: Camera | None,
    fares: Mapping[str, Any] | None,
) -> Stream:
    known, entry = site.followed.of(name), site.followed.table.entries.get(name, EMPTY)
    return Stream(
        id=name,
        labels=dict(known.labels),
        masks=[list(mask) for mask in known.masks],
        version=entry.version,
        status=None if not status else _status(status),
        camera=None if camera is None else camera_status(camera, fares or {"state": "unread"}),
    )


def _status(status: Mapping[str, str]) -> StreamStatus:
    last_us = int(status["last_frame_us"])
    return StreamStatus(
        last_frame=to_rfc3339(last_us),
        last_frame_age_s=round(max(0.0, time.time() - last_us / 1e6), 3),
        rate_hz=float(status["rate_hz"]),
        lag_s=float(status["lag_s"]),
        **{name: int(status[name]) for name in ("windows", "gaps", "refused", "skipped", "partition")},
    )
