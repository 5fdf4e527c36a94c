"""Captures as tasks: sleeps and checkpoints that an agent claims, reports on and ends."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select

from torpor_hub.domain import ids
from torpor_hub.domain.workspaces import Phase, SleepStep
from torpor_hub.errors import StaleFence
from torpor_hub.services import images, operations, sleeps
from torpor_hub.services.resources import iso
from torpor_hub.services.starts import versions
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Operation, Tenant, Workspace

KINDS = ("sleep", "checkpoint")
HEARTBEAT_S = 0.5


@dataclass(frozen=True)
class Claim:
    """What an agent is told. ``root`` is the workspace's folder, ``source`` the environment in it.

    Where workspaces are containers, ``node`` and ``container`` say which, ``base`` the image that it began with, as
    ``repository@digest``, and ``registry`` where to write, with the credential for that.
    """

    operation: str
    kind: str
    fence: int
    workspace: str
    handle: str
    root: str
    source: str
    repository: str
    tag: str
    parent_digest: str | None
    annotations: dict[str, str]
    thaw_after_s: int
    heartbeat_s: float
    node: str
    container: str
    base: str
    registry: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What an agent reports of a capture that was written, read back and verified."""

    digest: str
    layers: list[dict[str, Any]]
    entries: int
    changed: bool
    skipped: list[str]
    frozen_s: float | None = None


def request_checkpoint(
    tx: UnitOfWork, settings: Settings, workspace: Workspace
) -> tuple[str | None, Checkpoint | None]:
    """Return the operation that will save the environment as it is now, or the checkpoint that has it already.

    Both None: there is nothing to save, the environment is the profile's own. A checkpoint that nobody has begun yet is shared.
    """
    if not workspace.unsaved:
        return None, tx.session.get(Checkpoint, workspace.checkpoint_id) if workspace.checkpoint_id else None
    waiting = tx.session.scalar(
        select(Operation).where(
            Operation.workspace_id == workspace.id,
            Operation.kind == "checkpoint",
            Operation.ended_at.is_(None),
            Operation.claimed_by == "",
        )
    )
    if waiting is not None:
        return waiting.id, None
    operation = operations.begin(
        tx,
        workspace,
        "checkpoint",
        SleepStep.QUIESCE,
        deadline_s=settings.limits.sleep_s,
        handle=workspace.handle,
        thaw_after_s=int(settings.limits.thaw_after_s),
    )
    return operation.id, None


def claim(tx: UnitOfWork, settings: Settings, agent: str, node: str) -> Claim | None:
    """Give the oldest capture of ``node`` that waits, or whose agent went silent, to ``agent``; None when there is none.

    One capture per workspace: a checkpoint waits while the workspace sleeps or starts.
    """
    query = (
        select(Operation)
        .where(Operation.kind.in_(KINDS), Operation.ended_at.is_(None), Operation.step != SleepStep.REMOVE)
        .where(or_(Operation.claimed_until.is_(None), Operation.claimed_until < tx.now))
        .order_by(Operation.id)
        .with_for_update(skip_locked=True)
    )
    for operation in tx.session.scalars(query):
        workspace = operations.workspace_of(tx, operation.workspace_id)
        if workspace.node != node or not _ready(tx, workspace, operation):
            continue
        operation.fence += 1
        operation.claimed_by = agent
        operation.claimed_until = tx.now + timedelta(seconds=settings.limits.claim_s)
        operation.parent_digest = _newest_digest(tx, workspace)
        if operation.kind == "checkpoint":
            workspace.operation_id, operation.handle = operation.id, workspace.handle
        operation.node = node
        operations.changed(tx, workspace, f"{operation.kind}-claimed")
        return _claim(tx, settings, workspace, operation)
    return None


def node_of(tx: UnitOfWork, operation_id: str) -> str:
    """Return the node on which a capture takes place; empty where there is but one.

    Raises:
        NotFound: when there is no such operation.
    """
    return operations.get(tx, operation_id).node


def progress(
    tx: UnitOfWork, settings: Settings, operation_id: str, fence: int, *, step: str, done: int, total: int
) -> bool:
    """Record the agent's heartbeat; return whether it should give up and thaw.

    Raises:
        StaleFence: when another claim has taken over.
    """
    operation = operations.get(tx, operation_id)
    if operation.ended_at is not None:
        return True
    _check_fence(operation, fence)
    if operation.step == SleepStep.REMOVE:
        # Its own result has overtaken this heartbeat: the sleep must not fall back behind that.
        return False
    operation.claimed_until = tx.now + timedelta(seconds=settings.limits.claim_s)
    if (operation.step, operation.bytes_done) != (step, done):
        operation.step, operation.bytes_done, operation.bytes_total = SleepStep(step), done, total
        operations.changed(tx, operations.workspace_of(tx, operation.workspace_id), "capture-progress")
    return operation.cancel


def finish(tx: UnitOfWork, settings: Settings, operation_id: str, fence: int, result: Result) -> bool:
    """Record a verified capture; return whether the agent should leave the workspace frozen for its removal.

    ``result.frozen_s``: for how long nobody thaws it, counted from now.

    Raises:
        StaleFence: when another claim has taken over, or the operation was given up.
    """
    operation = operations.get(tx, operation_id)
    if operation.result_digest == result.digest and operation.step in (SleepStep.REMOVE, SleepStep.DONE):
        return True
    _check_fence(operation, fence)
    workspace = operations.workspace_of(tx, operation.workspace_id)
    checkpoint = _checkpoint(tx, settings, workspace, operation, result)
    if result.frozen_s is not None:
        operation.frozen_until = tx.now + timedelta(seconds=result.frozen_s)
    operation.bytes_done = operation.bytes_total
    operation.claimed_by, operation.claimed_until = "", None
    if operation.kind == "sleep":
        return sleeps.saved(tx, workspace, operation, checkpoint)
    operation.result_digest, operation.checkpoint_id = checkpoint.digest, checkpoint.id
    operations.end(tx, operation, SleepStep.DONE)
    _leave(workspace, operation)
    operations.changed(tx, workspace, "checkpoint-done", operation=operation.id)
    return False


