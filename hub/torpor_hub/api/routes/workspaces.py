"""Workspaces: make, look at, wish, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict

from torpor_hub.api.context import Bounds, Ctx, page
from torpor_hub.domain.policy import Action
from torpor_hub.services import operations, repeats, views, workspaces

router = APIRouter(prefix="/workspaces")
Key = Annotated[str, Header(alias="Idempotency-Key")]


class NewWorkspace(BaseModel):
    """The body of a new workspace; ``desired: running`` starts it at once."""

    model_config = ConfigDict(extra="forbid")
    name: str
    tenant: str
    profile: str | None = None
    desired: str | None = None


class Wish(BaseModel):
    """A change of ``spec``."""

    model_config = ConfigDict(extra="forbid")
    spec: dict[str, Any]


@router.get("")
def list_workspaces(ctx: Ctx, bounds: Bounds, all: bool = False) -> Response:
    """Return one's own workspaces, or with ``all`` those that one may see; the policy is asked for each."""
    with ctx.read() as (tx, actor):
        limit, offset = bounds
        rows = workspaces.listed(tx, actor, everybody=all, limit=limit, offset=offset)
        items = [views.workspace(tx, ctx.parts.settings, row) for row in rows]
        return ctx.reply(page(items, limit, offset))


@router.post("")
def create_workspace(ctx: Ctx, body: NewWorkspace, key: Key = "") -> Response:
    """Make a workspace; ``workspaces.create`` asks the policy."""
    with ctx.write() as (tx, actor):

        def make() -> str:
            row = workspaces.create(tx, actor, name=body.name, tenant=body.tenant, profile=body.profile)
            if body.desired is not None:
                workspaces.wish(tx, ctx.parts.settings, row, {"desired": body.desired})
            return row.id

        made = repeats.once(tx, actor, key, ["workspace", body.model_dump()], make)
        row = workspaces.find(tx, actor, made)
        return ctx.reply(views.workspace(tx, ctx.parts.settings, row), 201)


@router.get("/{key}")
def get_workspace(ctx: Ctx, key: str) -> Response:
    """Return a workspace by id or name."""
    with ctx.read() as (tx, actor):
        row = workspaces.find(tx, actor, key, Action.SEE)
        return ctx.reply(views.workspace(tx, ctx.parts.settings, row))


@router.patch("/{key}")
def change_workspace(ctx: Ctx, key: str, body: Wish) -> Response:
    """Record a wish."""
    with ctx.write() as (tx, actor):
        row = operations.workspace_of(tx, workspaces.find(tx, actor, key, Action.CHANGE).id)
        ctx.check_version(row.version)
        workspaces.wish(tx, ctx.parts.settings, row, body.spec)
        return ctx.reply(views.workspace(tx, ctx.parts.settings, row))


@router.delete("/{key}")
def delete_workspace(ctx: Ctx, key: str) -> Response:
    """Record that a workspace is to go."""
    with ctx.write() as (tx, actor):
        row = operations.workspace_of(tx, workspaces.find(tx, actor, key, Action.CHANGE).id)
        workspaces.wish_deleted(tx, row)
        return ctx.reply(views.workspace(tx, ctx.parts.settings, row), 202)


@router.get("/{key}/checkpoints")
def list_checkpoints(ctx: Ctx, key: str) -> Response:
    """Return the checkpoints of a workspace."""
    with ctx.read() as (tx, actor):
        row = workspaces.find(tx, actor, key, Action.SEE)
        return ctx.reply({"items": views.checkpoints(tx, row), "next": None})


@router.get("/{key}/log")
def get_log(ctx: Ctx, key: str, lines: int = 200) -> Response:
    """Return the last lines that a server which failed or ended has left."""
    with ctx.read() as (tx, actor):
        row = workspaces.find(tx, actor, key, Action.SEE)
        kept = row.last_log.splitlines()[-max(1, min(lines, 2000)) :]
        return ctx.reply({"text": "\n".join(kept)})
