"""Workspaces and checkpoints as resources: every sentence about them is made here."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from torpor_hub.domain import saving
from torpor_hub.domain.lifecycle import StartStep
from torpor_hub.domain.workspaces import Phase, SleepStep
from torpor_hub.services import operations
from torpor_hub.services.resources import amount, iso, resource, status
from torpor_hub.services.starts import PROGRESS
from torpor_hub.services.workspaces import owner_and_tenant
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Operation, Profile, Tenant, User, Workspace

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
# What cannot be done where environments are neither saved nor restored.
OF_SAVING = ("sleep", "wake", "start_previous")
SHARED_HOME = {
    "ReadWriteOnce": "The home can be used on one node at a time: all workspaces and jobs of {owner} in '{tenant}' run on "
    "'{node}', and wait when it has no room.",
    "ReadWriteOncePod": "The home can be used by one workspace or job at a time: what else {owner} starts in '{tenant}' waits "
    "until this one has ended.",
}


def page(settings: Settings, row: Workspace) -> str:
    """Return the path of the workspace's page on the platform."""
    return f"{settings.service_path}workspaces/{row.id}"


def workspace(tx: UnitOfWork, settings: Settings, row: Workspace) -> dict[str, Any]:
    """Return a workspace as a resource."""
    user, tenant = owner_and_tenant(tx, row)
    operation, profile = operations.current(tx, row), tx.session.get_one(Profile, row.profile_id)
    return resource(
        "workspace",
        row,
        tenant=tenant.name,
        owner=user.name,
        spec={
            "desired": row.desired,
            "profile": profile.name,
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
            lost=row.lost,
            notes=_notes(settings, row, user, tenant),
            node=_node(row) or None,
            image=profile.image or None,
            amount=amount(profile.cpu_milli, profile.memory_bytes, profile.gpu_count),
            actions=actions(settings, row),
            confirmations=_confirmations(settings, row),
        ),
    )


def actions(settings: Settings, row: Workspace) -> list[str]:
    """Return what makes sense to do with the workspace now."""
    left_out = () if settings.save_environments else OF_SAVING
    if row.previous_checkpoint_id is None:
        left_out = (*left_out, "start_previous")
    return [name for name in ACTIONS[Phase(row.phase)] if name not in left_out]


def _confirmations(settings: Settings, row: Workspace) -> dict[str, str]:
    """Return what to ask before an action that may lose something, by action."""
    lost = " What was installed since the last sleep is lost." if row.unsaved else ""
    asked = {
        "sleep": f"Put '{row.name}' to sleep? Installed packages and files are kept. Running kernels end, and what they hold in "
        "memory is lost. Save open notebooks first.",
        "stop_discard": _stop_question(settings, row),
        "start_previous": f"Start '{row.name}' with the environment before the current one?{lost}",
        "start_profile": f"Start '{row.name}' with the profile's own environment?{lost}",
        "delete": f"Delete '{row.name}' with all its saved environments? This cannot be undone. Files in the home stay.",
    }
    return {name: asked[name] for name in actions(settings, row) if name in asked}


def _stop_question(settings: Settings, row: Workspace) -> str:
    if settings.save_environments:
        return f"End '{row.name}' without saving? What was installed since the last sleep is lost for good. Files in the home stay."
    return f"End '{row.name}' and discard what was installed? It cannot be saved here, and is lost for good. Files in the home stay."


def _notes(settings: Settings, row: Workspace, user: User, tenant: Tenant) -> list[str]:
    """Return what holds for this workspace for as long as the platform is set up as it is."""
    notes = [] if settings.save_environments else [saving.WORKSPACE]
    shared = SHARED_HOME.get(settings.cluster.homes.access_mode)
    if _node(row) and shared:
        notes.append(shared.format(owner=user.name, tenant=tenant.name, node=_node(row)))
    return notes


def _node(row: Workspace) -> str:
    """Return the node that the workspace holds something of; empty where that is not known, or nothing."""
    return row.node if row.handle else ""


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
