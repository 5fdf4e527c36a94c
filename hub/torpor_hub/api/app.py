"""The application: routes below one path, a request id and the wire version on every answer."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request, Response

from torpor_hub.api import problems
from torpor_hub.api.context import Parts
from torpor_hub.api.pages.sign_in import SignInNeeded, to_hub
from torpor_hub.api.routes import datasets, imports, jobs, platform, programs, workspaces

WIRE_HEADER = "Torpor-Wire"
REQUEST_ID_HEADER = "X-Request-Id"
KNOWN_WIRES = ("", str(platform.WIRE))
ROUTES = (platform, programs, workspaces, jobs, datasets, imports)

Lifespan = Callable[[FastAPI], AsyncIterator[None]]


def create_app(parts: Parts, pages: APIRouter | None = None, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the application over the parts; ``lifespan`` starts and ends what lives beside it in the process."""
    path = parts.settings.api_path
    app = FastAPI(
        title="Torpor",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{path}/openapi.json",
        lifespan=asynccontextmanager(lifespan) if lifespan else None,
    )
    app.state.parts = parts
    for module in ROUTES:
        app.include_router(module.router, prefix=path)
    if pages is not None:
        app.include_router(pages, prefix=parts.settings.service_path.rstrip("/"))
        app.add_exception_handler(SignInNeeded, to_hub)
    problems.install(app)
    app.middleware("http")(_envelope)
    return app


async def _envelope(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    request.state.request_id = secrets.token_hex(8)
    wire = request.headers.get(WIRE_HEADER, "")
    if wire not in KNOWN_WIRES:
        response: Response = problems.problem(
            request,
            400,
            "unsupported_wire",
            f"This platform speaks wire version {platform.WIRE}, the request came with {wire}.",
            next_step="Restart the kernel, or install the platform's own version of `torpor`.",
        )
    else:
        response = await call_next(request)
    response.headers[WIRE_HEADER] = str(platform.WIRE)
    response.headers[REQUEST_ID_HEADER] = request.state.request_id
    return response
