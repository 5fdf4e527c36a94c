"""Starts and wakes: one idempotent request that the hub's spawner repeats until it ends in a grant or a refusal."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from torpor_hub import __version__
from torpor_hub.domain import ids, saving
from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.lifecycle import StartStep
from torpor_hub.domain.policy import Action, Object, may
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint as Saved
from torpor_hub.domain.workspaces import Desired, EnvironmentChoice, Fact, Mount, Phase, WorkspaceRun
from torpor_hub.errors import Conflict, PlaceUnready
from torpor_hub.places.base import Preparation
from torpor_hub.services import images, ledger, operations, people
from torpor_hub.services.access import refusal
from torpor_hub.services.resources import iso
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Grant, Operation, Profile, Tenant, User, Workspace

REFUSAL_S = 20
PROGRESS = {StartStep.PREPARE: 10, StartStep.HUB: 40, StartStep.LAUNCH: 60, StartStep.DONE: 100}
SENTENCES = {
    StartStep.PREPARE: "Preparing the environment.",
    StartStep.HUB: "The environment is ready; starting the server.",
    StartStep.LAUNCH: "Waiting for the server's first answer.",
}


@dataclass(frozen=True)
class Waiting:
    """The start goes on; repeat the request."""

    operation: str
    progress: int
    message: str


@dataclass(frozen=True)
class Granted:
    """Leave to start what ``run`` says, once, until ``expires_at``."""

    id: str
    expires_at: str
    run: dict[str, Any]
    notice: str


def begin(tx: UnitOfWork, settings: Settings, row: Workspace, choice: EnvironmentChoice) -> Operation:
    """Reserve what the workspace needs and begin its start, in this transaction.

    Raises:
        QuotaExceeded: when there is no room; nothing is begun.
        Conflict: when the asked environment does not exist, the profile's image cannot be had, or nobody can work in the tenant.
    """
    problem = tx.session.get_one(Tenant, row.tenant_id).problem
    if problem:
        raise Conflict(problem, next_step="Tell a platform admin.")
    _require_environment(tx, settings, row, choice)
    ledger.reserve(tx, claim_of(tx, row))
    row.desired, row.environment, row.discard = Desired.RUNNING, choice, False
    waking = row.phase == Phase.ASLEEP and choice is not EnvironmentChoice.PROFILE
    operation = operations.begin(
        tx,
        row,
        "wake" if waking else "start",
        StartStep.PREPARE,
        deadline_s=settings.limits.start_s,
        payload={"before": row.phase, "choice": str(choice)},
    )
    row.operation_id, row.grant_id = operation.id, None
    operations.enter(tx, row, Phase.WAKING if waking else Phase.STARTING, message=SENTENCES[StartStep.PREPARE])
    return operation


def _require_environment(tx: UnitOfWork, settings: Settings, row: Workspace, choice: EnvironmentChoice) -> None:
    if choice is EnvironmentChoice.PREVIOUS and row.previous_checkpoint_id is None:
        raise Conflict(
            f"'{row.name}' has no previous environment.", next_step="Start with the current one, or the profile's."
        )
    if choice is EnvironmentChoice.PROFILE or row.checkpoint_id is None:
        with suppress(PlaceUnready):  # waited for before the grant
            images.require(tx, settings, row)
    elif not row.unsaved and not settings.save_environments:
        raise refusal(saving.NO_WAKE)


def claim_of(tx: UnitOfWork, row: Workspace) -> ledger.Claim:
    """Return what the workspace holds of its tenant's quota while it runs."""
    profile = tx.session.get_one(Profile, row.profile_id)
    amount = Amount(profile.cpu_milli, profile.memory_bytes, profile.gpu_count)
    return ledger.Claim(row.id, "workspace", row.tenant_id, row.user_id, amount)


def answer(tx: UnitOfWork, settings: Settings, row: Workspace) -> Waiting | Granted:
    """Return how the start stands; the spawner repeats until it is granted, and each repeat renews the grant.

    Raises:
        Conflict: when the start failed a moment ago; the text is the cause. The next request begins anew.
        QuotaExceeded: when it would have to begin, and there is no room.
    """
    if row.phase == Phase.SLEEPING:
        return Waiting(row.operation_id or "", 5, "The workspace is going to sleep; it wakes right after.")
    if row.phase == Phase.DELETING:
        raise Conflict(f"'{row.name}' is being deleted.", next_step="Make a new workspace.")
    if row.phase in (Phase.RUNNING, Phase.UNREACHABLE) and row.grant_id:
        return _granted(tx, settings, tx.session.get_one(Grant, row.grant_id))
    operation = operations.current(tx, row)
    if operation is None or row.phase not in (Phase.STARTING, Phase.WAKING):
        _refuse_once(tx, row)
        operation = begin(tx, settings, row, EnvironmentChoice.CURRENT)
    if operation.step == StartStep.HUB:
        return _granted(tx, settings, _grant(tx, settings, row, operation))
    if row.grant_id and operation.step == StartStep.LAUNCH:
        return _granted(tx, settings, tx.session.get_one(Grant, row.grant_id))
    return Waiting(operation.id, PROGRESS.get(StartStep(operation.step), 0), row.message)


