"""Reads: rows of a dataset for code, sent by an importer and streamed on piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from torpor_hub.domain import ids
from torpor_hub.domain.datasets import (
    ENDED,
    QUEUED,
    InvalidFilter,
    ReadPhase,
    columns_problem,
    conditions,
    explain_queued,
    explain_running,
    unknown_column,
)
from torpor_hub.domain.policy import Action, Actor, Object
from torpor_hub.errors import InvalidRequest
from torpor_hub.services import queues
from torpor_hub.services.access import check, missing
from torpor_hub.services.resources import iso
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Dataset, Read, Tenant, Upload, User


@dataclass(frozen=True)
class Piece:
    """A piece of a read that is stored."""

    key: str
    fence: int


@dataclass(frozen=True)
class Ended:
    """A read that has no further piece: ``code`` is empty where it went well."""

    code: str = ""
    message: str = ""
    next_step: str = ""


def thing(row: Read) -> Object:
    """Return the read as the policy sees it."""
    return Object("read", row.id, row.tenant_id, row.user_id)


def create(tx: UnitOfWork, dataset: Dataset, user_id: str, body: dict[str, Any]) -> Read:
    """Queue a read of the dataset.

    Raises:
        InvalidRequest: when columns or filter are not the dataset's.
    """
    _check(dataset, body)
    row = Read(
        id=ids.new("rd"),
        dataset_id=dataset.id,
        source_id=dataset.source_id,
        tenant_id=dataset.tenant_id,
        user_id=user_id,
        request={"columns": body["columns"], "filter": body["filter"], "limit": body["limit"]},
        phase=ReadPhase.QUEUED,
        since=tx.now,
        created_at=tx.now,
    )
    tx.session.add(row)
    tx.session.flush()
    changed(tx, row, "queued")
    return row


def find(tx: UnitOfWork, actor: Actor, key: str, action: Action = Action.READ) -> Read:
    """Return a read, when the actor may do ``action`` to it.

    Raises:
        NotFound: when there is none, or the actor may not see it.
        Forbidden: when the actor may see it, but not do this.
    """
    row = tx.session.get(Read, key)
    if row is None:
        raise missing("read", key)
    check(actor, action, thing(row))
    return row


def look(tx: UnitOfWork, read_id: str, index: int, fence: int | None) -> Piece | Ended | None:
    """Return piece ``index`` of a read, its end, or None while there is neither.

    ``fence`` is that of the pieces before: those of another claim belong to another stream, so the read has failed then.
    """
    row = tx.session.get(Read, read_id)
    if row is None:
        return Ended("NOT_FOUND", "The read is not there any more.", "Read again.")
    if fence is not None and row.fence != fence:
        return Ended("UNREACHABLE", "The importer was lost in the middle of the read.", "Read again.")
    found = tx.session.get(Upload, (read_id, row.fence, str(index)))
    if found is not None:
        return Piece(found.key, row.fence)
    if row.phase == ReadPhase.READY:
        if row.chunks is not None and index >= row.chunks:
            return Ended()
        return Ended("NOT_FOUND", "The rows of this read are not kept any more.", "Read again.")
    return Ended(row.reason, row.message, row.next_step) if row.phase in ENDED else None


def cancel(tx: UnitOfWork, read_id: str) -> None:
    """End a read that nobody waits for any more; one that has ended stays as it is."""
    row = tx.session.scalar(select(Read).where(Read.id == read_id).with_for_update())
    if row is not None and row.phase not in ENDED:
        enter(tx, row, ReadPhase.CANCELLED, reason="CANCELLED", message="Whoever asked for the rows has gone.")


def enter(
    tx: UnitOfWork, row: Read, phase: ReadPhase, *, reason: str = "", message: str = "", next_step: str = ""
) -> None:
    """Bring a read into a phase."""
    if row.phase != phase:
        row.since = tx.now
    row.phase, row.reason, row.message, row.next_step = phase, reason, message, next_step
    if phase in ENDED:
        row.ended_at, row.claimed_until = tx.now, None
    changed(tx, row, phase.lower())


def changed(tx: UnitOfWork, row: Read, event: str) -> None:
    """Record a change of a read."""
    tx.change("read", row.id, event, tenant_id=row.tenant_id, owner_id=row.user_id, dataset=row.dataset_id)


def explain(tx: UnitOfWork, settings: Settings, row: Read) -> tuple[str, str]:
    """Return message and next step."""
    if row.phase == QUEUED:
        return explain_queued(queues.waiting(tx, settings, row), "read")
    if row.phase in ENDED:
        return row.message, row.next_step
    return explain_running("reading", "read"), ""


def view(tx: UnitOfWork, settings: Settings, row: Read) -> dict[str, Any]:
    """Return a read as a resource."""
    message, next_step = explain(tx, settings, row)
    dataset = tx.session.get_one(Dataset, row.dataset_id)
    return {
        "id": row.id,
        "kind": "read",
        "name": dataset.name,
        "tenant": tx.session.get_one(Tenant, row.tenant_id).name,
        "owner": tx.session.get_one(User, row.user_id).name,
        "version": 1,
        "created_at": iso(row.created_at),
        "spec": {"dataset": row.dataset_id, **row.request},
        "status": {
            "phase": row.phase,
            "reason": row.reason,
            "message": message,
            "next_step": next_step,
            "since": iso(row.since),
            "bytes": row.bytes_done,
            "ended_at": iso(row.ended_at),
        },
    }


def _check(dataset: Dataset, body: dict[str, Any]) -> None:
    """Judge a read by what is stored; of a dataset that was never imported, the importer is the judge."""
    try:
        filter_ = conditions(body["filter"])
    except InvalidFilter as error:
        raise InvalidRequest(str(error), next_step="Correct the filter.", pointer=f"/filter{error.pointer}") from error
    if dataset.columns is None:
        return
    known = [column["name"] for column in dataset.columns["columns"]]
    problem = columns_problem(body["columns"], known)
    if problem:
        raise InvalidRequest(problem, next_step="Correct the columns.", pointer="/columns")
    for index, condition in enumerate(filter_):
        if condition.column not in known:
            raise InvalidRequest(
                unknown_column(condition.column, known),
                next_step="Correct the filter.",
                pointer=f"/filter/{index}/0",
            )
