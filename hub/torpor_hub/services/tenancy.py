"""What the cluster is to hold of tenants, by the records; and what was found there."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from torpor_hub.domain.units import Amount
from torpor_hub.podspecs.tenant import TenantPlan
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Membership, Tenant

WITH_HOMES = ("member", "admin")


def names(tx: UnitOfWork) -> list[str]:
    """Return the names of all tenants."""
    return list(tx.session.scalars(select(Tenant.name).order_by(Tenant.name)))


def plans(tx: UnitOfWork, settings: Settings) -> list[TenantPlan]:
    """Return what every tenant is to have. Viewers run nothing, and so have no home."""
    members: dict[str, list[str]] = {}
    for row in tx.session.scalars(select(Membership).where(Membership.role.in_(WITH_HOMES))):
        members.setdefault(row.tenant_id, []).append(row.user_id)
    account = settings.registry_account("pull")
    return [
        TenantPlan(
            row.id,
            row.name,
            Amount(row.cpu_milli, row.memory_bytes, row.gpu_count),
            tuple(sorted(members.get(row.id, ()))),
            account["username"],
            account["password"],
        )
        for row in tx.session.scalars(select(Tenant).order_by(Tenant.name))
    ]


def changed(tx: UnitOfWork, tenant_id: str, event: str, objects: Sequence[str]) -> None:
    """Record what was done to a tenant's objects: ``made``, ``updated`` after a changed wish, or ``repaired``."""
    if objects:
        tx.change("tenant", tenant_id, event, tenant_id=tenant_id, objects=list(objects))


def problem(tx: UnitOfWork, tenant_id: str, sentence: str) -> None:
    """Record why nobody can work in a tenant; empty: nothing stands in the way any more. The same one is recorded once."""
    row = tx.session.get(Tenant, tenant_id)
    if row is None or row.problem == sentence:
        return
    row.problem = sentence
    tx.touch(row)
    tx.change("tenant", tenant_id, "refused" if sentence else "accepted", tenant_id=tenant_id, message=sentence)
