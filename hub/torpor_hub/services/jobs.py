"""Jobs as people submit, see and cancel them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from torpor_hub.domain import ids, queue, saving
from torpor_hub.domain.job_specs import Spec, SpecError, parse_spec
from torpor_hub.domain.jobs import FINAL, Desired, Phase, may_become
from torpor_hub.domain.policy import Action, Actor, Object, Role, may
from torpor_hub.domain.units import Amount
from torpor_hub.errors import InvalidRequest, QuotaExceeded, TooLarge
from torpor_hub.services import captures, ledger, repeats, tenants, workspaces
from torpor_hub.services.access import check, missing, refusal
from torpor_hub.services.people import tenant_named
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.blobs import Blobs, Written
from torpor_hub.stores.tables import Checkpoint, Job, Pool, Profile, Tenant, Workspace

MIB = 1024**2


@dataclass(frozen=True)
class Submission:
    """A spec and its code as they came; ``bundle`` is stored already."""

    spec: Any
    bundle: Written | None = None
    key: str = ""


def store_bundle(blobs: Blobs, settings: Settings, content: bytes) -> Written:
    """Store submitted code by its hash, before any transaction; the same code is stored once.

    Raises:
        TooLarge: beyond the limit of one submit.
    """
    most = settings.limits.bundle_bytes
    if len(content) > most:
        raise TooLarge(
            f"The code and its arguments have {len(content) / MIB:.1f} MiB; one submit takes {most // MIB} MiB.",
            next_step="Put large data into your home or a dataset and read it in the job.",
            pointer="/bundle",
        )
    return blobs.put(f"bundles/{hashlib.sha256(content).hexdigest()}", [content])


def submit(tx: UnitOfWork, settings: Settings, actor: Actor, submission: Submission) -> Job:
    """Record a job and return it at once; it is queued as soon as its environment is fixed.

    Raises:
        InvalidRequest: when a field is wrong, or the bundle is not what the spec says.
        QuotaExceeded: when the job could never run.
        Conflict: when its environment, or its profile's image, cannot be had.
        NotFound, Forbidden: when the actor may not submit there.
    """
    try:
        spec = parse_spec(submission.spec, retries=settings.limits.job_retries)
    except SpecError as error:
        raise InvalidRequest(str(error), next_step=error.next_step, pointer=error.pointer) from error
    _check_bundle(spec, submission.bundle)
    workspace = workspaces.find(tx, actor, spec.workspace, Action.READ) if spec.workspace else None
    tenant = _tenant(tx, actor, spec, workspace)
    check(actor, Action.CREATE, Object("job", "", tenant.id, actor.user_id))

    def make() -> str:
        _check_profile(tx, spec, workspace)
        _check_amount(tx, tenant, spec.amount)
        return _make(tx, settings, actor, spec, submission, tenant, workspace).id

    made = repeats.once(tx, actor, submission.key, {"route": "jobs", "spec": submission.spec}, make)
    return tx.session.get_one(Job, made)


def thing(row: Job) -> Object:
    """Return the job as the policy sees it."""
    return Object("job", row.id, row.tenant_id, row.user_id)


def find(tx: UnitOfWork, actor: Actor, job_id: str, action: Action = Action.SEE) -> Job:
    """Return a job when the actor may do ``action`` to it.

    Raises:
        NotFound: when there is none, or the actor may not see it.
        Forbidden: when the actor may see it, but not do this.
    """
    row = tx.session.get(Job, job_id)
    if row is None:
        raise missing("job", job_id)
    check(actor, action, thing(row))
    return row


@dataclass(frozen=True)
class Filter:
    """Which jobs a list shows; ``tenant`` is a name, and asks for everybody's jobs there that one may see."""

    tenant: str | None = None
    workspace: str | None = None
    phase: str | None = None


def listed(tx: UnitOfWork, actor: Actor, wanted: Filter, *, limit: int, offset: int) -> list[Job]:
    """Return the jobs that the actor may see, newest first; one more than ``limit`` if there are more."""
    query = select(Job).order_by(Job.id.desc())
    if wanted.phase:
        query = query.where(Job.phase == wanted.phase.upper())
    if wanted.workspace:
        query = query.where(Job.workspace_id == wanted.workspace)
    if wanted.tenant is None:
        query = query.where(Job.user_id == actor.user_id)
        return list(tx.session.scalars(query.limit(limit + 1).offset(offset)))
    tenant = tenant_named(tx, wanted.tenant)
    check(actor, Action.SEE, Object("tenant", tenant.id, tenant.id))
    rows = tx.session.scalars(query.where(Job.tenant_id == tenant.id))
    return [row for row in rows if may(actor, Action.SEE, thing(row))][offset : offset + limit + 1]


def lock(tx: UnitOfWork, job_id: str) -> Job:
    """Return a job, locked.

    Raises:
        NotFound: when there is none.
    """
    row = tx.session.execute(select(Job).where(Job.id == job_id).with_for_update()).scalar_one_or_none()
    if row is None:
        raise missing("job", job_id)
    return row


