"""``/v1/system``: how the site fares."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from streamer.api.access import EventReader, Stores
from streamer.api.problems import responses

router = APIRouter(prefix="/v1", tags=["system"])


class Feed(BaseModel):
    """The event feed of this API."""

    clients: int = Field(description="Who follow it now.")
    dropped: int = Field(description="Who were too slow, since it started.")


class System(BaseModel):
    """How the site fares."""

    events: dict[str, int] = Field(description="Events that are kept, by state.")
    feed: Feed


@router.get("/system", responses=responses(401, 403, 422, 429, 503))
async def read_system(_: EventReader, site: Stores) -> System:
    """How the site fares."""
    return System(events=site.index.states(), feed=Feed(clients=len(site.hub), dropped=site.hub.dropped))
