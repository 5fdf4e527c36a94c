"""Jobs: submit, look at, cancel; and what the wrappers of attempts ask and report."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Header, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict

from torpor_hub.api.context import Bounds, Context, Ctx, page
from torpor_hub.domain.policy import Action
from torpor_hub.errors import InvalidRequest, TooLarge
from torpor_hub.services import attempts, job_views, jobs
from torpor_hub.stores.blobs import Written

router = APIRouter()
BINARY = "application/octet-stream"
SHA256_HEADER = "Torpor-SHA256"


class Wish(BaseModel):
    """A change of ``spec``."""

    model_config = ConfigDict(extra="forbid")
    spec: dict[str, Any]


class Beat(BaseModel):
    """A heartbeat."""

    state: Literal["running"]


class RemoteException(BaseModel):
    """What the code raised."""

    type: str
    message: str
    traceback: str


class Exit(BaseModel):
    """How a rank of an attempt ended."""

    rank: int = 0
    exit_code: int | None
    reason: Literal["", "exception", "timeout", "cancelled", "killed", "out_of_memory"] = ""
    message: str = ""
    exception: RemoteException | None = None


class Body:
    """The bytes of a request, at most ``most``, compared with the hash that came with them."""

    def __init__(self, most: int) -> None:
        self._most = most

    async def __call__(self, request: Request) -> bytes:
        """Return the bytes.

        Raises:
            TooLarge: beyond the limit; the rest is not read.
            InvalidRequest: when they do not have the hash that the header names.
        """
        chunks, length = [], 0
        async for chunk in request.stream():
            length += len(chunk)
            if length > self._most:
                raise TooLarge(f"The body is larger than {self._most} bytes.", next_step="Send less at once.")
            chunks.append(chunk)
        content = b"".join(chunks)
        if hashlib.sha256(content).hexdigest() != request.headers.get(SHA256_HEADER, "").lower():
            raise InvalidRequest(
                f"The body does not have the {SHA256_HEADER} of its header.", next_step="Send it again."
            )
        return content


Segment = Annotated[bytes, Depends(Body(attempts.SEGMENT_BYTES))]
Result = Annotated[bytes, Depends(Body(attempts.RESULT_BYTES))]


@router.get("/job-options")
def get_job_options(ctx: Ctx, workspace: str | None = None) -> Response:
    """Return what a form may offer; ``job_views.options`` asks the policy."""
    with ctx.read() as (tx, actor):
        return ctx.reply(job_views.options(tx, ctx.parts.settings, actor, workspace))


@router.post("/jobs")
def submit_job(
    ctx: Ctx,
    spec: Annotated[str, Form()],
    bundle: UploadFile | None = None,
    idempotency_key: Annotated[str, Header()] = "",
) -> Response:
    """Submit a job; ``jobs.submit`` asks the policy."""
    content = _json(spec)
    written = None if bundle is None else _store(ctx, bundle)
    with ctx.write() as (tx, actor):
        row = jobs.submit(tx, ctx.parts.settings, actor, jobs.Submission(content, written, idempotency_key))
        return ctx.reply(job_views.job(tx, row), 201)


@router.get("/jobs")
def list_jobs(
    ctx: Ctx, bounds: Bounds, tenant: str | None = None, workspace: str | None = None, phase: str | None = None
) -> Response:
    """Return one's own jobs, or a tenant's that one may see, newest first; the policy is asked for each."""
    with ctx.read() as (tx, actor):
        limit, offset = bounds
        rows = jobs.listed(tx, actor, jobs.Filter(tenant, workspace, phase), limit=limit, offset=offset)
        return ctx.reply(page([job_views.job(tx, row) for row in rows], limit, offset))


@router.get("/jobs/{job}")
def get_job(ctx: Ctx, job: str) -> Response:
    """Return a job."""
    with ctx.read() as (tx, actor):
        return ctx.reply(job_views.job(tx, jobs.find(tx, actor, job, Action.SEE)))


@router.patch("/jobs/{job}")
def change_job(ctx: Ctx, job: str, body: Wish) -> Response:
    """Record a wish."""
    with ctx.write() as (tx, actor):
        row = jobs.lock(tx, jobs.find(tx, actor, job, Action.CHANGE).id)
        ctx.check_version(row.version)
        jobs.wish(tx, row, body.spec)
        return ctx.reply(job_views.job(tx, row))


@router.get("/jobs/{job}/log")
def get_log(
    ctx: Ctx, job: str, attempt: int | None = None, rank: int = 0, offset: int = 0, tail: int | None = None
) -> Response:
    """Return a range of the log as text."""
    with ctx.read() as (tx, actor):
        row = jobs.find(tx, actor, job, Action.READ)
        part = attempts.log_part(tx, row, attempt=attempt, rank=rank, offset=offset, tail=tail)
    headers = {"Torpor-Next-Offset": str(part.end), "Torpor-Attempt": str(part.attempt)}
    return Response(part.read(ctx.parts.blobs), headers=headers, media_type="text/plain")


@router.get("/jobs/{job}/result")
def get_result(ctx: Ctx, job: str) -> Response:
    """Return the pickled result."""
    with ctx.read() as (tx, actor):
        key, sha256 = attempts.result_of(jobs.find(tx, actor, job, Action.READ))
    return Response(ctx.parts.blobs.get(key), headers={SHA256_HEADER: sha256}, media_type=BINARY)


@router.get("/jobs/{job}/attempts/{number}/task")
def get_task(ctx: Ctx, job: str, number: int) -> Response:
    """Return what an attempt has to do; ``attempts.current`` asks the policy, here and below."""
    with ctx.write() as (tx, actor):
        row, _ = attempts.current(tx, actor, job, number)
        return ctx.reply(attempts.task(row))


@router.get("/jobs/{job}/attempts/{number}/bundle")
def get_bundle(ctx: Ctx, job: str, number: int) -> Response:
    """Return the submitted code."""
    with ctx.write() as (tx, actor):
        row, _ = attempts.current(tx, actor, job, number)
        key, sha256 = row.bundle_key, row.bundle_sha256
    return Response(ctx.parts.blobs.get(key), headers={SHA256_HEADER: sha256}, media_type=BINARY)


@router.put("/jobs/{job}/attempts/{number}/state")
def put_state(ctx: Ctx, job: str, number: int, body: Beat) -> dict[str, str]:
    """Record a heartbeat; return the owner's wish."""
    with ctx.write() as (tx, actor):
        return {"desired": attempts.heard(tx, *attempts.current(tx, actor, job, number))}