def fail(tx: UnitOfWork, operation_id: str, fence: int, *, code: str, message: str) -> None:
    """Record that a capture was given up; the agent has thawed the workspace before it says so.

    Raises:
        StaleFence: when another claim has taken over.
    """
    operation = operations.get(tx, operation_id)
    if operation.ended_at is not None:
        operation.claimed_by = ""
        return
    _check_fence(operation, fence)
    workspace = operations.workspace_of(tx, operation.workspace_id)
    step = SleepStep.CANCEL if code == "CANCELLED" else SleepStep.FAIL
    operations.end(tx, operation, step, code=code, error=message)
    operation.claimed_by = ""
    _leave(workspace, operation)
    operations.changed(tx, workspace, f"{operation.kind}-failed", operation=operation.id)


def thawing(tx: UnitOfWork, operation_id: str, fence: int) -> bool:
    """An agent that ends asks whether to thaw what it left frozen for its removal; return False where that has begun.

    Raises:
        StaleFence: when another claim has taken over.
    """
    operation = operations.get(tx, operation_id)
    if operation.ended_at is not None:
        return operation.step != SleepStep.DONE
    if operation.fence != fence:
        raise StaleFence("This capture was given to another agent.", next_step="Leave the workspace as it is.")
    if operation.removing:
        return False
    operation.frozen_until = tx.now
    operations.changed(tx, operations.workspace_of(tx, operation.workspace_id), "thawed")
    return True


def _ready(tx: UnitOfWork, workspace: Workspace, operation: Operation) -> bool:
    if operation.kind == "sleep":
        return workspace.operation_id == operation.id
    held = workspace.operation_id not in (None, operation.id)
    return not held and workspace.phase in (Phase.RUNNING, Phase.UNREACHABLE, Phase.STOPPED, Phase.FAILED)


def _leave(workspace: Workspace, operation: Operation) -> None:
    if operation.kind == "checkpoint" and workspace.operation_id == operation.id:
        workspace.operation_id = None


def _newest_digest(tx: UnitOfWork, workspace: Workspace) -> str | None:
    return tx.session.scalar(
        select(Checkpoint.digest).where(Checkpoint.workspace_id == workspace.id).order_by(Checkpoint.id.desc()).limit(1)
    )


def _claim(tx: UnitOfWork, settings: Settings, workspace: Workspace, operation: Operation) -> Claim:
    root = Path(settings.workspace_dir(workspace.id))
    python, platform_version = versions()
    return Claim(
        operation=operation.id,
        kind=operation.kind,
        fence=operation.fence,
        workspace=workspace.id,
        handle=operation.handle,
        root=str(root),
        source=str(root / "env"),
        repository=_repository(tx, settings, workspace),
        tag=f"{operation.id}-{operation.fence}",
        parent_digest=operation.parent_digest,
        annotations={
            # The operation's own moment: a repeat after a crash gives the same digest.
            "org.opencontainers.image.created": iso(operation.created_at) or "",
            "org.torpor.workspace": workspace.id,
            "org.torpor.python": python,
            "org.torpor.platform": platform_version,
        },
        thaw_after_s=operation.thaw_after_s,
        heartbeat_s=HEARTBEAT_S,
        node=workspace.node,
        container=workspace.container,
        base=images.base_of(tx, settings, workspace),
        registry=_registry(settings),
    )


def _repository(tx: UnitOfWork, settings: Settings, workspace: Workspace) -> str:
    tenant = tx.session.get_one(Tenant, workspace.tenant_id)
    return f"{settings.registry.prefix}/workspaces/{tenant.name}/{workspace.id}"


def _registry(settings: Settings) -> dict[str, Any]:
    if not settings.registry.host:
        return {}
    held = settings.registry
    return {"host": held.host, "insecure": held.insecure, **settings.registry_account("push")}


def claim_json(claim: Claim) -> dict[str, Any]:
    """Return a claim as JSON."""
    return asdict(claim)


def _check_fence(operation: Operation, fence: int) -> None:
    if operation.fence != fence or operation.ended_at is not None:
        raise StaleFence(
            "This capture was given to another agent, or has ended.", next_step="Thaw the workspace and claim anew."
        )


def _checkpoint(
    tx: UnitOfWork, settings: Settings, workspace: Workspace, operation: Operation, result: Result
) -> Checkpoint:
    if not result.changed:
        found = tx.session.scalar(
            select(Checkpoint)
            .where(Checkpoint.workspace_id == workspace.id, Checkpoint.digest == result.digest)
            .order_by(Checkpoint.id.desc())
            .limit(1)
        )
        if found is not None:
            return found
    python, platform_version = versions()
    row = Checkpoint(
        id=ids.new("ckp"),
        workspace_id=workspace.id,
        tenant_id=workspace.tenant_id,
        repository=_repository(tx, settings, workspace),
        digest=result.digest,
        base=images.base_of(tx, settings, workspace),
        parent_digest=operation.parent_digest,
        layers=result.layers,
        entries=result.entries,
        size_bytes=sum(int(layer["size_bytes"]) for layer in result.layers),
        skipped=result.skipped,
        python_version=python,
        platform_version=platform_version,
        created_at=tx.now,
    )
    tx.session.add(row)
    tx.session.flush()
    return row
