"""Sources: external stores that a tenant has registered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError

from torpor_hub.domain import ids, names
from torpor_hub.domain.datasets import KINDS, kept_root, root_of
from torpor_hub.domain.policy import Action, Actor, Object, may
from torpor_hub.errors import Conflict, InvalidRequest, NotFound
from torpor_hub.services.access import check, missing
from torpor_hub.services.people import tenant_named
from torpor_hub.services.resources import iso, resource
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Source, Tenant, User


def thing(row: Source) -> Object:
    """Return the source as the policy sees it."""
    return Object("source", row.id, row.tenant_id, row.user_id)


def create(tx: UnitOfWork, settings: Settings, actor: Actor, body: dict[str, Any]) -> Source:
    """Register a source; nothing of it is looked at before a dataset's import.

    Raises:
        InvalidRequest: when name, kind or root is none.
        Conflict: when the tenant has a source of this name.
        NotFound, Forbidden: when the actor may not register one in this tenant.
    """
    tenant = tenant_named(tx, body["tenant"])
    check(actor, Action.SEE, Object("tenant", tenant.id, tenant.id))
    check(actor, Action.CREATE, Object("source", "", tenant.id))
    name, kind = body["name"], body["kind"]
    if not names.is_name(name):
        raise InvalidRequest(f"'{name}' cannot name a source.", next_step=f"Use {names.RULE}.", pointer="/name")
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise InvalidRequest(f"There is no connector '{kind}'.", next_step=f"Use one of: {known}.", pointer="/kind")
    spec = {"root": kept_root(_root(settings, body["spec"]), _own_data(settings))}
    row = Source(
        id=ids.new("src"),
        name=name,
        created_at=tx.now,
        tenant_id=tenant.id,
        user_id=owner(tx, actor),
        connector=kind,
        spec=spec,
    )
    tx.session.add(row)
    taken = Conflict(
        f"Tenant '{tenant.name}' has a source named '{name}' already.",
        next_step="Use it, or choose another name.",
        pointer="/name",
    )
    try:
        tx.session.flush()
    except IntegrityError as error:
        raise taken from error
    tx.change("source", row.id, "created", tenant_id=tenant.id, owner_id=row.user_id)
    return row


def find(tx: UnitOfWork, actor: Actor, tenant_id: str, key: str) -> Source:
    """Return a source of the tenant by id or name.

    Raises:
        NotFound: when there is none, or the actor may not see it.
    """
    row = tx.session.scalar(
        select(Source).where(Source.tenant_id == tenant_id, or_(Source.id == key, Source.name == key))
    )
    if row is None:
        raise missing("source", key)
    check(actor, Action.SEE, thing(row))
    return row


def listed(tx: UnitOfWork, actor: Actor, *, tenant: str | None, limit: int, offset: int) -> list[Source]:
    """Return the sources that the actor may see, by tenant and name; one more than ``limit`` if there are more."""
    query = select(Source).join(Tenant, Tenant.id == Source.tenant_id).order_by(Tenant.name, Source.name)
    if tenant is not None:
        query = query.where(Tenant.name == tenant)
    seen = [row for row in tx.session.scalars(query) if may(actor, Action.SEE, thing(row))]
    return seen[offset : offset + limit + 1]


def spec_of(settings: Settings, row: Source) -> dict[str, Any]:
    """Return what a connector needs, with the root where it lies now."""
    return {**row.spec, "root": root_of(row.spec["root"], _own_data(settings))}


def view(tx: UnitOfWork, settings: Settings, actor: Actor, row: Source) -> dict[str, Any]:
    """Return a source as a resource. Where it lies is for those who may read it."""
    spec = {"kind": row.connector, **(spec_of(settings, row) if may(actor, Action.READ, thing(row)) else {})}
    status = {"phase": "READY", "reason": "", "message": "", "next_step": "", "since": iso(row.created_at)}
    tenant, user = tx.session.get_one(Tenant, row.tenant_id), tx.session.get_one(User, row.user_id)
    return resource("source", row, tenant=tenant.name, owner=user.name, spec=spec, status=status)


def owner(tx: UnitOfWork, actor: Actor) -> str:
    """Return who owns what the actor makes: the actor, or the first platform admin for a program of the platform.

    Raises:
        NotFound: when a program asks and there is no admin.
    """
    if actor.user_id:
        return actor.user_id
    admin = tx.session.scalar(select(User.id).where(User.admin.is_(True)).order_by(User.created_at, User.id).limit(1))
    if admin is None:
        raise NotFound("There is no platform admin who could own this.", next_step="Make a user an admin.")
    return admin


def _own_data(settings: Settings) -> str:
    return os.path.normpath(settings.data_dir)


def _root(settings: Settings, spec: dict[str, Any]) -> str:
    """Return the root in a source's spec. Only its text is judged here: no request touches a store."""
    root = spec.get("root")
    folders = [os.path.normpath(folder) for folder in (settings.data_dir, *settings.source_roots)]
    if isinstance(root, str) and root.startswith("/") and "\x00" not in root and set(spec) == {"root"}:
        normal = os.path.normpath(root)
        if any(Path(normal).is_relative_to(folder) for folder in folders):
            return normal
    raise InvalidRequest(
        f"The root of a files source is an absolute path in or below one of: {', '.join(folders)}.",
        next_step="Use such a folder, or ask an admin to add one to the setting source_roots.",
        pointer="/spec/root",
    )
