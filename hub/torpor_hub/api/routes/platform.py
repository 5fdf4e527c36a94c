"""Health, the asking person, tenants, profiles, and the stream of changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from torpor_hub import __version__
from torpor_hub.api.context import Context, Ctx
from torpor_hub.api.envelope import WIRE
from torpor_hub.domain.policy import Action, Actor, Object, may
from torpor_hub.services import tenants
from torpor_hub.services.access import check
from torpor_hub.services.resources import iso
from torpor_hub.stores.changes import Seen

router = APIRouter()
KEEP_ALIVE_S = 15
BACKLOG = 1000


@router.get("/health")
async def health() -> dict[str, Any]:
    """Return that the api answers, and what it speaks."""
    return {"status": "ok", "version": __version__, "wire": [WIRE]}


@router.get("/me")
def me(ctx: Ctx) -> Response:
    """Return the asking person."""
    with ctx.read() as (tx, actor):
        check(actor, Action.SEE, Object("self"))
        return ctx.reply(tenants.me(tx, actor))


@router.get("/tenants")
def list_tenants(ctx: Ctx) -> Response:
    """Return the tenants that one may see; the policy is asked for each."""
    with ctx.read() as (tx, actor):
        return ctx.reply({"items": tenants.tenants(tx, actor), "next": None})


@router.get("/profiles")
def list_profiles(ctx: Ctx) -> Response:
    """Return the profiles."""
    with ctx.read() as (tx, actor):
        check(actor, Action.SEE, Object("profile"))
        return ctx.reply({"items": tenants.profiles(tx), "next": None})


@router.get("/events")
async def events(request: Request, ctx: Ctx) -> StreamingResponse:
    """Return the stream of the changes that the asker may see, from ``Last-Event-ID`` on."""
    actor = await asyncio.to_thread(_actor, ctx)
    last = request.headers.get("last-event-id", "")
    since = int(last) if last.isdigit() else ctx.parts.feed.last_seq
    return StreamingResponse(
        _stream(ctx, actor, since),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def _actor(ctx: Context) -> Actor:
    with ctx.read() as (_, actor):
        return actor


async def _stream(ctx: Context, actor: Actor, since: int) -> AsyncIterator[str]:
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Seen](BACKLOG)

    def put(change: Seen) -> None:
        if not queue.full():
            queue.put_nowait(change)

    end = ctx.parts.feed.listen(lambda change: loop.call_soon_threadsafe(put, change))
    seq = since
    try:
        yield ": welcome\n\n"
        for change in await asyncio.to_thread(ctx.parts.feed.since, since):
            seq = change.seq
            yield _event(actor, change)
        while True:
            try:
                change = await asyncio.wait_for(queue.get(), KEEP_ALIVE_S)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if change.seq > seq:
                seq = change.seq
                yield _event(actor, change)
    finally:
        end()


def _event(actor: Actor, change: Seen) -> str:
    thing = Object(change.kind, change.object_id, change.tenant_id, change.owner_id)
    if not may(actor, Action.SEE, thing):
        return ""
    content = {
        "seq": change.seq,
        "at": iso(change.at),
        "kind": change.kind,
        "id": change.object_id,
        "event": change.event,
        "actor": change.actor,
    }
    return f"id: {change.seq}\nevent: change\ndata: {json.dumps(content)}\n\n"
