"""What the platform's own programs ask: tokens, sign-ins, starts and captures."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from torpor_hub.api.context import Context, Ctx, Parts
from torpor_hub.api.waiting import Doorbell, disconnected
from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.policy import Action, Actor, Object
from torpor_hub.errors import Forbidden
from torpor_hub.services import captures, people, starts, workspaces
from torpor_hub.services.access import check
from torpor_hub.services.resources import iso
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Membership, Tenant, Workspace

router = APIRouter()
LONGEST_WAIT_S = 30


class Proof(BaseModel):
    """The body of a request for a program's token."""

    component: str
    proof: str


class SignIn(BaseModel):
    """The body of a sign-in."""

    name: str = Field(max_length=200)
    password: str = Field(max_length=1000)


class Hindrance(BaseModel):
    """What keeps the hub from making a server that was granted; ``final``: it has given the start up."""

    reason: str
    message: str
    next_step: str = ""
    final: bool = False


class Start(BaseModel):
    """The body of a start, as the hub's spawner repeats it."""

    user: str
    server: str
    options: dict[str, Any] = {}
    hindrance: Hindrance | None = None


class AgentWaits(BaseModel):
    """The body of an agent's request for work."""

    agent: str
    node: str = ""
    wait_s: float = Field(20, ge=0, le=LONGEST_WAIT_S)


class CaptureProgress(BaseModel):
    """The body of an agent's heartbeat."""

    fence: int
    step: str
    bytes: int = 0
    bytes_total: int = 0


class CaptureResult(BaseModel):
    """The body of a verified capture."""

    fence: int
    digest: str
    config_digest: str = ""
    layers: list[dict[str, Any]]
    entries: int = 0
    changed: bool = True
    skipped: list[str] = []
    frozen_s: float | None = Field(None, ge=0)


class CaptureThawing(BaseModel):
    """The body of an agent that ends and has left something frozen."""

    fence: int


class CaptureFailure(BaseModel):
    """The body of a capture that was given up."""

    fence: int
    code: str
    message: str


@router.post("/component-tokens")
async def component_token(request: Request, body: Proof) -> dict[str, Any]:
    """Return a program's token for its proof; the proof is the credential of this route."""
    parts: Parts = request.app.state.parts
    program = await parts.proofs.check(body.component, body.proof)
    token, expires_at = parts.signer.for_program(program, parts.store.clock())
    return {"token": token, "expires_at": iso(expires_at)}


@router.post("/sign-ins")
def sign_in(ctx: Ctx, body: SignIn) -> dict[str, Any]:
    """Return the user whose password this is."""
    with ctx.write() as (tx, actor):
        check(actor, Action.CREATE, Object("sign-in"))
        user = people.sign_in(tx, body.name, body.password)
    if user is None:
        raise Forbidden("The name or the password is wrong.", next_step="Try again, or ask an admin to reset it.")
    return {"name": user.name, "admin": user.admin}


@router.post("/workspace-starts")
def workspace_start(ctx: Ctx, body: Start) -> Response:
    """Return how a start stands: still waiting (202), granted (200), or refused."""
    try:
        with ctx.write() as (tx, actor):
            check(actor, Action.CREATE, Object("start"))
            row = _workspace_for(tx, body)
            answer = _answer(tx, ctx.parts.settings, row, body.hindrance)
    except starts.Refused as refusal:
        with ctx.write() as (tx, actor):
            starts.delivered(tx, refusal.operation_id)
        raise
    if isinstance(answer, starts.Waiting):
        return JSONResponse(asdict(answer), status_code=202)
    return JSONResponse({"grant": asdict(answer)})


@router.post("/capture-claims")
async def claim_capture(ctx: Ctx, request: Request, body: AgentWaits) -> Response:
    """Return the next capture for an agent, waiting for one without holding a thread."""
    gone = asyncio.create_task(disconnected(request))

    async def look() -> captures.Claim | None:
        # An agent that has ended while it waited must not be given a capture: nobody would work on it.
        return None if gone.done() else await _claim(ctx, body.agent, body.node)

    bell = Doorbell(ctx.parts.feed, ("workspace",))
    try:
        claim = await bell.first(look, body.wait_s)
    finally:
        bell.end()
        gone.cancel()
    return Response(status_code=204) if claim is None else JSONResponse(captures.claim_json(claim))


