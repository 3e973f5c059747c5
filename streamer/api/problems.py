"""Errors as RFC 9457 problem details: what is wrong, where, and what to do."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from streamer.errors import (
    ChangedError,
    ContractError,
    ExistsError,
    MissingError,
    ModelError,
    PromptError,
    SettingsError,
    UnavailableError,
    UsageError,
    WatchwordError,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_S: Final = 2
_MAX_SHOWN: Final = 120
_log = structlog.get_logger(__name__)
_KEY = re.compile(r"([a-z_]+)((?:\[[\w-]+\])*)(?: = | is missing)")
_STATUSES: Final = (  # the first that fits
    (MissingError, 404),
    (ExistsError, 409),
    (ChangedError, 412),
    (PromptError, 422),
    (SettingsError, 422),
    (UsageError, 422),
    (ContractError, 500),
    (ModelError, 500),
    (WatchwordError, 404),
)
_TITLES: Final[Mapping[int, str]] = {
    400: "The request cannot be read",
    401: "A token is needed",
    403: "The token may not do this",
    404: "There is no such thing",
    405: "The method is not allowed here",
    406: "It cannot be had in this form",
    409: "It contradicts what is there",
    412: "It was changed meanwhile",
    413: "The request is too large",
    415: "The content type is not understood",
    421: "The request is for another host",
    422: "A value is refused",
    428: "Say which version you mean",
    429: "Too many requests",
    500: "Something unforeseen failed",
    503: "A server is away",
}


class ProblemPart(BaseModel):
    """One thing that is wrong."""

    where: str = Field(description="`body/KEY`, `query/NAME`, `path/NAME` or `header/NAME`.")
    detail: str = Field(description="What is wrong with it and what is allowed.")


class Problem(BaseModel):
    """Why a request failed (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    type: str = Field(description="What kind of problem: `urn:watchword:problem:STATUS`.")
    title: str = Field(description="The same for all problems of a kind.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, where, and what to do.")
    instance: str = Field(description="The path that was asked for.")
    errors: list[ProblemPart] = Field(description="Each thing that is wrong, where there may be several.")


class ProblemError(Exception):
    """Ends a request with a problem.

    Args:
        status: HTTP status.
        detail: What is wrong, where, and what to do.
        errors: Pairs of where and what.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of problems."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": _TITLES[status], "content": {MEDIA_TYPE: schema}} for status in sorted(statuses)}


def render(problem: ProblemError, path: str) -> Response:
    """A problem as an answer."""
    document = {
        "type": f"urn:watchword:problem:{problem.status}",
        "title": _TITLES.get(problem.status, "The request failed"),
        "status": problem.status,
        "detail": problem.detail,
        "instance": path,
        "errors": [{"where": where, "detail": detail} for where, detail in problem.errors],
    }
    body = json.dumps(document).encode()  # ASCII only: whatever the request held, this can be written
    return Response(body, problem.status, problem.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> ProblemError:
    """What an error means to a client."""
    match error:
        case ProblemError():
            return error
        case RequestValidationError():
            return _invalid(error.errors())
        case HTTPException():
            return _of_framework(error)
        case UnavailableError():
            _log.warning("api cannot answer", reason=str(error))
            return ProblemError(503, f"{error}; try again", headers={"Retry-After": str(RETRY_S)})
        case WatchwordError():
            return ProblemError(_status(error), _first_lines(str(error)), _places(error))
    _log.error("api failed", error=type(error).__name__, exc_info=error)
    return ProblemError(500, "the server failed; its log says why. Please report it with what was asked")


def _status(error: WatchwordError) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def set_up_problems(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Answer every error with a problem; ``routes`` are those of the application."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            return render(_wrong_method(routes, request), request.url.path)
        return render(problem_of(error), request.url.path)

    for kind in (ProblemError, RequestValidationError, HTTPException, WatchwordError, Exception):
        app.add_exception_handler(kind, answer)


def refused(problems: Sequence[Mapping[str, Any]], where: str) -> ProblemError:
    """A problem made of pydantic's findings in a document that was read from ``where``."""
    return _invalid([{**problem, "loc": (where, *problem["loc"])} for problem in problems])


def _invalid(problems: Sequence[Mapping[str, Any]]) -> ProblemError:
    parts = [("/".join(str(step) for step in problem["loc"]), _said(problem)) for problem in problems]
    listed = "; ".join(f"{where}: {said}" for where, said in parts[:5])
    more = f"; and {len(parts) - 5} more" if len(parts) > 5 else ""
    return ProblemError(422, f"refused: {listed}{more}", parts)


def _said(problem: Mapping[str, Any]) -> str:
    """In our words where pydantic's say too little."""
    shown = repr(problem.get("input"))
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 3]}..."
    reason = str(problem["msg"]).removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            return "it is unknown here; leave it out, or check its spelling in /v1/openapi.json"
        case "missing":
            return "it is missing; give it"
    return f"{shown} is refused: {reason}"


def _places(error: WatchwordError) -> list[tuple[str, str]]:
    return [_place(problem) for problem in getattr(error, "problems", ())]


def _place(problem: str) -> tuple[str, str]:
    """Where a refused key of a prompt stands: its name begins the sentence."""
    match = _KEY.match(problem)
    if match is None:
        return "body", problem
    steps = re.findall(r"\[([\w-]+)\]", match[2])
    numbered = (str(int(step) - 1) if step.isdecimal() else step for step in steps)
    return "/".join(("body", match[1], *numbered)), problem


def _first_lines(text: str) -> str:
    return " ".join(text.splitlines()[:3])


def _of_framework(error: HTTPException) -> ProblemError:
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return ProblemError(404, "there is nothing at this path; /v1/openapi.json lists all paths", headers=headers)
    return ProblemError(error.status_code, f"{error.detail}; see /v1/openapi.json", headers=headers)


def _wrong_method(routes: Sequence[APIRoute], request: Request) -> ProblemError:
    """With the methods of every route at this path, not of the first alone."""
    fitting = [route for route in routes if route.path_regex.match(request.url.path)]
    allowed = ", ".join(sorted(method for route in fitting for method in route.methods or ()))
    return ProblemError(
        405,
        f"{request.method} is not for this path, which takes {allowed}; see /v1/openapi.json",
        headers={"Allow": allowed},
    )
