"""Datasets: registered parts of sources, and what the last good import stored of them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError

from torpor_hub.domain import ids, names
from torpor_hub.domain.datasets import FORMATS, DatasetPhase, ImportPhase, code, explain_ready, path_problem
from torpor_hub.domain.policy import Action, Actor, Object, may
from torpor_hub.errors import Conflict, InvalidRequest
from torpor_hub.services import imports, sources
from torpor_hub.services.access import check, missing
from torpor_hub.services.people import tenant_named
from torpor_hub.services.resources import iso, resource
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Dataset, Import, Source, Tenant, User

LONGEST_DESCRIPTION = 4000
LONGEST_PATH = 1000


def thing(row: Dataset) -> Object:
    """Return the dataset as the policy sees it."""
    return Object("dataset", row.id, row.tenant_id, row.user_id)


def create(tx: UnitOfWork, actor: Actor, body: dict[str, Any]) -> Dataset:
    """Register a dataset and queue its first import.

    Raises:
        InvalidRequest: when a field is wrong.
        Conflict: when the tenant has a dataset of this name.
        NotFound, Forbidden: when the actor may not register one in this tenant, or see the source.
    """
    tenant = tenant_named(tx, body["tenant"])
    check(actor, Action.SEE, Object("tenant", tenant.id, tenant.id))
    check(actor, Action.CREATE, Object("dataset", "", tenant.id))
    _check(body)
    source = sources.find(tx, actor, tenant.id, body["source"])
    row = Dataset(
        id=ids.new("ds"),
        name=body["name"],
        created_at=tx.now,
        tenant_id=tenant.id,
        user_id=sources.owner(tx, actor),
        source_id=source.id,
        path=body["path"].rstrip("/"),
        format=body["format"],
        description=body["description"],
        phase=DatasetPhase.IMPORTING,
        since=tx.now,
    )
    tx.session.add(row)
    taken = Conflict(
        f"Tenant '{tenant.name}' has a dataset named '{body['name']}' already.",
        next_step="Use it, or choose another name.",
        pointer="/name",
    )
    try:
        tx.session.flush()
    except IntegrityError as error:
        raise taken from error
    tx.change("dataset", row.id, "created", tenant_id=tenant.id, owner_id=row.user_id)
    imports.begin(tx, row, row.user_id)
    return row


def find(tx: UnitOfWork, actor: Actor, key: str, action: Action = Action.SEE) -> Dataset:
    """Return a dataset by id, when the actor may do ``action`` to it.

    Raises:
        NotFound: when there is none, or the actor may not see it.
        Forbidden: when the actor may see it, but not do this.
    """
    row = tx.session.get(Dataset, key)
    if row is None:
        raise missing("dataset", key)
    check(actor, action, thing(row))
    return row


def listed(
    tx: UnitOfWork, actor: Actor, *, tenant: str | None, search: str | None, name: str | None, limit: int, offset: int
) -> list[Dataset]:
    """Return the datasets that the actor may see, by tenant and name; one more than ``limit`` if there are more.

    ``search`` is a part of the name or description; ``name`` is ``tenant/name`` and finds one at most.
    """
    query = select(Dataset).join(Tenant, Tenant.id == Dataset.tenant_id).order_by(Tenant.name, Dataset.name)
    if tenant is not None:
        query = query.where(Tenant.name == tenant)
    if name is not None:
        home, _, own = name.rpartition("/")
        query = query.where(Dataset.name == own, *((Tenant.name == home,) if home else ()))
    if search:
        part = func.lower(search)
        query = query.where(
            or_(func.lower(Dataset.name).contains(part), func.lower(Dataset.description).contains(part))
        )
    if actor.user_id and not actor.admin:
        query = query.where(Dataset.tenant_id.in_(list(actor.roles)))
    seen = [row for row in tx.session.scalars(query) if may(actor, Action.SEE, thing(row))]
    return seen[offset : offset + limit + 1]


def view(tx: UnitOfWork, settings: Settings, actor: Actor, row: Dataset) -> dict[str, Any]:
    """Return a dataset as a resource, with the import that is under way or was the last."""
    tenant, user = tx.session.get_one(Tenant, row.tenant_id), tx.session.get_one(User, row.user_id)
    source = tx.session.get_one(Source, row.source_id)
    last = tx.session.get(Import, row.import_id) if row.import_id else None
    reason, message, next_step = _explain(tx, settings, row, last)
    stats = row.stats or {}
    status = {
        "phase": row.phase,
        "reason": reason,
        "message": message,
        "next_step": next_step,
        "since": iso(row.since),
        "import": None if last is None else imports.short(last),
        "as_of": iso(row.as_of),
        "rows": stats.get("rows"),
        "bytes": stats.get("bytes"),
        "files": stats.get("files"),
        "sample_rows": row.sample_rows if row.sample_key else None,
        "path": _path(settings, source, row) if may(actor, Action.READ, thing(row)) else "",
        "code": code(tenant.name, row.name),
    }
    spec = {"source": source.name, "path": row.path, "format": row.format, "description": row.description}
    return resource("dataset", row, tenant=tenant.name, owner=user.name, spec=spec, status=status)


def schema(row: Dataset) -> dict[str, Any]:
    """Return the columns and partitions that the last good import found.

    Raises:
        Conflict: when there was none yet.
    """
    if row.columns is None:
        raise not_imported(row)
    return {**row.columns, "as_of": iso(row.as_of)}


def not_imported(row: Dataset) -> Conflict:
    """Return the error of a dataset of which nothing is stored yet."""
    return Conflict(
        f"Nothing of '{row.name}' is stored yet: it was not imported.",
        next_step="Look at its import: it says what it waits for or why it failed.",
    )


def _explain(tx: UnitOfWork, settings: Settings, row: Dataset, last: Import | None) -> tuple[str, str, str]:
    """Return reason, message and next step."""
    if last is None or last.phase == ImportPhase.READY:
        return "", explain_ready(row.stats or {}), ""
    message, next_step = imports.explain(tx, settings, last)
    if row.phase == DatasetPhase.STALE and row.as_of is not None:
        message = f"{message} What was stored at {row.as_of:%Y-%m-%d %H:%M} UTC is still served."
    return last.reason, message, next_step


def _path(settings: Settings, source: Source, row: Dataset) -> str:
    return str(PurePosixPath(sources.spec_of(settings, source)["root"]) / row.path)


def _check(body: dict[str, Any]) -> None:
    """Judge the fields of a registration by their text alone."""
    name, path, form = body["name"], body["path"], body["format"]
    if not names.is_dataset_name(name):
        raise InvalidRequest(
            f"'{name}' cannot name a dataset.", next_step=f"Use {names.DATASET_RULE}.", pointer="/name"
        )
    problem = path_problem(path) or (
        f"A path has at most {LONGEST_PATH} characters." if len(path) > LONGEST_PATH else ""
    )
    if problem:
        raise InvalidRequest(problem, next_step="Name a file or folder below the source's root.", pointer="/path")
    if form not in FORMATS:
        known = ", ".join(FORMATS)
        raise InvalidRequest(f"There is no format '{form}'.", next_step=f"Use one of: {known}.", pointer="/format")
    if len(body["description"]) > LONGEST_DESCRIPTION:
        raise InvalidRequest(
            f"A description has at most {LONGEST_DESCRIPTION} characters.", next_step="Cut it.", pointer="/description"
        )