@router.put("/capture-claims/{operation}/progress")
def capture_progress(ctx: Ctx, operation: str, body: CaptureProgress) -> dict[str, Any]:
    """Record an agent's heartbeat; the answer tells whether to give up."""
    with ctx.write() as (tx, actor):
        _check_report(tx, actor, operation)
        cancel = captures.progress(
            tx, ctx.parts.settings, operation, body.fence, step=body.step, done=body.bytes, total=body.bytes_total
        )
        return {"cancel": cancel}


@router.put("/capture-claims/{operation}/result")
def capture_result(ctx: Ctx, operation: str, body: CaptureResult) -> dict[str, Any]:
    """Record a verified capture; the answer tells whether the workspace stays frozen for its removal."""
    result = captures.Result(body.digest, body.layers, body.entries, body.changed, body.skipped, body.frozen_s)
    with ctx.write() as (tx, actor):
        _check_report(tx, actor, operation)
        return {"stay_frozen": captures.finish(tx, ctx.parts.settings, operation, body.fence, result)}


@router.put("/capture-claims/{operation}/thawed")
def capture_thawing(ctx: Ctx, operation: str, body: CaptureThawing) -> dict[str, Any]:
    """Tell an agent that ends whether to thaw what it left frozen for its removal."""
    with ctx.write() as (tx, actor):
        _check_report(tx, actor, operation)
        return {"thaw": captures.thawing(tx, operation, body.fence)}


@router.put("/capture-claims/{operation}/failure")
def capture_failure(ctx: Ctx, operation: str, body: CaptureFailure) -> dict[str, Any]:
    """Record that a capture was given up."""
    with ctx.write() as (tx, actor):
        _check_report(tx, actor, operation)
        captures.fail(tx, operation, body.fence, code=body.code, message=body.message)
        return {}


def _answer(
    tx: UnitOfWork, settings: Settings, row: Workspace, hindrance: Hindrance | None
) -> starts.Waiting | starts.Granted:
    if hindrance is not None:
        cause = Cause(hindrance.reason, hindrance.message, hindrance.next_step)
        starts.hindered(tx, row, cause, final=hindrance.final)
        if hindrance.final:
            return starts.Waiting("", 0, cause.message)
    return starts.answer(tx, settings, row)


async def _claim(ctx: Context, agent: str, node: str) -> captures.Claim | None:
    def run() -> captures.Claim | None:
        with ctx.write() as (tx, actor):
            check(actor, Action.CLAIM, Object("capture"))
            return captures.claim(tx, ctx.parts.settings, agent, actor.node or node)

    return await asyncio.to_thread(run)


def _check_report(tx: UnitOfWork, actor: Actor, operation: str) -> None:
    """Make sure that the actor may report on a capture: an agent that is tied to a node, on that node's alone."""
    check(actor, Action.REPORT, Object("capture"))
    check(actor, Action.REPORT, Object("capture", node=captures.node_of(tx, operation)))


def _workspace_for(tx: UnitOfWork, body: Start) -> Workspace:
    """Return the workspace behind a server's name; one that does not exist is made from the options."""
    user = people.user_named(tx, body.user)
    found = tx.session.query(Workspace).filter_by(user_id=user.id, name=body.server).with_for_update().one_or_none()
    if found is not None:
        return found
    owner = people.person(tx, user.name, can_write=True)
    tenant = body.options.get("tenant") or _first_tenant(tx, owner)
    return workspaces.create(tx, owner, name=body.server, tenant=str(tenant), profile=body.options.get("profile"))


def _first_tenant(tx: UnitOfWork, owner: Actor) -> str:
    query = (
        tx.session.query(Tenant.name)
        .join(Membership, Membership.tenant_id == Tenant.id)
        .filter(Membership.user_id == owner.user_id, Membership.role != "viewer")
        .order_by(Tenant.created_at, Tenant.id)
    )
    first = query.first()
    if first is None:
        raise Forbidden(f"'{owner.name}' is a member of no tenant.", next_step="Ask a tenant's admin for membership.")
    return str(first[0])
