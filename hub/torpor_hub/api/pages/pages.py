"""My workspaces, one workspace, jobs and data, as pages."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from torpor_hub.api.context import Context
from torpor_hub.api.identity import XSRF_COOKIE
from torpor_hub.api.pages import sign_in
from torpor_hub.domain import names, units
from torpor_hub.domain.policy import Action, Actor
from torpor_hub.errors import NotFound, UserError
from torpor_hub.services import datasets, job_views, jobs, operations, tenants, views, workspaces
from torpor_hub.stores.base import UnitOfWork

router = APIRouter(include_in_schema=False)
router.include_router(sign_in.router)
HERE = Path(__file__).parent
STATIC = HERE.parent / "static"
HTMX = HERE.parents[2] / "node" / "node_modules" / "htmx.org" / "dist" / "htmx.min.js"
FILES = {"torpor.css": "text/css", "torpor.js": "text/javascript", "torpor.svg": "image/svg+xml"}
MOST = 100
PageContext = Annotated[Context, Depends(sign_in.signed_in)]


def _moment(text: str | None) -> str:
    """Return a moment of a resource as people read it."""
    if not text:
        return ""
    return datetime.fromisoformat(text).strftime("%d %b %Y, %H:%M:%S UTC")


def _amount(amount: dict[str, int], gpus: int = 0) -> str:
    """Return an amount as people read it; GPUs are named where there are some, or could be (``gpus``)."""
    parts = [units.cores(amount["cpu_milli"]), units.size(amount["memory_bytes"])]
    return ", ".join([*parts, units.gpus(amount["gpu_count"])] if amount["gpu_count"] or gpus else parts)


TEMPLATES = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
TEMPLATES.filters.update(amount=_amount, size=units.size, moment=_moment)


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Return a file of the pages."""
    if name == "htmx.js":
        return FileResponse(HTMX, media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})
    if name not in FILES:
        raise NotFound(f"There is no file '{name}'.")
    return FileResponse(STATIC / name, media_type=FILES[name], headers={"Cache-Control": "max-age=60"})


@router.get("/")
def home(ctx: PageContext) -> HTMLResponse:
    """Return one's workspaces and the form for a new one."""
    return _render(ctx, "home.html", _home)


@router.get("/fragments/workspaces")
def home_fragment(ctx: PageContext) -> HTMLResponse:
    """Return the list of workspaces alone, for a refresh."""
    return _render(ctx, "_workspaces.html", _home)


@router.get("/fragments/tenants")
def tenant_fragment(ctx: PageContext) -> HTMLResponse:
    """Return what one's tenants hold, for a refresh."""
    return _render(ctx, "_tenants.html", _home)


@router.post("/workspaces")
def create(
    ctx: PageContext, name: Annotated[str, Form()], tenant: Annotated[str, Form()], profile: Annotated[str, Form()]
) -> Response:
    """Make a workspace, start it and go to its page; an error comes back beside the form."""
    try:
        with ctx.write() as (tx, actor):
            row = workspaces.create(tx, actor, name=name.strip(), tenant=tenant, profile=profile)
            workspaces.wish(tx, ctx.parts.settings, row, {"desired": "running"})
            return Response(status_code=204, headers={"HX-Redirect": views.page(ctx.parts.settings, row)})
    except UserError as error:
        return _error(error)


@router.get("/workspaces/{key}")
def workspace(ctx: PageContext, key: str) -> HTMLResponse:
    """Return the page of a workspace."""
    return _render(ctx, "workspace.html", lambda ctx, tx, actor: _workspace(ctx, tx, actor, key))


@router.get("/fragments/workspaces/{key}")
def workspace_fragment(ctx: PageContext, key: str) -> HTMLResponse:
    """Return the state of a workspace alone, for a refresh."""
    return _render(ctx, "_workspace.html", lambda ctx, tx, actor: _workspace(ctx, tx, actor, key))


