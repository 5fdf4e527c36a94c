"""The controller's side of jobs: environments that became ready, admission, starts, and the ends of attempts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from torpor_hub.domain import queue
from torpor_hub.domain.jobs import LOST, STOPPED, AttemptState, Desired, Phase
from torpor_hub.domain.queue import Explained, Share, Waiting
from torpor_hub.domain.workspaces import Checkpoint as Saved
from torpor_hub.domain.workspaces import Mount
from torpor_hub.services import attempts, images, jobs, ledger, starts
from torpor_hub.services.attempts import Report
from torpor_hub.services.ledger import Claim
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.blobs import Written
from torpor_hub.stores.tables import Attempt, Checkpoint, Job, Operation, Pool, Profile, Tenant, User, Workspace


@dataclass(frozen=True)
class Open:
    """An attempt that is not closed, as the loop sees it."""

    job_id: str
    number: int
    state: AttemptState
    handle: str
    cancelled: bool
    ended_for_s: float

    @property
    def name(self) -> str:
        """The attempt's name."""
        return f"{self.job_id}-a{self.number}"


@dataclass(frozen=True)
class Start:
    """What a runner has to be told of an attempt."""

    job: Job
    tenant: str
    user: str
    environment: Saved | None
    image: str
    mounts: tuple[Mount, ...]
    token_for: str


@dataclass(frozen=True)
class Kept:
    """What was stored of an attempt in its wrapper's stead: the log from ``log_from`` on, and the result."""

    log_from: int
    log: Written | None
    result: Written | None


def resolve(tx: UnitOfWork) -> int:
    """Queue the jobs whose environment has been saved, fail those whose environment could not be; return how many."""
    rows = _locked(tx, Phase.SUBMITTED, Job.id)
    return sum(_resolve(tx, row) for row in rows)


def _resolve(tx: UnitOfWork, row: Job) -> bool:
    operation = tx.session.get(Operation, row.operation_id) if row.operation_id else None
    if operation is not None and operation.ended_at is None:
        return False
    checkpoint = tx.session.get(Checkpoint, operation.checkpoint_id) if operation and operation.checkpoint_id else None
    if checkpoint is not None:
        jobs.enqueue(tx, row, checkpoint)
        return True
    cause = operation.error if operation is not None else "Its operation is gone."
    row.ended_at = tx.now
    jobs.enter(
        tx,
        row,
        Phase.FAILED,
        reason="CAPTURE_FAILED",
        message=f"The workspace's environment could not be saved for the job: {cause or 'it was given up.'}",
        next_step="Submit it again, or with the environment `profile`.",
    )
    return True


def admit(tx: UnitOfWork) -> list[str]:
    """Admit what fits, reserve it in this same transaction, and explain the rest; return the new attempts' names."""
    if tx.session.get(Pool, ledger.POOL) is None:
        return []
    rows = _locked(tx, Phase.QUEUED, Job.queued_at, Job.id)
    if not rows:
        return []
    tenants = {tenant_id: ledger.lock(tx, tenant_id) for tenant_id in sorted({row.tenant_id for row in rows})}
    shares = {tenant_id: _share(ledger.tenant_room(tx, tenant)) for tenant_id, tenant in tenants.items()}
    waiting = [Waiting(row.id, row.tenant_id, jobs.amount_of(row)) for row in rows]
    plan = queue.plan(waiting, shares, _share(ledger.pool_room(tx, for_jobs=True)))
    by_id = {row.id: row for row in rows}
    for explained in plan.waiting:
        _explain(tx, by_id[explained.id], explained)
    return [_admit(tx, by_id[job_id]) for job_id in plan.admitted]


def _locked(tx: UnitOfWork, phase: Phase, *order: Any) -> list[Job]:
    """Return the jobs of a phase: all locked before the first change, so that no two transactions cross."""
    return list(tx.session.scalars(select(Job).where(Job.phase == phase).order_by(*order).with_for_update()))


def _share(room: ledger.Room) -> Share:
    return Share(room.limit, room.used)


def _explain(tx: UnitOfWork, row: Job, explained: Explained) -> None:
    if (row.position, row.parts) == (explained.position, list(explained.parts)):
        return
    row.position, row.parts = explained.position, list(explained.parts)
    message = f"Number {explained.position} in the queue. {explained.parts[0]}"
    jobs.enter(tx, row, Phase.QUEUED, reason=row.reason, message=message, next_step="It starts by itself.")


def _admit(tx: UnitOfWork, row: Job) -> str:
    ledger.charge(tx, Claim(row.id, "job", row.tenant_id, row.user_id, jobs.amount_of(row)))
    row.attempt += 1
    attempt = Attempt(job_id=row.id, number=row.attempt, state=AttemptState.ADMITTED, created_at=tx.now)
    tx.session.add(attempt)
    jobs.enter(tx, row, Phase.ADMITTED, message="The job has its resources and is being started.")
    return f"{row.id}-a{row.attempt}"


