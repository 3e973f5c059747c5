"""``/v1/audit`` and ``/v1/me``: who changed what, and who is asking."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from streamer.api.access import Admin, Anyone, Stores
from streamer.api.problems import responses
from streamer.audit import NEWEST, Change

router = APIRouter(prefix="/v1", tags=["access"])


class AuditQuery(BaseModel):
    """How much of the log."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="At most so many.")
    cursor: str | None = Field(None, pattern=r"^\d{1,15}-\d{1,15}$", description="`next` of the page before.")


class AuditPage(BaseModel):
    """Changes, newest first."""

    items: list[Change]
    next: str | None = Field(description="`cursor` of the next page; null: this is the last.")


class Me(BaseModel):
    """Who is asking, as far as the API knows."""

    id: str = Field(description="The token's id; `local` where no tokens are asked for.")
    name: str
    scopes: list[str] = Field(description="What it may do.")
    streams: str = Field(description="Whose events and pictures it may see.")


@router.get("/audit", responses=responses(401, 403, 422, 429, 503))
def read_audit(_: Admin, site: Stores, query: Annotated[AuditQuery, Query()]) -> AuditPage:
    """Who changed what, newest first."""
    changes = site.audit.read(query.limit, query.cursor or NEWEST)
    return AuditPage(items=list(changes), next=changes[-1].id if len(changes) == query.limit else None)


@router.get("/me", responses=responses(401, 429, 503))
async def read_me(caller: Anyone) -> Me:
    """Who is asking, and what they may do."""
    token = caller.token
    return Me(id=token.id, name=token.name, scopes=list(token.scopes), streams=token.streams.text)
