"""Request bodies: read here and nowhere else, so that whatever is wrong with one is said the same way."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Final, NoReturn, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from streamer.api.problems import ProblemError, refused

M = TypeVar("M", bound=BaseModel)
Document = dict[str, Any]
JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
REF: Final = "#/components/schemas/{model}"


class Body(BaseModel):
    """What a request may hold; nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def content_type(request: Request) -> str:
    """Of the request, without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def must_be(request: Request, *types: str) -> str:
    """The content type, one of ``types``.

    Raises:
        ProblemError: It is another.
    """
    found = content_type(request)
    if found not in types:
        raise ProblemError(415, f"content type {found[:80]!r} is not taken here; send {' or '.join(types)}")
    return found


async def read_text(request: Request) -> str:
    """The body.

    Raises:
        ProblemError: It is not UTF-8.
    """
    raw = await request.body()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemError(400, f"the body is not UTF-8: byte {error.start} is wrong; encode it as UTF-8") from error


def parse_json(text: str) -> Any:
    """A JSON document.

    Raises:
        ProblemError: It is none.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ProblemError(400, f"the body is not JSON: {error.msg} at {where}; send one JSON document") from error
    except RecursionError as error:
        raise ProblemError(400, "the body is nested too deeply; send a flatter document") from error
    except ValueError as error:
        raise ProblemError(400, f"the body is not JSON: {error}") from error


async def json_document(request: Request) -> Document:
    """The JSON object in the body."""
    must_be(request, JSON, MERGE_PATCH)
    document = parse_json(await read_text(request))
    if not isinstance(document, dict):
        raise ProblemError(422, f"the body is a JSON {_kind(document)}; an object with keys is expected")
    return document


AnyDocument = Annotated[Document, Depends(json_document)]


def body_of(model: type[M]) -> Callable[..., M]:
    """A dependency that gives the body as a model."""

    async def read(document: AnyDocument) -> M:
        try:
            return model.model_validate_json(json.dumps(document))
        except ValidationError as error:
            raise refused(error.errors(include_url=False), "body") from error

    return read  # type: ignore[return-value]  # FastAPI awaits it


def takes(schema: dict[str, Any], *types: str, example: Any = None) -> dict[str, Any]:
    """What the OpenAPI document says of a body, whose ``schema`` has a title."""
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": True, "content": dict.fromkeys(types or (JSON,), content)}}


def takes_model(model: type[BaseModel], example: Any = None) -> dict[str, Any]:
    """The same for a model."""
    return takes(model.model_json_schema(ref_template=REF), example=example)


def hoist_bodies(document: dict[str, Any]) -> None:
    """Move the schemas of bodies to the components of an OpenAPI document, each under its title."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for operations in document["paths"].values():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                own = dict(content.get("schema", {}))
                if "title" in own:
                    schemas |= own.pop("$defs", {})
                    schemas[own["title"]] = own
                    content["schema"] = {"$ref": REF.format(model=own["title"])}


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON; leave it out or send null")


def _kind(document: object) -> str:
    match document:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case list():
            return "array"
    return "number"