def open_attempts(tx: UnitOfWork) -> list[Open]:
    """Return every attempt that is not closed."""
    rows = tx.session.execute(
        select(Attempt, Job).join(Job, Job.id == Attempt.job_id).where(Attempt.state != AttemptState.CLOSED)
    )
    return [
        Open(
            job_id=attempt.job_id,
            number=attempt.number,
            state=AttemptState(attempt.state),
            handle=attempt.handle,
            cancelled=job.desired == Desired.CANCELLED,
            ended_for_s=(tx.now - attempt.ended_at).total_seconds() if attempt.ended_at else 0.0,
        )
        for attempt, job in rows
    ]


def closed_names(tx: UnitOfWork, names: Collection[str]) -> list[str]:
    """Return those of ``names`` whose attempt is closed; what is not known here is not among them."""
    keys = [(name.rpartition("-a")[0], int(name.rpartition("-a")[2])) for name in names]
    found = [tx.session.get(Attempt, key) for key in keys]
    return [f"{row.job_id}-a{row.number}" for row in found if row is not None and row.state == AttemptState.CLOSED]


def start_of(tx: UnitOfWork, settings: Settings, job_id: str) -> Start:
    """Return what a runner has to be told of the job's newest attempt.

    Raises:
        Conflict: when the image that it needs cannot be had; the text says why.
        PlaceUnready: when it cannot be had yet.
    """
    row = tx.session.get_one(Job, job_id)
    saved = tx.session.get(Checkpoint, row.checkpoint_id) if row.checkpoint_id else None
    environment = None
    if saved is not None:
        environment = Saved(saved.id, saved.repository, saved.digest, saved.python_version, saved.platform_version)
    tenant, user = tx.session.get_one(Tenant, row.tenant_id), tx.session.get_one(User, row.user_id)
    workspace = tx.session.get(Workspace, row.workspace_id) if row.workspace_id else None
    profile = tx.session.get_one(Profile, workspace.profile_id) if workspace else images.default_profile(tx)
    if environment is None:
        images.require_profile(settings, profile)
    return Start(
        row,
        tenant.name,
        user.name,
        environment,
        images.of_environment(settings, profile, environment),
        starts.data_mounts(tx, settings, tenant.id, user),
        f"{row.id}-a{row.attempt}",
    )


def started(tx: UnitOfWork, job_id: str, number: int, handle: str) -> None:
    """Save the handle of a start; the wrapper may have reported before."""
    attempt = tx.session.get_one(Attempt, (job_id, number))
    row = jobs.lock(tx, job_id)
    attempt.handle = handle
    if attempt.state == AttemptState.ADMITTED:
        attempt.state = AttemptState.STARTED
    if row.phase == Phase.ADMITTED:
        jobs.enter(tx, row, Phase.STARTING, message="The job's processes are starting.")


def explain_start(tx: UnitOfWork, job_id: str, message: str) -> None:
    """Say what the job's newest attempt, which has its resources, waits for; nothing once it runs."""
    row = jobs.lock(tx, job_id)
    if row.phase in (Phase.ADMITTED, Phase.STARTING):
        jobs.enter(tx, row, Phase(row.phase), message=message or "The job's processes are starting.")


def start_failed(tx: UnitOfWork, job_id: str, number: int, message: str, *, reason: str = LOST) -> None:
    """Record that an attempt could not be started; unless ``reason`` is another, it is repeated within the job's budget."""
    close(tx, job_id, number, Report(None, reason, message, None))


def log_end(tx: UnitOfWork, attempt: Open) -> int:
    """Return how much of an attempt's log is stored, in bytes."""
    return attempts.stored_log(tx, attempt.job_id, attempt.number, 0)[1]


def close(tx: UnitOfWork, job_id: str, number: int, report: Report, kept: Kept | None = None) -> None:
    """Close an attempt whose processes are gone: take ``report`` where it told nothing itself, and release what it held."""
    attempt = tx.session.get_one(Attempt, (job_id, number))
    if attempt.state == AttemptState.CLOSED:
        return
    row = jobs.lock(tx, job_id)
    if kept is not None and kept.log is not None:
        attempts.add_segment(tx, row, attempt, 0, kept.log_from, kept.log)
    known = report.reason not in (LOST, STOPPED)
    if kept is not None and kept.result is not None and known and not row.result_key:
        attempts.set_result(tx, row, kept.result)
    attempts.ended(tx, row, attempt, report)
    attempt.state = AttemptState.CLOSED
    ledger.release(tx, job_id)
    jobs.changed(tx, row, "released", attempt=number)
