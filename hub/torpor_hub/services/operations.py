"""Operations: the steps of starts, sleeps and checkpoints, and the workspace that each belongs to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from torpor_hub.domain import ids
from torpor_hub.domain.workspaces import Phase
from torpor_hub.services.access import missing
from torpor_hub.services.resources import iso
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Operation, Workspace


def begin(tx: UnitOfWork, workspace: Workspace, kind: str, step: str, *, deadline_s: float, **values: Any) -> Operation:
    """Return a new operation of the workspace; its actor is the unit of work's."""
    row = Operation(
        id=ids.new("op"),
        kind=kind,
        workspace_id=workspace.id,
        step=step,
        actor=tx.actor,
        created_at=tx.now,
        deadline=tx.now + timedelta(seconds=deadline_s),
        payload=values.pop("payload", {}),
        **values,
    )
    tx.session.add(row)
    tx.session.flush()
    changed(tx, workspace, f"{kind}-began")
    return row


def current(tx: UnitOfWork, workspace: Workspace) -> Operation | None:
    """Return the operation that holds the workspace now."""
    return tx.session.get(Operation, workspace.operation_id) if workspace.operation_id else None


def get(tx: UnitOfWork, operation_id: str) -> Operation:
    """Return an operation, locked.

    Raises:
        NotFound: when there is none.
    """
    row = tx.session.execute(select(Operation).where(Operation.id == operation_id).with_for_update()).scalar()
    if row is None:
        raise missing("operation", operation_id)
    return row


def workspace_of(tx: UnitOfWork, workspace_id: str) -> Workspace:
    """Return a workspace, locked.

    Raises:
        NotFound: when there is none.
    """
    row = tx.session.execute(select(Workspace).where(Workspace.id == workspace_id).with_for_update()).scalar()
    if row is None:
        raise missing("workspace", workspace_id)
    return row


def end(
    tx: UnitOfWork, operation: Operation, step: str, *, code: str = "", error: str = "", next_step: str = ""
) -> None:
    """Close an operation; one that is closed stays as it was."""
    if operation.ended_at is not None:
        return
    operation.step, operation.ended_at = step, tx.now
    operation.error_code, operation.error, operation.next_step = code, error, next_step
    operation.claimed_until = None


def enter(
    tx: UnitOfWork, workspace: Workspace, phase: Phase, *, reason: str = "", message: str = "", next_step: str = ""
) -> None:
    """Bring the workspace into a phase, with the sentence that explains it."""
    if workspace.phase != phase:
        workspace.since = tx.now
    workspace.phase, workspace.reason = phase, reason
    workspace.message, workspace.next_step = message, next_step
    changed(tx, workspace, phase.lower())


def changed(tx: UnitOfWork, workspace: Workspace, event: str, **payload: Any) -> None:
    """Give the workspace its next version and record the change."""
    tx.touch(workspace)
    tx.change("workspace", workspace.id, event, tenant_id=workspace.tenant_id, owner_id=workspace.user_id, **payload)


def shown(row: Operation | None) -> dict[str, Any] | None:
    """Return an operation as JSON, or None."""
    if row is None:
        return None
    return {
        "id": row.id,
        "kind": row.kind,
        "step": row.step,
        "bytes": row.bytes_done,
        "bytes_total": row.bytes_total,
        "error": row.error,
        "started_at": iso(row.created_at),
        "ended_at": iso(row.ended_at),
        "cancellable": row.kind == "sleep" and row.ended_at is None and row.step not in ("REMOVE", "CANCEL"),
    }
