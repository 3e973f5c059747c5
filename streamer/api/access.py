"""Who asks, and whether they may."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from streamer.api.problems import ProblemError
from streamer.api.site import Site
from streamer.tokens import Token

ANY: Final = ""
_bearer = HTTPBearer(auto_error=False, description="A token of `watchword tokens add`: `ww_...`.")


def site_of(request: Request) -> Site:
    """The stores of the application that a request came to."""
    site: Site = request.app.state.site
    return site


Stores = Annotated[Site, Depends(site_of)]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        token: What they may do, and see.
        address: Where from.
    """

    token: Token
    address: str

    @property
    def who(self) -> str:
        """As the audit log and comments name them."""
        return self.token.name if self.token.id == self.token.name else f"{self.token.name} ({self.token.id})"

    def sees(self, site: Site, stream: str) -> bool:
        """Whether they may see a stream's events and pictures."""
        return self.token.streams.fits(stream, site.labels(stream))

    def must_see(self, site: Site, stream: str, what: str) -> None:
        """Hide that something of another's stream is there.

        Raises:
            ProblemError: They may not see it.
        """
        if not self.sees(site, stream):
            raise ProblemError(404, f"{what}; or its stream is not among those that your token may see")


def allowed(scope: str = ANY) -> Callable[..., Caller]:
    """A dependency that gives the caller, who must have a scope."""

    async def check(request: Request, _: Annotated[object, Depends(_bearer)]) -> Caller:
        token: Token = request.state.caller
        if scope and not token.may(scope):
            has = ", ".join(token.scopes)
            raise ProblemError(
                403, f"token {token.name!r} has no scope {scope!r}, only {has}; make one with `watchword tokens add`"
            )
        return Caller(token, request.client.host if request.client else "unknown")

    return check  # type: ignore[return-value]  # FastAPI awaits it


Anyone = Annotated[Caller, Depends(allowed())]
PromptWriter = Annotated[Caller, Depends(allowed("prompts:write"))]
EventReader = Annotated[Caller, Depends(allowed("events:read"))]
EventWriter = Annotated[Caller, Depends(allowed("events:write"))]
StreamWriter = Annotated[Caller, Depends(allowed("streams:write"))]
Admin = Annotated[Caller, Depends(allowed("admin"))]
