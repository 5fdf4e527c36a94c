"""Workspaces and checkpoints as resources: every sentence about them is made here."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from torpor_hub.domain.lifecycle import StartStep
from torpor_hub.domain.workspaces import Phase, SleepStep
from torpor_hub.services import operations
from torpor_hub.services.resources import iso, resource, status
from torpor_hub.services.starts import PROGRESS
from torpor_hub.services.workspaces import owner_and_tenant
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Operation, Profile, Workspace

SLEEP_PROGRESS = {
    SleepStep.QUIESCE: 5,
    SleepStep.FREEZE: 10,
    SleepStep.UPLOAD: 20,
    SleepStep.VERIFY: 80,
    SleepStep.REMOVE: 95,
}
ACTIONS: dict[Phase, tuple[str, ...]] = {
    Phase.NEW: ("start", "delete"),
    Phase.STARTING: (),
    Phase.WAKING: (),
    Phase.RUNNING: ("open", "sleep", "stop_discard"),
    Phase.SLEEPING: ("cancel",),
    Phase.ASLEEP: ("wake", "start_previous", "start_profile", "delete"),
    Phase.STOPPED: ("start", "start_previous", "start_profile", "delete"),
    Phase.UNREACHABLE: ("sleep", "stop_discard"),
    Phase.FAILED: ("start", "start_previous", "start_profile", "delete"),
    Phase.DELETING: (),
}


def page(settings: Settings, row: Workspace) -> str:
    """Return the path of the workspace's page on the platform."""
    return f"{settings.service_path}workspaces/{row.id}"


def workspace(tx: UnitOfWork, settings: Settings, row: Workspace) -> dict[str, Any]:
    """Return a workspace as a resource."""
    user, tenant = owner_and_tenant(tx, row)
    operation = operations.current(tx, row)
    return resource(
        "workspace",
        row,
        tenant=tenant.name,
        owner=user.name,
        spec={
            "desired": row.desired,
            "profile": tx.session.get_one(Profile, row.profile_id).name,
            "discard": row.discard,
            "environment": row.environment,
        },
        status=status(
            row,
            url=f"{settings.base_path}user/{user.name}/{row.name}/lab",
            page=page(settings, row),
            progress=_progress(operation),
            operation=operations.shown(operation),
            checkpoint=_brief(tx, row.checkpoint_id),
            has_previous=row.previous_checkpoint_id is not None,
            unsaved=row.unsaved,
            notice=row.notice,
            actions=actions(row),
        ),
    )


def actions(row: Workspace) -> list[str]:
    """Return what makes sense to do with the workspace now."""
    offered = ACTIONS[Phase(row.phase)]
    return [name for name in offered if name != "start_previous" or row.previous_checkpoint_id is not None]


def checkpoints(tx: UnitOfWork, row: Workspace) -> list[dict[str, Any]]:
    """Return the checkpoints of a workspace, newest first."""
    rows = tx.session.scalars(
        select(Checkpoint).where(Checkpoint.workspace_id == row.id).order_by(Checkpoint.id.desc())
    )
    return [
        {
            "id": found.id,
            "digest": found.digest,
            "created_at": iso(found.created_at),
            "size_bytes": found.size_bytes,
            "entries": found.entries,
            "parent_digest": found.parent_digest,
            "layers": found.layers,
            "skipped": found.skipped,
            "current": found.id == row.checkpoint_id,
            "previous": found.id == row.previous_checkpoint_id,
        }
        for found in rows
    ]


def _brief(tx: UnitOfWork, checkpoint_id: str | None) -> dict[str, Any] | None:
    row = tx.session.get(Checkpoint, checkpoint_id) if checkpoint_id else None
    if row is None:
        return None
    return {"id": row.id, "digest": row.digest, "created_at": iso(row.created_at), "size_bytes": row.size_bytes}


def _progress(operation: Operation | None) -> int | None:
    if operation is None or operation.ended_at is not None or operation.kind == "checkpoint":
        return None
    if operation.kind != "sleep":
        return PROGRESS.get(StartStep(operation.step))
    base = SLEEP_PROGRESS.get(SleepStep(operation.step))
    if base is not None and operation.step == SleepStep.UPLOAD and operation.bytes_total:
        return base + min(59, 60 * operation.bytes_done // operation.bytes_total)
    return base