@router.post("/workspaces/{key}/wish")
def wish(
    ctx: PageContext,
    key: str,
    desired: Annotated[str, Form()],
    environment: Annotated[str, Form()] = "current",
    discard: Annotated[bool, Form()] = False,
) -> Response:
    """Record a wish from a button and return the new state; an error is shown in its place."""
    try:
        with ctx.write() as (tx, actor):
            row = operations.workspace_of(tx, workspaces.find(tx, actor, key, Action.CHANGE).id)
            if desired == "deleted":
                workspaces.wish_deleted(tx, row)
                return Response(status_code=204, headers={"HX-Redirect": ctx.parts.settings.service_path})
            spec = {"desired": desired, "environment": environment, "discard": discard}
            workspaces.wish(tx, ctx.parts.settings, row, spec)
    except UserError as error:
        return _error(error)
    return workspace_fragment(ctx, key)


@router.get("/workspaces/{key}/open")
def open_workspace(ctx: PageContext, key: str) -> Response:
    """Go to the workspace's JupyterLab, or to its page while it does not run."""
    with ctx.read() as (tx, actor):
        shown = views.workspace(tx, ctx.parts.settings, workspaces.find(tx, actor, key))
    target = shown["status"]["url"] if shown["status"]["phase"] == "RUNNING" else shown["status"]["page"]
    return RedirectResponse(target, 302)


@router.get("/jobs")
def job_list(ctx: PageContext) -> HTMLResponse:
    """Return one's jobs."""
    return _render(ctx, "jobs.html", _jobs)


@router.get("/fragments/jobs")
def job_fragment(ctx: PageContext) -> HTMLResponse:
    """Return the table of jobs alone, for a refresh."""
    return _render(ctx, "_jobs.html", _jobs)


@router.get("/data")
def data(ctx: PageContext) -> HTMLResponse:
    """Return the datasets that one may see."""
    return _render(ctx, "data.html", _data)


def _home(ctx: Context, tx: UnitOfWork, actor: Actor) -> dict[str, Any]:
    rows = workspaces.listed(tx, actor, everybody=False, limit=MOST, offset=0)
    mine = tenants.me(tx, actor)["tenants"]
    seen = tenants.tenants(tx, actor)
    return {
        "workspaces": [views.workspace(tx, ctx.parts.settings, row) for row in rows],
        "tenants": [item for item in seen if _may_work(mine, item["name"])],
        "seen": seen,
        "gpus": any(item["spec"]["gpu_count"] for item in seen),
        "profiles": tenants.profiles(tx),
        "rule": names.RULE,
    }


def _may_work(mine: list[dict[str, Any]], tenant: str) -> bool:
    return any(item["name"] == tenant and item["role"] != "viewer" for item in mine)


def _workspace(ctx: Context, tx: UnitOfWork, actor: Actor, key: str) -> dict[str, Any]:
    row = workspaces.find(tx, actor, key)
    return {
        "ws": views.workspace(tx, ctx.parts.settings, row),
        "checkpoints": views.checkpoints(tx, row),
        "log": row.last_log,
    }


def _jobs(_ctx: Context, tx: UnitOfWork, actor: Actor) -> dict[str, Any]:
    rows = jobs.listed(tx, actor, jobs.Filter(), limit=MOST, offset=0)
    return {"jobs": [job_views.job(tx, row) for row in rows[:MOST]]}


def _data(ctx: Context, tx: UnitOfWork, actor: Actor) -> dict[str, Any]:
    rows = datasets.listed(tx, actor, tenant=None, search=None, name=None, limit=MOST, offset=0)
    return {"datasets": [datasets.view(tx, ctx.parts.settings, actor, row) for row in rows[:MOST]]}


def _render(ctx: Context, template: str, load: Any) -> HTMLResponse:
    settings = ctx.parts.settings
    with ctx.read() as (tx, actor):
        content = load(ctx, tx, actor)
    html = TEMPLATES.get_template(template).render(
        user=actor.name,
        root=settings.service_path,
        hub=settings.hub_path,
        path=ctx.request.url.path,
        xsrf=ctx.request.cookies.get(XSRF_COOKIE, ""),
        **content,
    )
    return HTMLResponse(html, headers={"Cache-Control": "no-store"})


def _error(error: UserError) -> HTMLResponse:
    html = TEMPLATES.get_template("_error.html").render(message=error.message, next_step=error.next_step)
    return HTMLResponse(html, status_code=200, headers={"HX-Retarget": "#error", "HX-Reswap": "innerHTML"})
