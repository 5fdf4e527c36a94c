"""Tenants and profiles as people see them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from torpor_hub.domain.policy import Action, Actor, Object, may
from torpor_hub.errors import Conflict, InvalidRequest
from torpor_hub.services import ledger
from torpor_hub.services.resources import amount, iso, resource
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Profile, Reservation, Tenant


def tenants(tx: UnitOfWork, actor: Actor) -> list[dict[str, Any]]:
    """Return the tenants that the actor may see, with what they hold and what is left."""
    rows = tx.session.scalars(select(Tenant).order_by(Tenant.name))
    return [_tenant(tx, row) for row in rows if may(actor, Action.SEE, Object("tenant", row.id, row.id))]


def me(tx: UnitOfWork, actor: Actor) -> dict[str, Any]:
    """Return the person behind a request, with roles."""
    rows = tx.session.scalars(select(Tenant).order_by(Tenant.name))
    return {
        "name": actor.name,
        "admin": actor.admin,
        "can_write": actor.can_write,
        "tenants": [
            {"name": row.name, "title": row.title, "role": actor.roles[row.id].value}
            for row in rows
            if row.id in actor.roles
        ],
    }


def profiles(tx: UnitOfWork) -> list[dict[str, Any]]:
    """Return all profiles, in the order of the seeds."""
    return [_profile(row) for row in tx.session.scalars(select(Profile).order_by(Profile.position))]


def profile_named(tx: UnitOfWork, name: str | None) -> Profile:
    """Return the profile with this name, or the default one for None.

    Raises:
        InvalidRequest: when there is none; the text names those that there are.
    """
    wanted = Profile.name == name if name else Profile.is_default.is_(True)
    row = tx.session.scalar(select(Profile).where(wanted))
    if row is None:
        known = ", ".join(tx.session.scalars(select(Profile.name).order_by(Profile.position)))
        raise InvalidRequest(
            f"There is no profile '{name or 'default'}'.", next_step=f"Choose one of: {known}.", pointer="/profile"
        )
    return row


def is_usable(row: Profile) -> bool:
    """Return whether the profile's image can be had; one that was taken over stays usable when a newer one cannot be."""
    return bool(row.digest) or not row.problem


def require_usable(row: Profile) -> None:
    """Make sure that the profile can be chosen.

    Raises:
        Conflict: when its image cannot be had; the text says why.
    """
    if not is_usable(row):
        raise Conflict(
            f"The profile '{row.name}' cannot be used now: {row.problem}",
            next_step="Choose another profile, or tell a platform admin.",
            pointer="/profile",
        )


def _tenant(tx: UnitOfWork, row: Tenant) -> dict[str, Any]:
    room = ledger.tenant_room(tx, row)
    counts: dict[str, int] = {
        str(kind): int(count)
        for kind, count in tx.session.execute(
            select(Reservation.kind, func.count())
            .where(Reservation.tenant_id == row.id, Reservation.held_until.is_(None))
            .group_by(Reservation.kind)
        )
    }
    return resource(
        "tenant",
        row,
        tenant=row.name,
        owner=None,
        spec={
            "title": row.title,
            "cpu_milli": row.cpu_milli,
            "memory_bytes": row.memory_bytes,
            "gpu_count": row.gpu_count,
        },
        status={
            **_standing(row.problem, "TENANT_NOT_READY", usable=not row.problem),
            "since": iso(row.created_at),
            "used": amount(room.used.cpu_milli, room.used.memory_bytes, room.used.gpu_count),
            "free": amount(room.free.cpu_milli, room.free.memory_bytes, room.free.gpu_count),
            "workspaces": counts.get("workspace", 0),
            "jobs": counts.get("job", 0),
        },
    )


def _standing(problem: str, reason: str, *, usable: bool) -> dict[str, str]:
    """Return whether something can be used, and what is wrong with it."""
    phase = "READY" if usable else "FAILED"
    if not problem:
        return {"phase": phase, "reason": "", "message": "", "next_step": ""}
    return {"phase": phase, "reason": reason, "message": problem, "next_step": "Tell a platform admin."}


def _profile(row: Profile) -> dict[str, Any]:
    return resource(
        "profile",
        row,
        tenant=None,
        owner=None,
        spec={
            "title": row.title,
            "description": row.description,
            "amount": amount(row.cpu_milli, row.memory_bytes, row.gpu_count),
            "image": row.image,
            "digest": row.digest,
            "kinds": row.kinds,
            "default": row.is_default,
        },
        status={
            **_standing(row.problem, "IMAGE_NOT_TAKEN_OVER", usable=is_usable(row)),
            "since": iso(row.created_at),
            "usable": is_usable(row),
        },
    )
