"""The application: routes below one path, a request id and the wire version on every answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from torpor_hub.api import problems
from torpor_hub.api.context import Parts
from torpor_hub.api.envelope import Envelope
from torpor_hub.api.pages.sign_in import SignInNeeded, to_hub
from torpor_hub.api.routes import datasets, imports, jobs, platform, programs, workspaces

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
    app.add_middleware(Envelope)
    return app
