"""Imports: one run of test, sample and description over a dataset, as people see it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from torpor_hub.domain import ids
from torpor_hub.domain.datasets import (
    ENDED,
    QUEUED,
    DatasetPhase,
    ImportPhase,
    dataset_phase,
    explain_queued,
    explain_running,
    explain_taken,
)
from torpor_hub.domain.policy import Action, Actor, Object
from torpor_hub.errors import Conflict, InvalidRequest
from torpor_hub.services import queues
from torpor_hub.services.access import check, missing
from torpor_hub.services.resources import iso
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Dataset, Import, Tenant, User


def thing(row: Import) -> Object:
    """Return the import as the policy sees it."""
    return Object("import", row.id, row.tenant_id, row.user_id)


def begin(tx: UnitOfWork, dataset: Dataset, user_id: str) -> Import:
    """Queue an import of the dataset, or return the one that is under way already."""
    last = tx.session.get(Import, dataset.import_id) if dataset.import_id else None
    if last is not None and last.phase not in ENDED:
        return last
    row = Import(
        id=ids.new("imp"),
        dataset_id=dataset.id,
        source_id=dataset.source_id,
        tenant_id=dataset.tenant_id,
        user_id=user_id,
        phase=ImportPhase.QUEUED,
        since=tx.now,
        created_at=tx.now,
    )
    tx.session.add(row)
    tx.session.flush()
    dataset.import_id = row.id
    changed(tx, row, "queued")
    return row


def find(tx: UnitOfWork, actor: Actor, key: str, action: Action = Action.SEE) -> Import:
    """Return an import, locked, when the actor may do ``action`` to it.

    Raises:
        NotFound: when there is none, or the actor may not see it.
        Forbidden: when the actor may see it, but not do this.
    """
    row = tx.session.scalar(select(Import).where(Import.id == key).with_for_update())
    if row is None:
        raise missing("import", key)
    check(actor, action, thing(row))
    return row


def wish(tx: UnitOfWork, row: Import, spec: dict[str, Any]) -> None:
    """Record that the import is to be cancelled; its importer learns it at the next heartbeat.

    Raises:
        InvalidRequest: when the wish is none.
        Conflict: when the import has ended.
    """
    if spec != {"desired": "cancelled"}:
        raise InvalidRequest("The only wish is 'cancelled'.", next_step="Send it as desired.", pointer="/spec/desired")
    if row.phase in ENDED and row.phase != ImportPhase.CANCELLED:
        raise Conflict(f"The import has ended: {row.phase.lower()}.", next_step="Import again when you want to.")
    row.desired = "cancelled"
    enter(tx, row, ImportPhase.CANCELLED, reason="CANCELLED", message=f"{tx.actor} cancelled the import.")


def enter(
    tx: UnitOfWork, row: Import, phase: ImportPhase, *, reason: str = "", message: str = "", next_step: str = ""
) -> None:
    """Bring an import into a phase, and its dataset with it."""
    if row.phase != phase:
        row.since = tx.now
    row.phase, row.reason, row.message, row.next_step = phase, reason, message, next_step
    if phase in ENDED:
        row.ended_at, row.claimed_until = tx.now, None
    changed(tx, row, phase.lower())


def changed(tx: UnitOfWork, row: Import, event: str) -> None:
    """Give the import its next version, let its dataset follow, and record both changes."""
    row.version += 1
    tx.change("import", row.id, event, tenant_id=row.tenant_id, owner_id=row.user_id, dataset=row.dataset_id)
    dataset = tx.session.get_one(Dataset, row.dataset_id)
    if dataset.import_id != row.id:
        return
    phase = dataset_phase(row.phase, has_sample=bool(dataset.sample_key))
    if dataset.phase != phase:
        dataset.phase, dataset.since = phase, tx.now
    tx.touch(dataset)
    tx.change("dataset", dataset.id, _event(phase), tenant_id=dataset.tenant_id, owner_id=dataset.user_id)


def is_silent(row: Import) -> bool:
    """Return whether an importer has taken the import and not said a word of it: nothing of it has begun for all we know."""
    return row.phase == ImportPhase.TESTING and not row.stages


def explain(tx: UnitOfWork, settings: Settings, row: Import) -> tuple[str, str]:
    """Return message and next step: what it waits for, does, found, or why it failed."""
    if row.phase == QUEUED:
        return explain_queued(queues.waiting(tx, settings, row), "import")
    if row.phase in ENDED:
        return row.message, row.next_step
    return explain_taken("import") if is_silent(row) else (explain_running(row.stage, "import"), "")


def view(tx: UnitOfWork, settings: Settings, row: Import) -> dict[str, Any]:
    """Return an import as a resource."""
    message, next_step = explain(tx, settings, row)
    dataset = tx.session.get_one(Dataset, row.dataset_id)
    return {
        "id": row.id,
        "kind": "import",
        "name": dataset.name,
        "tenant": tx.session.get_one(Tenant, row.tenant_id).name,
        "owner": tx.session.get_one(User, row.user_id).name,
        "version": row.version,
        "created_at": iso(row.created_at),
        "spec": {"dataset": row.dataset_id, "desired": row.desired},
        "status": {
            "phase": _phase(row),
            "reason": row.reason,
            "message": message,
            "next_step": next_step,
            "since": iso(row.since),
            "stage": row.stage,
            "stages": row.stages,
            "claims": row.claims,
            "ended_at": iso(row.ended_at),
        },
    }


def short(row: Import) -> dict[str, Any]:
    """Return what a dataset shows of its import."""
    return {"id": row.id, "phase": _phase(row), "stage": row.stage, "stages": row.stages}


def _phase(row: Import) -> str:
    return QUEUED if is_silent(row) else row.phase


def _event(phase: DatasetPhase) -> str:
    return "import-progress" if phase is DatasetPhase.IMPORTING else phase.lower()
