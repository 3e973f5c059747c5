"""``/v1/prompts``: standing prompts, with versions against lost updates."""

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from streamer.api.access import Anyone, Caller, PromptWriter, Stores
from streamer.api.bodies import JSON, MERGE_PATCH, REF, AnyDocument, Document, must_be, read_text, takes
from streamer.api.problems import ProblemError, responses
from streamer.api.site import Site
from streamer.prompt_files import format_documents, parse_documents
from streamer.prompts import Prompt

YAML: Final = "application/yaml"
MAX_PAGE: Final = 1000
EXAMPLE: Final = {"text": "a person lying on the floor", "min_duration": "5s", "severity": "critical"}
_ETAG = re.compile(r'(?:W/)?"(\d{1,15})"|(\d{1,15})')
_ID: Final = "^[a-z0-9][a-z0-9-]{0,62}$"

router = APIRouter(prefix="/v1", tags=["prompts"])
PromptId = Annotated[str, Path(pattern=_ID, description="The prompt's id.", examples=["fire"])]
IfMatch = Annotated[
    str | None,
    Header(description='The `ETag` of the version that is meant, such as `"3"`; `*`: whatever is there.'),
]


class PromptQuery(BaseModel):
    """Which prompts, and how many."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=MAX_PAGE, description="At most so many.")
    cursor: str | None = Field(None, pattern=_ID, description="`next` of the page before.")
    q: str | None = Field(None, max_length=200, description="Only those whose id or text holds this.")
    enabled: bool | None = Field(None, description="Only those that are, or are not, watched for.")
    severity: Literal["info", "warning", "critical"] | None = Field(None, description="Only of this severity.")


class PromptPage(BaseModel):
    """Prompts by id."""

    items: list[Prompt]
    next: str | None = Field(description="`cursor` of the next page; null: this is the last.")
    total: int = Field(description="How many fit in all.")


class Imported(BaseModel):
    """What an import did, by id."""

    added: list[str]
    updated: list[str]
    unchanged: list[str]


def prompt_schema(title: str, *, is_patch: bool) -> dict[str, Any]:
    """What a client may send: `Prompt` without what the store sets, and for a patch with nothing required."""
    schema = Prompt.model_json_schema(ref_template=REF)
    keys = {key: value for key, value in schema["properties"].items() if key != "version"}
    if is_patch:
        keys = {key: {"anyOf": [value, {"type": "null"}]} for key, value in keys.items() if key != "id"}
    description = (
        "Changes by key; null: back to the default. A value is replaced as a whole."
        if is_patch
        else "A prompt. Only `text` is needed; without `id` one is made from it."
    )
    return schema | {
        "title": title,
        "description": description,
        "properties": keys,
        "required": [] if is_patch else ["text"],
    }


@router.get("/prompts", responses=responses(401, 422, 429, 503), response_model=PromptPage)
def list_prompts(_: Anyone, site: Stores, query: Annotated[PromptQuery, Query()]) -> Response:
    """List prompts by id, a page at a time."""
    prompts = site.shelf.contents().prompts
    fitting = [prompt for prompt in prompts.values() if _fits(prompt, query)]
    first = 0 if query.cursor is None else bisect_right(fitting, query.cursor, key=lambda prompt: prompt.id)
    page = fitting[first : first + query.limit]
    following = f'"{page[-1].id}"' if first + query.limit < len(fitting) else "null"
    items = ",".join(prompt.model_dump_json() for prompt in page)
    return Response(f'{{"items":[{items}],"next":{following},"total":{len(fitting)}}}', media_type=JSON)


@router.post(
    "/prompts",
    status_code=201,
    responses=responses(400, 401, 403, 409, 413, 415, 422, 429, 503),
    response_model=Prompt,
    openapi_extra=takes(prompt_schema("NewPrompt", is_patch=False), example=EXAMPLE),
)
def add_prompt(caller: PromptWriter, site: Stores, document: AnyDocument) -> Response:
    """Add a prompt; workers watch for it within a second."""
    prompt = site.prompts.add(document)
    _note(site, caller, "prompt.add", prompt)
    return _answer(prompt, 201, {"Location": f"/v1/prompts/{prompt.id}"})


@router.post(
    "/prompts/import",
    responses=responses(400, 401, 403, 413, 415, 422, 429, 503),
    response_model=Imported,
    openapi_extra=takes(
        {
            "title": "PromptFile",
            "description": "A list of prompts, a mapping from id to prompt, `{prompts: [...]}` or one prompt.",
            "anyOf": [{"type": "array"}, {"type": "object"}],
        },
        JSON,
        YAML,
        example=[EXAMPLE],
    ),
)
async def import_prompts(caller: PromptWriter, site: Stores, request: Request) -> Imported:
    """Add or replace the prompts of a JSON or YAML file: all of them or, if one is refused, none."""
    must_be(request, JSON, YAML)
    text = await read_text(request)

    def work() -> Imported:
        done = site.prompts.import_many(parse_documents(text, "the body"))
        counts = f"{len(done.added)} added, {len(done.updated)} updated"
        site.audit.write(caller.who, caller.address, "prompt.import", "", counts)
        return Imported.model_validate({key: list(ids) for key, ids in asdict(done).items()})

    return await run_in_threadpool(work)


@router.get(
    "/prompts.{form}",
    responses={
        **responses(401, 422, 429, 503),
        200: {"description": "All prompts, as `import` takes them.", "content": {JSON: {}, YAML: {}}},
    },
    response_class=Response,
)
def export_prompts(_: Anyone, site: Stores, form: Annotated[Literal["json", "yaml"], Path()]) -> Response:
    """Write all prompts as a file."""
    documents = site.prompts.export()
    text = format_documents(documents, as_json=form == "json")
    headers = {"Content-Disposition": f'attachment; filename="prompts.{form}"'}
    return Response(text, headers=headers, media_type=JSON if form == "json" else YAML)


@router.get("/prompts/{prompt_id}", responses=responses(401, 404, 422, 429, 503), response_model=Prompt)
def read_prompt(_: Anyone, site: Stores, prompt_id: PromptId) -> Response:
    """Read one prompt."""
    return _answer(site.prompts.get(prompt_id))


@router.patch(
    "/prompts/{prompt_id}",
    responses=responses(400, 401, 403, 404, 412, 413, 415, 422, 428, 429, 503),
    response_model=Prompt,
    openapi_extra=takes(
        prompt_schema("PromptPatch", is_patch=True), JSON, MERGE_PATCH, example={"threshold": 0.7, "schedule": None}
    ),
)
def patch_prompt(
    caller: PromptWriter, site: Stores, prompt_id: PromptId, changes: AnyDocument, if_match: IfMatch = None
) -> Response:
    """Change some keys of a prompt, if it is still at the version that `If-Match` names."""
    return _changed(site, caller, prompt_id, changes, _version(if_match, prompt_id))


@router.delete(
    "/prompts/{prompt_id}",
    status_code=204,
    responses=responses(400, 401, 403, 404, 412, 422, 428, 429, 503),
    response_class=Response,
)
def remove_prompt(caller: PromptWriter, site: Stores, prompt_id: PromptId, if_match: IfMatch = None) -> Response:
    """Remove a prompt; workers cease to watch for it within a second."""
    site.prompts.remove(prompt_id, expected_version=_version(if_match, prompt_id))
    site.audit.write(caller.who, caller.address, "prompt.remove", prompt_id)
    return Response(status_code=204)


@router.post(
    "/prompts/{prompt_id}/{switch}",
    responses=responses(400, 401, 403, 404, 412, 422, 429, 503),
    response_model=Prompt,
)
def switch_prompt(
    caller: PromptWriter,
    site: Stores,
    prompt_id: PromptId,
    switch: Annotated[Literal["enable", "disable"], Path()],
    if_match: IfMatch = None,
) -> Response:
    """Watch for a prompt again, or cease to, without forgetting it."""
    version = None if if_match is None else _version(if_match, prompt_id)
    return _changed(site, caller, prompt_id, {"enabled": switch == "enable"}, version)


def _changed(site: Site, caller: Caller, prompt_id: str, changes: Document, version: int | None) -> Response:
    if "version" in changes:
        raise ProblemError(
            422, "version stands in the header If-Match, not in the body", [("body/version", "leave it out")]
        )
    prompt = site.prompts.update(prompt_id, changes, expected_version=version)
    _note(site, caller, "prompt.update", prompt, ", ".join(sorted(changes)))
    return _answer(prompt)


def _note(site: Site, caller: Caller, action: str, prompt: Prompt, what: str = "") -> None:
    detail = f"version {prompt.version}" + (f": {what}" if what else "")
    site.audit.write(caller.who, caller.address, action, prompt.id, detail)


def _answer(prompt: Prompt, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    tags = {"ETag": f'"{prompt.version}"', **(headers or {})}
    return Response(prompt.model_dump_json(), status, tags, JSON)


def _version(if_match: str | None, prompt_id: str) -> int | None:
    """The version that a header must name; None: any."""
    if if_match is None:
        raise ProblemError(
            428,
            f'say which version of prompt {prompt_id!r} you mean: If-Match: "VERSION" (its ETag), or If-Match: *',
            [("header/If-Match", "it is missing")],
        )
    return version_of(if_match, f"prompt {prompt_id!r}")


def version_of(if_match: str, what: str) -> int | None:
    """The version that a header names; None: any.

    Raises:
        ProblemError: It names none.
    """
    if if_match.strip() == "*":
        return None
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        said = f'{if_match[:60]!r} is no version of {what}; send the ETag that it was read with, such as "3", or *'
        raise ProblemError(400, f"If-Match: {said}", [("header/If-Match", said)])
    return int(match[1] or match[2])


def _fits(prompt: Prompt, query: PromptQuery) -> bool:
    if query.enabled is not None and prompt.enabled != query.enabled:
        return False
    if query.severity is not None and prompt.severity != query.severity:
        return False
    wanted = (query.q or "").casefold()
    return not wanted or wanted in prompt.id or wanted in prompt.text.casefold()