def preparation(tx: UnitOfWork, row: Workspace) -> tuple[Preparation, str]:
    """Return what the environment has to be before the start, and the id of the checkpoint that it comes from."""
    user, tenant = tx.session.get_one(User, row.user_id), tx.session.get_one(Tenant, row.tenant_id)
    choice, wanted = EnvironmentChoice(row.environment), None
    if choice is EnvironmentChoice.PREVIOUS:
        wanted = row.previous_checkpoint_id
    elif choice is EnvironmentChoice.CURRENT and not row.unsaved:
        wanted = row.checkpoint_id
    saved = tx.session.get(Checkpoint, wanted) if wanted else None
    fresh = choice is not EnvironmentChoice.CURRENT or (saved is None and not row.unsaved)
    return (
        Preparation(row.id, tenant.name, user.name, tenant.id, user.id, checkpoint=_saved(saved), fresh=fresh),
        saved.id if saved else "",
    )


def prepared(tx: UnitOfWork, row: Workspace, *, from_checkpoint: str, notice: str) -> None:
    """Record that the environment is ready; the next request of the spawner gets the grant."""
    operation = operations.current(tx, row)
    if operation is None or operation.step != StartStep.PREPARE:
        return
    operation.step = StartStep.HUB
    operation.checkpoint_id = from_checkpoint or None
    row.notice = notice
    row.message, row.next_step = SENTENCES[StartStep.HUB], ""
    operations.changed(tx, row, "prepared")


def waiting(tx: UnitOfWork, row: Workspace, step: StartStep, sentence: str, next_step: str = "") -> None:
    """Record what a start waits for at this step before it can go on; said once, shown until something else is."""
    operation = operations.current(tx, row)
    if operation is None or operation.step != step or (row.message, row.next_step) == (sentence, next_step):
        return
    row.message, row.next_step = sentence, next_step
    operations.changed(tx, row, "waits")


def hindered(tx: UnitOfWork, row: Workspace, cause: Cause, *, final: bool) -> None:
    """Record what keeps the hub from making the server, as it told; ``final``: it has given this start up, and knows why.

    Of a server that was made, the place knows more.
    """
    operation = operations.current(tx, row)
    if operation is None or operation.step != StartStep.LAUNCH or row.handle:
        return
    if not final:
        waiting(tx, row, StartStep.LAUNCH, cause.message, cause.next_step)
        return
    failed(tx, row, code=cause.reason, message=cause.message, next_step=cause.next_step)
    operation.delivered_at = tx.now


def overdue(tx: UnitOfWork, row: Workspace, seconds: float) -> str:
    """Return why a start that is past its deadline never came to an answer."""
    operation = operations.current(tx, row)
    if operation is not None and row.message not in SENTENCES.values():
        return f"{row.message} The start was given up after {seconds:.0f} seconds."
    return f"The server did not answer within {seconds:.0f} seconds."


def failed(
    tx: UnitOfWork, row: Workspace, *, code: str, message: str, next_step: str, phase: Phase = Phase.FAILED
) -> None:
    """End a start that cannot succeed: what it held is free, and the page says why."""
    operation = operations.current(tx, row)
    if operation is not None:
        operations.end(tx, operation, StartStep.FAIL, code=code, error=message, next_step=next_step)
    _let_go(tx, row)
    operations.enter(tx, row, phase, reason=code, message=message, next_step=next_step)


def expired(tx: UnitOfWork, row: Workspace) -> None:
    """Take back a grant that nobody used: the workspace is again what it was before."""
    operation = operations.current(tx, row)
    before = Phase(operation.payload.get("before", Phase.STOPPED)) if operation is not None else Phase.STOPPED
    failed(
        tx,
        row,
        code="GRANT_EXPIRED",
        message="The hub did not start the server in time.",
        next_step="Start it again.",
        phase=before if before is not Phase.FAILED else Phase.STOPPED,
    )


def launched(tx: UnitOfWork, row: Workspace, fact: Fact) -> None:
    """Record the process that turned up for the grant, once, and where it runs, as far as that is known yet."""
    row.node, row.container = fact.node, fact.container
    if row.handle == fact.handle:
        return
    row.handle, row.grant_id, row.unsaved, row.last_log = fact.handle, fact.grant_id, True, ""
    grant = tx.session.get(Grant, fact.grant_id)
    if grant is not None:
        grant.used_at = tx.now
    operations.changed(tx, row, "launched")


def running(tx: UnitOfWork, row: Workspace, fact: Fact) -> None:
    """Record that the server answers."""
    launched(tx, row, fact)
    ledger.charge(tx, claim_of(tx, row))
    operation = operations.current(tx, row)
    if operation is not None:
        operations.end(tx, operation, StartStep.DONE)
    row.operation_id, row.last_log, row.lost = None, "", ""
    operations.enter(tx, row, Phase.RUNNING, message=row.notice)


