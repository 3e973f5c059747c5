"""Cameras that are registered by their address: ``POST /v1/streams``, ``DELETE /v1/streams/{id}/camera``."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from streamer.api.access import Stores, StreamWriter
from streamer.api.bodies import Body, body_of, takes_model
from streamer.api.problems import ProblemError, responses
from streamer.api.stream_id import STREAM_ID, StreamId
from streamer.camera_store import Camera
from streamer.events import to_rfc3339
from streamer.ingest.redact import redact
from streamer.ingest.spec import SCHEMES, name_for
from streamer.prompts import Labels
from streamer.ssrf import check_url, parse_networks

router = APIRouter(prefix="/v1/streams", tags=["streams"])


class CameraStatus(BaseModel):
    """A camera that was registered here."""

    source: str = Field(description="Its address, without credentials.")
    created: str = Field(description="When it was registered.")
    by: str = Field(description="Who registered it.")
    state: str = Field(
        description="`connecting`, `reading`, `waiting` (lost, tried again), `failed`, `refused` (its address may not"
        " be reached) or `unread`: nobody reads it, start `watchword ingest --managed`."
    )
    reconnects: int = Field(description="Times it was opened again.")
    errors: int = Field(description="Failures.")
    dropped: int = Field(description="Chunks given up.")
    last_error: str = Field(description="The newest failure; empty: none.")


class Registered(BaseModel):
    """A camera that was just registered."""

    id: str = Field(description="Its stream id.")
    camera: CameraStatus


class NewCamera(Body):
    """A camera to read."""

    url: str = Field(
        max_length=2048, description="`rtsp://`, `rtsps://`, `http://` or `https://`; may hold a password."
    )
    id: str | None = Field(None, pattern=STREAM_ID, description="Stream id; made from the address when absent.")
    labels: Labels = Field({}, description="For prompts and tokens that select by label.")


@router.post(
    "",
    status_code=201,
    responses=responses(400, 401, 403, 409, 413, 415, 422, 429, 503),
    openapi_extra=takes_model(NewCamera, {"id": "yard-1", "url": "rtsp://user:password@camera.example/stream"}),
)
def add_camera(
    caller: StreamWriter, site: Stores, new: Annotated[NewCamera, Depends(body_of(NewCamera))], response: Response
) -> Registered:
    """Register a camera by its address; it is read within a second or two, and goes on until it is removed."""
    check_url(new.url, SCHEMES, parse_networks(site.settings.api.allowed_networks))
    name = new.id or name_for(new.url, site.cameras.load().keys())
    if not caller.token.streams.fits(name, {**site.labels(name), **new.labels}):
        raise ProblemError(403, f"stream {name!r} would not be among those that your token may see; choose another id")
    camera = Camera(new.url, to_rfc3339(time.time_ns() // 1000), caller.who)
    site.cameras.add(name, camera)
    if new.labels:
        site.streams.set(name, labels=new.labels)
    site.audit.write(caller.who, caller.address, "camera.add", name, redact(new.url))
    response.headers["Location"] = f"/v1/streams/{name}"
    return Registered(id=name, camera=camera_status(camera, {"state": "unread"}))


@router.delete(
    "/{stream}/camera", status_code=204, responses=responses(401, 403, 404, 422, 429, 503), response_class=Response
)
def remove_camera(caller: StreamWriter, site: Stores, stream: StreamId) -> Response:
    """Cease to read a camera. Its labels and masks stay, should it come back."""
    caller.must_see(site, stream, f"there is no stream {stream!r}")
    site.cameras.remove(stream)
    site.audit.write(caller.who, caller.address, "camera.remove", stream)
    return Response(status_code=204)


def camera_status(camera: Camera, fares: Mapping[str, Any]) -> CameraStatus:
    """A camera as it is shown, never with its password."""
    counts = {name: int(fares.get(name, 0)) for name in ("reconnects", "errors", "dropped")}
    return CameraStatus(
        source=redact(camera.url),
        created=camera.created,
        by=camera.by,
        state=str(fares["state"]),
        last_error=str(fares.get("last_error", "")),
        **counts,
    )
