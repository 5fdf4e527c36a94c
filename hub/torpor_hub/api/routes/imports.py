"""Imports for people, and the claims of importers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from torpor_hub.api.context import Context, Ctx
from torpor_hub.api.waiting import Doorbell, disconnected
from torpor_hub.domain import units
from torpor_hub.domain.policy import Action, Object
from torpor_hub.errors import InvalidRequest, TooLarge
from torpor_hub.services import claims, imports, queues
from torpor_hub.services.access import check
from torpor_hub.services.claims import Failed, Found

router = APIRouter()
LONGEST_WAIT_S = 30
REPORT = Object("import")


class Wish(BaseModel):
    """A change of ``spec``."""

    model_config = ConfigDict(extra="forbid")
    spec: dict[str, Any]


class ImporterWaits(BaseModel):
    """The body of an importer's request for work."""

    importer: str = Field(max_length=200)
    wait_s: float = Field(20, ge=0, le=LONGEST_WAIT_S)


class Progress(BaseModel):
    """The body of an importer's heartbeat."""

    fence: int
    stage: str = ""
    stages: list[dict[str, Any]] = []


class Result(BaseModel):
    """The body of what an importer found; ``schema``, ``sample`` and ``stats`` are for imports."""

    fence: int
    table: dict[str, Any] | None = Field(None, alias="schema")
    sample: dict[str, Any] | None = None
    stats: dict[str, Any] | None = None
    chunks: int = Field(0, ge=0)
    stages: list[dict[str, Any]] = []


class Failure(BaseModel):
    """The body of why an importer gave up."""

    fence: int
    code: str
    stage: str = ""
    message: str = Field(max_length=4000)
    next_step: str = Field("", max_length=4000)
    stages: list[dict[str, Any]] = []


@router.get("/imports/{key}")
def get_import(ctx: Ctx, key: str) -> Response:
    """Return an import."""
    with ctx.read() as (tx, actor):
        return ctx.reply(imports.view(tx, ctx.parts.settings, imports.find(tx, actor, key)))


@router.patch("/imports/{key}")
def change_import(ctx: Ctx, key: str, body: Wish) -> Response:
    """Record that an import is to be cancelled."""
    with ctx.write() as (tx, actor):
        row = imports.find(tx, actor, key, Action.CHANGE)
        ctx.check_version(row.version)
        imports.wish(tx, row, body.spec)
        return ctx.reply(imports.view(tx, ctx.parts.settings, row))


@router.post("/import-claims")
async def claim_task(ctx: Ctx, request: Request, body: ImporterWaits) -> Response:
    """Return the next task for an importer, waiting for one without holding a thread."""
    gone = asyncio.create_task(disconnected(request))

    async def look() -> dict[str, Any] | None:
        # An importer that has ended while it waited must not be given a task: nobody would work on it.
        return {} if gone.done() else await asyncio.to_thread(_claim_if_any, ctx, body.importer)

    bell = Doorbell(ctx.parts.feed, ("import", "read"))
    try:
        claim = await asyncio.to_thread(_claim, ctx, body.importer) or await bell.first(look, body.wait_s)
    finally:
        bell.end()
        gone.cancel()
    return JSONResponse(claim) if claim else Response(status_code=204)


@router.put("/import-claims/{task}/progress")
def report_progress(ctx: Ctx, task: str, body: Progress) -> dict[str, bool]:
    """Record an importer's heartbeat; the answer tells whether to stop."""
    with ctx.write() as (tx, actor):
        check(actor, Action.REPORT, REPORT)
        settings = ctx.parts.settings
        return {"cancel": claims.progress(tx, settings, task, body.fence, stage=body.stage, stages=body.stages)}


@router.put("/import-claims/{task}/uploads/{name}")
async def upload(
    ctx: Ctx,
    request: Request,
    task: str,
    name: str,
    sha256: Annotated[str, Header(alias="Torpor-SHA256")],
    fence: Annotated[int, Header(alias="Torpor-Fence")],
) -> dict[str, Any]:
    """Store a file of a task; it counts once its size and hash agree."""
    await asyncio.to_thread(_check_upload, ctx, task, fence, name)
    content = await _body(request)
    await asyncio.to_thread(_store, ctx, task, fence, name, content, sha256)
    return {"size_bytes": len(content), "sha256": sha256}


@router.put("/import-claims/{task}/result")
def report_result(ctx: Ctx, task: str, body: Result) -> dict[str, Any]:
    """Record what an importer found."""
    with ctx.write() as (tx, actor):
        check(actor, Action.REPORT, REPORT)
        claims.finish(tx, task, body.fence, Found(body.table, body.sample, body.stats, body.chunks), body.stages)
        return {}


@router.put("/import-claims/{task}/failure")
def report_failure(ctx: Ctx, task: str, body: Failure) -> dict[str, Any]:
    """Record why an importer gave a task up."""
    with ctx.write() as (tx, actor):
        check(actor, Action.REPORT, REPORT)
        claims.fail(tx, task, body.fence, Failed(body.code, body.stage, body.message, body.next_step), body.stages)
        return {}


def _claim(ctx: Context, importer: str) -> dict[str, Any] | None:
    with ctx.write() as (tx, actor):
        check(actor, Action.CLAIM, REPORT)
        return claims.claim(tx, ctx.parts.settings, importer)


def _claim_if_any(ctx: Context, importer: str) -> dict[str, Any] | None:
    """Claim, but take the database's write lock only where something is queued."""
    with ctx.read() as (tx, _):
        waits = queues.anything(tx)
    return _claim(ctx, importer) if waits else None


def _check_upload(ctx: Context, task: str, fence: int, name: str) -> str:
    with ctx.read() as (tx, actor):
        check(actor, Action.REPORT, REPORT)
        return claims.check_upload(tx, task, fence, name)


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > claims.MOST_UPLOAD_BYTES:
            raise TooLarge(
                f"An upload has at most {units.size(claims.MOST_UPLOAD_BYTES)}.", next_step="Send it in pieces."
            )
    return bytes(content)


def _store(ctx: Context, task: str, fence: int, name: str, content: bytes, sha256: str) -> None:
    if not hmac.compare_digest(hashlib.sha256(content).hexdigest(), sha256.lower()):
        raise InvalidRequest(
            "What arrived does not have the hash in Torpor-SHA256.",
            next_step="Send it again.",
            pointer="/Torpor-SHA256",
        )
    key = _check_upload(ctx, task, fence, name)
    written = ctx.parts.blobs.put(key, [content])
    with ctx.write() as (tx, _):
        claims.uploaded(tx, task, fence, name, key=key, size_bytes=written.size_bytes, sha256=written.sha256)