def wish(tx: UnitOfWork, row: Job, spec: dict[str, Any]) -> None:
    """Record that the owner wants the job ended; harmless for one that has ended.

    Raises:
        InvalidRequest: when the wish is none.
    """
    if spec.get("desired") != Desired.CANCELLED or len(spec) != 1:
        raise InvalidRequest(
            "Of a job only `desired: cancelled` can be wished.", next_step="Send just that.", pointer="/spec/desired"
        )
    if row.phase in FINAL or row.desired == Desired.CANCELLED:
        return
    row.desired = Desired.CANCELLED
    if row.phase in (Phase.SUBMITTED, Phase.QUEUED, Phase.PREEMPTED):
        row.ended_at = tx.now
        enter(tx, row, Phase.CANCELLED, reason="CANCELLED", message="The job was cancelled before it ran.")
    else:
        enter(tx, row, Phase.CANCELLING, reason="CANCELLED", message="The job is being ended.")


def enter(tx: UnitOfWork, row: Job, phase: Phase, *, reason: str = "", message: str = "", next_step: str = "") -> None:
    """Bring the job into a phase, with the sentence that explains it.

    Raises:
        ValueError: when a job cannot pass from its phase to this one; a fault of ours.
    """
    if row.phase != phase:
        if not may_become(Phase(row.phase), phase):
            raise ValueError(f"{row.id}: no way from {row.phase} to {phase}")
        row.since = tx.now
    row.phase, row.reason, row.message, row.next_step = phase, reason, message, next_step
    if phase is not Phase.QUEUED:
        row.position, row.parts = None, []
    changed(tx, row, phase.lower(), attempt=row.attempt)


def changed(tx: UnitOfWork, row: Job, event: str, **payload: Any) -> None:
    """Give the job its next version and record the change."""
    tx.touch(row)
    tx.change("job", row.id, event, tenant_id=row.tenant_id, owner_id=row.user_id, **payload)


def amount_of(row: Job) -> Amount:
    """Return what all ranks of the job need together."""
    return Amount(row.cpu_milli * row.ranks, row.memory_bytes * row.ranks)


def most(tx: UnitOfWork, tenant: Tenant) -> tuple[Amount, Amount | None]:
    """Return the most that a job can ever have of its tenant, and of the pool (None until the place has said)."""
    pool = tx.session.get(Pool, ledger.POOL)
    lent = None
    if pool is not None:
        lent = Amount(pool.cpu_milli - pool.floor_cpu_milli, pool.memory_bytes - pool.floor_memory_bytes)
    return Amount(tenant.cpu_milli, tenant.memory_bytes), lent


def profile_of(tx: UnitOfWork, workspace: Workspace | None) -> Profile:
    """Return the profile that a job of the workspace, or of none, runs on."""
    if workspace is None:
        return tenants.profile_named(tx, None)
    return tx.session.get_one(Profile, workspace.profile_id)


def tenant_of(tx: UnitOfWork, actor: Actor, workspace: Workspace | None) -> Tenant:
    """Return the tenant of a job that names none: the workspace's, else the actor's first.

    Raises:
        InvalidRequest: when the actor is a member of none.
    """
    if workspace is not None:
        return tx.session.get_one(Tenant, workspace.tenant_id)
    for row in tx.session.scalars(select(Tenant).order_by(Tenant.created_at, Tenant.id)):
        if actor.has(row.id, Role.MEMBER):
            return row
    raise InvalidRequest(
        "You are a member of no tenant.", next_step="Ask a tenant's admin for membership.", pointer="/spec/tenant"
    )


def _check_bundle(spec: Spec, bundle: Written | None) -> None:
    if spec.has_bundle and bundle is None:
        raise InvalidRequest(
            "The function's bundle is missing.", next_step="Send the part `bundle`.", pointer="/bundle"
        )
    if not spec.has_bundle and bundle is not None:
        raise InvalidRequest("A command has no bundle.", next_step="Leave out the part `bundle`.", pointer="/bundle")
    if bundle is not None and bundle.sha256 != spec.code["sha256"]:
        raise InvalidRequest(
            "The bundle does not have the sha256 that the spec names.", next_step="Send it again.", pointer="/bundle"
        )


def _tenant(tx: UnitOfWork, actor: Actor, spec: Spec, workspace: Workspace | None) -> Tenant:
    if spec.tenant is None:
        return tenant_of(tx, actor, workspace)
    tenant = tenant_named(tx, spec.tenant)
    check(actor, Action.SEE, Object("tenant", tenant.id, tenant.id))
    if workspace is not None and workspace.tenant_id != tenant.id:
        raise InvalidRequest(
            f"The workspace '{workspace.name}' belongs to another tenant than '{tenant.name}'.",
            next_step="Leave out the tenant: a job of a workspace belongs to its tenant.",
            pointer="/spec/tenant",
        )
    return tenant


