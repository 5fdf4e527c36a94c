"""The quota ledger: what tenants hold, checked and reserved in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from torpor_hub.domain import ids, units
from torpor_hub.domain.units import Amount
from torpor_hub.errors import QuotaExceeded
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Pool, Reservation, Tenant

POOL = "default"


@dataclass(frozen=True)
class Claim:
    """Who wants how much."""

    subject_id: str
    kind: str
    tenant_id: str
    user_id: str
    amount: Amount


@dataclass(frozen=True)
class Room:
    """A limit, what is held of it, and what is left."""

    limit: Amount
    used: Amount

    @property
    def free(self) -> Amount:
        """What is left; never below zero."""
        left = self.limit - self.used
        return Amount(max(0, left.cpu_milli), max(0, left.memory_bytes), max(0, left.gpu_count))


def set_pool(tx: UnitOfWork, capacity: Amount, floor: Amount) -> None:
    """Record what the place lends in all, and what of it jobs never take."""
    row = tx.session.get(Pool, POOL)
    if row is None:
        row = Pool(name=POOL, cpu_milli=0, memory_bytes=0)
        tx.session.add(row)
    row.cpu_milli, row.memory_bytes, row.gpu_count = capacity.cpu_milli, capacity.memory_bytes, capacity.gpu_count
    row.floor_cpu_milli, row.floor_memory_bytes = floor.cpu_milli, floor.memory_bytes


def lock(tx: UnitOfWork, tenant_id: str) -> Tenant:
    """Lock the pool and the tenant, in this order everywhere, and return the tenant."""
    tx.session.execute(select(Pool).where(Pool.name == POOL).with_for_update()).scalar_one_or_none()
    return tx.session.execute(select(Tenant).where(Tenant.id == tenant_id).with_for_update()).scalar_one()


def tenant_room(tx: UnitOfWork, tenant: Tenant) -> Room:
    """Return the tenant's limit and what it holds now."""
    return Room(Amount(tenant.cpu_milli, tenant.memory_bytes, tenant.gpu_count), _held(tx, tenant.id))


def pool_room(tx: UnitOfWork, *, for_jobs: bool = False) -> Room:
    """Return the pool's limit and what is held of it; for jobs, less the floor that is kept for workspaces.

    The floor counts only as far as workspaces do not hold that much already.
    """
    row = tx.session.get(Pool, POOL)
    if row is None:
        return Room(Amount(), Amount())
    limit, used = Amount(row.cpu_milli, row.memory_bytes, row.gpu_count), _held(tx, None)
    if for_jobs:
        held = _held(tx, None, kind="workspace")
        kept = Amount(max(0, row.floor_cpu_milli - held.cpu_milli), max(0, row.floor_memory_bytes - held.memory_bytes))
        limit = limit - kept
    return Room(limit, used)


def reserve(tx: UnitOfWork, claim: Claim) -> None:
    """Hold the amount for the subject, unless it holds something already.

    Raises:
        QuotaExceeded: when the tenant's limit or the pool has no room; the text has the numbers.
    """
    tenant = lock(tx, claim.tenant_id)
    if held_by(tx, claim.subject_id) is not None:
        return
    _check(
        tenant_room(tx, tenant),
        claim.amount,
        f"Tenant '{tenant.name}' may hold",
        "Stop or sleep something, or ask an admin for more.",
    )
    _check(
        pool_room(tx), claim.amount, "This platform lends", "Wait until something ends, or choose a smaller profile."
    )
    charge(tx, claim)


def charge(tx: UnitOfWork, claim: Claim) -> None:
    """Hold the amount without asking: for what runs already."""
    if held_by(tx, claim.subject_id) is not None:
        return
    tx.session.add(
        Reservation(
            id=ids.new("rs"),
            subject_id=claim.subject_id,
            kind=claim.kind,
            tenant_id=claim.tenant_id,
            user_id=claim.user_id,
            pool=POOL,
            cpu_milli=claim.amount.cpu_milli,
            memory_bytes=claim.amount.memory_bytes,
            gpu_count=claim.amount.gpu_count,
            held_from=tx.now,
        )
    )
    tx.session.flush()


def release(tx: UnitOfWork, subject_id: str) -> None:
    """End what the subject holds; nothing held is success."""
    for row in tx.session.scalars(
        select(Reservation).where(Reservation.subject_id == subject_id, Reservation.held_until.is_(None))
    ):
        row.held_until = tx.now


def held_by(tx: UnitOfWork, subject_id: str) -> Reservation | None:
    """Return what the subject holds now."""
    return tx.session.scalar(
        select(Reservation).where(Reservation.subject_id == subject_id, Reservation.held_until.is_(None))
    )


def _held(tx: UnitOfWork, tenant_id: str | None, kind: str | None = None) -> Amount:
    query = select(
        func.coalesce(func.sum(Reservation.cpu_milli), 0),
        func.coalesce(func.sum(Reservation.memory_bytes), 0),
        func.coalesce(func.sum(Reservation.gpu_count), 0),
    ).where(Reservation.held_until.is_(None))
    if tenant_id is not None:
        query = query.where(Reservation.tenant_id == tenant_id)
    if kind is not None:
        query = query.where(Reservation.kind == kind)
    cpu, memory, gpus = tx.session.execute(query).one()
    return Amount(int(cpu), int(memory), int(gpus))


def _check(room: Room, asked: Amount, who: str, next_step: str) -> None:
    for name, limit, used, wanted, say in (
        ("cpu_milli", room.limit.cpu_milli, room.used.cpu_milli, asked.cpu_milli, units.cores),
        ("memory_bytes", room.limit.memory_bytes, room.used.memory_bytes, asked.memory_bytes, units.size),
        ("gpu_count", room.limit.gpu_count, room.used.gpu_count, asked.gpu_count, units.gpus),
    ):
        if wanted and used + wanted > limit:
            noun = " of memory" if name == "memory_bytes" else ""
            raise QuotaExceeded(
                f"{who} {say(limit)}{noun} at once and holds {say(used)}; this needs {say(wanted)} more.",
                next_step=next_step,
                pointer=f"/spec/amount/{name}",
                limit=limit,
                used=used,
                asked=wanted,
            )