@router.put("/jobs/{job}/attempts/{number}/logs/{rank}/{start}")
def put_log(ctx: Ctx, job: str, number: int, rank: int, start: int, content: Segment) -> dict[str, int]:
    """Store a piece of the log."""
    _require_current(ctx, job, number)
    written = ctx.parts.blobs.put(attempts.log_key(job, number, rank, start), [content])
    with ctx.write() as (tx, actor):
        row, attempt = attempts.current(tx, actor, job, number)
        attempts.add_segment(tx, row, attempt, rank, start, written)
    return {"next": start + written.size_bytes}


@router.put("/jobs/{job}/attempts/{number}/result")
def put_result(ctx: Ctx, job: str, number: int, content: Result) -> dict[str, int]:
    """Store the pickled result."""
    _require_current(ctx, job, number)
    written = ctx.parts.blobs.put(attempts.result_key(job, number), [content])
    with ctx.write() as (tx, actor):
        row, _ = attempts.current(tx, actor, job, number)
        attempts.set_result(tx, row, written)
    return {"size_bytes": written.size_bytes}


@router.put("/jobs/{job}/attempts/{number}/exit")
def put_exit(ctx: Ctx, job: str, number: int, body: Exit) -> dict[str, str]:
    """Record how an attempt ended."""
    exception = body.exception.model_dump() if body.exception else None
    report = attempts.Report(body.exit_code, body.reason, body.message, exception)
    with ctx.write() as (tx, actor):
        row, attempt = attempts.current(tx, actor, job, number)
        attempts.ended(tx, row, attempt, report)
        return {"phase": row.phase}


def _require_current(ctx: Context, job: str, number: int) -> None:
    """Ask the policy before anything is stored."""
    with ctx.write() as (tx, actor):
        attempts.current(tx, actor, job, number)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequest(
            "The part `spec` is not JSON.", next_step="Send the spec as a JSON object.", pointer="/spec"
        ) from error


def _store(ctx: Context, bundle: UploadFile) -> Written:
    most = ctx.parts.settings.limits.bundle_bytes
    return jobs.store_bundle(ctx.parts.blobs, ctx.parts.settings, bundle.file.read(most + 1))