def _let_go(tx: UnitOfWork, row: Workspace) -> None:
    ledger.release(tx, row.id)
    row.operation_id, row.grant_id, row.handle, row.desired = None, None, "", Desired.STOPPED


def _refuse_once(tx: UnitOfWork, row: Workspace) -> None:
    """Tell the spawner of a start that failed a moment ago, once: the request that began it is still repeated."""
    last = tx.session.scalar(
        select(Operation)
        .where(Operation.workspace_id == row.id, Operation.kind.in_(("start", "wake")))
        .order_by(Operation.id.desc())
        .limit(1)
    )
    fresh = last is not None and last.ended_at is not None and tx.now - last.ended_at < timedelta(seconds=REFUSAL_S)
    if last is None or not fresh or last.step != StartStep.FAIL or last.delivered_at is not None:
        return
    raise Refused(last)


class Refused(Conflict):
    """The start failed; carries the operation, so that the refusal can be marked as delivered."""

    code = "start_failed"

    def __init__(self, operation: Operation) -> None:
        super().__init__(operation.error, next_step=operation.next_step, reason=operation.error_code)
        self.operation_id = operation.id


def delivered(tx: UnitOfWork, operation_id: str) -> None:
    """Record that the refusal reached the spawner."""
    operations.get(tx, operation_id).delivered_at = tx.now


def _grant(tx: UnitOfWork, settings: Settings, row: Workspace, operation: Operation) -> Grant:
    grant = Grant(
        id=ids.new("gr"),
        workspace_id=row.id,
        operation_id=operation.id,
        run={},
        created_at=tx.now,
        expires_at=tx.now,
    )
    grant.run = _run(tx, settings, row, grant.id, operation.checkpoint_id).to_json()
    tx.session.add(grant)
    operation.step, row.grant_id = StartStep.LAUNCH, grant.id
    row.message, row.next_step = SENTENCES[StartStep.LAUNCH], ""
    operations.changed(tx, row, "granted", grant=grant.id)
    return grant


def _granted(tx: UnitOfWork, settings: Settings, grant: Grant) -> Granted:
    grant.expires_at = tx.now + timedelta(seconds=settings.limits.grant_s)
    row = tx.session.get_one(Workspace, grant.workspace_id)
    return Granted(grant.id, iso(grant.expires_at) or "", grant.run, row.notice)


def _run(tx: UnitOfWork, settings: Settings, row: Workspace, grant_id: str, checkpoint_id: str | None) -> WorkspaceRun:
    user, tenant = tx.session.get_one(User, row.user_id), tx.session.get_one(Tenant, row.tenant_id)
    saved = tx.session.get(Checkpoint, checkpoint_id) if checkpoint_id else None
    profile = tx.session.get_one(Profile, row.profile_id)
    environment = {
        "TORPOR_URL": settings.service_url,
        "TORPOR_WORKSPACE": row.id,
        "TORPOR_WORKSPACE_NAME": row.name,
        "TORPOR_TENANT": tenant.name,
        "TORPOR_PROFILE": profile.name,
        "TORPOR_PAGE": f"{settings.service_path}workspaces/{row.id}",
    }
    if settings.java_home:
        environment["JAVA_HOME"] = settings.java_home
    return WorkspaceRun(
        workspace_id=row.id,
        grant_id=grant_id,
        name=row.name,
        tenant=tenant.name,
        user=user.name,
        profile=profile.name,
        amount=claim_of(tx, row).amount,
        root_dir=settings.workspace_dir(row.id),
        home_dir=settings.home_dir(tenant.name, user.name),
        environment=environment,
        checkpoint=_saved(saved),
        restored=EnvironmentChoice(row.environment),
        tenant_id=tenant.id,
        user_id=user.id,
        image=images.of_environment(settings, profile, _saved(saved)),
        mounts=data_mounts(tx, settings, tenant.id, user),
    )


def data_mounts(tx: UnitOfWork, settings: Settings, tenant_id: str, user: User) -> tuple[Mount, ...]:
    """Return what a user's workspaces and jobs in a tenant see as files: the platform's own data, where there is a claim of it.

    Only who may read the tenant's datasets has it: not a viewer who was a member when the workspace was made.
    """
    owner = people.person(tx, user.name, can_write=False)
    if not settings.cluster.data_source or not may(owner, Action.READ, Object("dataset", "", tenant_id)):
        return ()
    return (Mount(f"data-{tenant_id}", str(settings.data_dir)),)


def _saved(row: Checkpoint | None) -> Saved | None:
    if row is None:
        return None
    return Saved(row.id, row.repository, row.digest, row.python_version, row.platform_version)


def versions() -> tuple[str, str]:
    """Return the Python minor version and the platform's own, which a checkpoint records."""
    return ".".join(platform.python_version_tuple()[:2]), __version__