def _check_profile(tx: UnitOfWork, spec: Spec, workspace: Workspace | None) -> None:
    profile = profile_of(tx, workspace)
    if spec.environment == "profile":
        tenants.require_usable(profile)
    if spec.kind not in profile.kinds:
        able = [row.name for row in tx.session.scalars(select(Profile)) if spec.kind in row.kinds]
        raise InvalidRequest(
            f"The profile '{profile.name}' cannot run jobs of kind '{spec.kind}'.",
            next_step=f"Use a workspace with one of: {', '.join(able)}." if able else "Choose another kind.",
            pointer="/spec/kind",
        )


def _check_amount(tx: UnitOfWork, tenant: Tenant, amount: Amount) -> None:
    of_tenant, of_pool = most(tx, tenant)
    reasons = queue.never(amount, of_tenant, of_tenant if of_pool is None else of_pool)
    if reasons:
        raise QuotaExceeded(
            " ".join(reasons),
            next_step="Ask for less, or ask an admin for more.",
            pointer="/spec/amount",
            tenant_cpu_milli=of_tenant.cpu_milli,
            tenant_memory_bytes=of_tenant.memory_bytes,
            asked_cpu_milli=amount.cpu_milli,
            asked_memory_bytes=amount.memory_bytes,
        )


def _make(
    tx: UnitOfWork,
    settings: Settings,
    actor: Actor,
    spec: Spec,
    submission: Submission,
    tenant: Tenant,
    workspace: Workspace | None,
) -> Job:
    row = Job(
        id=ids.new("job"),
        name=spec.name,
        created_at=tx.now,
        since=tx.now,
        phase=Phase.SUBMITTED,
        tenant_id=tenant.id,
        user_id=actor.user_id,
        workspace_id=workspace.id if workspace else None,
        kind=spec.kind,
        spec={
            "environment": spec.environment,
            "code": dict(spec.code),
            "timeout_s": spec.timeout_s,
            "retries": spec.retries,
        },
        spec_hash=hashlib.sha256(json.dumps(submission.spec, sort_keys=True).encode()).hexdigest(),
        retries_left=spec.retries,
        cpu_milli=spec.amount.cpu_milli,
        memory_bytes=spec.amount.memory_bytes,
    )
    if submission.bundle is not None:
        found = submission.bundle
        row.bundle_key, row.bundle_bytes, row.bundle_sha256 = found.key, found.size_bytes, found.sha256
    tx.session.add(row)
    tx.session.flush()
    changed(tx, row, "submitted")
    _fix_environment(tx, settings, actor, row, spec, workspace)
    return row


def _fix_environment(
    tx: UnitOfWork, settings: Settings, actor: Actor, row: Job, spec: Spec, workspace: Workspace | None
) -> None:
    checkpoint = None
    if not settings.save_environments:
        row.notice = _without_saving(spec, workspace)
    elif spec.environment == "workspace" and workspace is not None:
        row.operation_id, checkpoint = captures.request_checkpoint(tx, settings, workspace)
        if row.operation_id is not None:
            message = f"The environment of '{workspace.name}' is being saved for this job."
            enter(tx, row, Phase.SUBMITTED, reason="CAPTURING_ENVIRONMENT", message=message)
            return
    elif spec.environment.startswith("sha256:"):
        checkpoint = _own_checkpoint(tx, actor, spec.environment)
    enqueue(tx, row, checkpoint)


def _without_saving(spec: Spec, workspace: Workspace | None) -> str:
    """Return what a job has to know where environments are not saved; empty where it asks for none.

    Raises:
        Conflict: when it asks for one by its digest.
    """
    if spec.environment.startswith("sha256:"):
        raise refusal(saving.NO_DIGEST, pointer="/spec/environment")
    return saving.JOBS if spec.environment == "workspace" and workspace is not None else ""


def enqueue(tx: UnitOfWork, row: Job, checkpoint: Checkpoint | None) -> None:
    """Put the job into the queue, with its environment fixed: a checkpoint, or the profile's own."""
    row.queued_at = tx.now
    if checkpoint is not None:
        row.checkpoint_id, row.environment_digest = checkpoint.id, checkpoint.digest
    enter(tx, row, Phase.QUEUED, message="The job waits for its turn.")


def _own_checkpoint(tx: UnitOfWork, actor: Actor, digest: str) -> Checkpoint:
    rows = tx.session.execute(
        select(Checkpoint, Workspace)
        .join(Workspace, Workspace.id == Checkpoint.workspace_id)
        .where(Checkpoint.digest == digest)
    )
    for checkpoint, workspace in rows:
        if workspace.user_id == actor.user_id:
            return checkpoint
    raise InvalidRequest(
        f"None of your workspaces has a checkpoint {digest}.",
        next_step="Choose one from the list of a workspace's checkpoints.",
        pointer="/spec/environment",
    )
