"""The application, put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from streamer.api import audit, cameras, events, prompts, reviews, streams, system
from streamer.api.bodies import hoist_bodies
from streamer.api.gate import Gate
from streamer.api.problems import Problem, set_up_problems
from streamer.api.site import Site
from streamer.errors import UnavailableError

_ROUTERS: Final = (
    prompts.router,
    events.router,
    reviews.router,
    streams.router,
    cameras.router,
    system.router,
    audit.router,
)
_TAGS: Final = (
    {"name": "prompts", "description": "What is watched for, where and when."},
    {"name": "events", "description": "What was seen and heard, and what people say of it."},
)


def create_app(site: Site, *, asks: bool) -> FastAPI:
    """The API over a site's stores.

    Args:
        site: Closed when the application ends.
        asks: Whether tokens are asked for.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = site.settings.api.threads
        site.followed.start()
        site.reader.start(asyncio.get_running_loop())
        yield
        site.hub.close()
        await asyncio.to_thread(site.reader.close)
        await asyncio.to_thread(site.followed.close)
        site.close()

    app = FastAPI(
        title="Watchword",
        version=version("watchword"),
        summary="Standing text prompts over live video and sound.",
        lifespan=lifespan,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        openapi_tags=[dict(tag) for tag in _TAGS],
        redirect_slashes=False,
    )
    app.state.site = site
    set_up_problems(app, [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)])
    for router in _ROUTERS:
        app.include_router(router)
    app.add_middleware(Gate, tokens=site.tokens, settings=site.settings.api, asks=asks)
    _add_health(app, site)
    _complete_document(app)
    return app


def _add_health(app: FastAPI, site: Site) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> JSONResponse:
        reason = site.reader.why_not_ready
        try:
            site.prompts.serial()
        except UnavailableError as error:
            reason = str(error)
        if reason is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "unavailable", "reasons": {"redis": reason}}, 503)


def _complete_document(app: FastAPI) -> None:
    """The OpenAPI document with what FastAPI does not know: bodies that we read, and problems in place of its own."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            hoist_bodies(document)
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs", {})
            schemas["Problem"] = problem
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way
