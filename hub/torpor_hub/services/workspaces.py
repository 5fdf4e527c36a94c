"""Workspaces as people see and change them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from torpor_hub.domain import ids, names, saving
from torpor_hub.domain.policy import Action, Actor, Object, may
from torpor_hub.domain.workspaces import Desired, EnvironmentChoice, Phase
from torpor_hub.errors import Conflict, InvalidRequest
from torpor_hub.services import operations, sleeps, starts, tenants
from torpor_hub.services.access import check, missing, refusal
from torpor_hub.services.people import tenant_named
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Tenant, User, Workspace

RUNS = (Phase.STARTING, Phase.WAKING, Phase.RUNNING, Phase.UNREACHABLE, Phase.SLEEPING)


def thing(row: Workspace) -> Object:
    """Return the workspace as the policy sees it."""
    return Object("workspace", row.id, row.tenant_id, row.user_id)


def find(tx: UnitOfWork, actor: Actor, key: str, action: Action = Action.SEE) -> Workspace:
    """Return a workspace by id, or one's own by name, when the actor may do ``action`` to it.

    Raises:
        NotFound: when there is none, or the actor may not see it.
        Forbidden: when the actor may see it, but not do this.
    """
    row = tx.session.get(Workspace, key) or tx.session.scalar(
        select(Workspace).where(Workspace.name == key, Workspace.user_id == actor.user_id)
    )
    if row is None:
        raise missing("workspace", key)
    check(actor, action, thing(row))
    return row


def listed(tx: UnitOfWork, actor: Actor, *, everybody: bool, limit: int, offset: int) -> list[Workspace]:
    """Return one's own workspaces, or with ``everybody`` all that one may see; one more than ``limit`` if there are more."""
    query = select(Workspace).order_by(Workspace.id.desc())
    if not everybody:
        query = query.where(Workspace.user_id == actor.user_id)
        return list(tx.session.scalars(query.limit(limit + 1).offset(offset)))
    seen = [row for row in tx.session.scalars(query) if may(actor, Action.SEE, thing(row))]
    return seen[offset : offset + limit + 1]


def create(tx: UnitOfWork, actor: Actor, *, name: str, tenant: str, profile: str | None) -> Workspace:
    """Make a workspace of the actor's own; nothing of it runs yet.

    Raises:
        InvalidRequest: when the name or profile is none.
        Conflict: when the actor has one of this name, or the profile's image cannot be had.
        NotFound, Forbidden: when the actor may not have one in this tenant.
    """
    home = tenant_named(tx, tenant)
    check(actor, Action.SEE, Object("tenant", home.id, home.id))
    check(actor, Action.CREATE, Object("workspace", "", home.id, actor.user_id))
    if not names.is_name(name):
        raise InvalidRequest(f"'{name}' cannot name a workspace.", next_step=f"Use {names.RULE}.", pointer="/name")
    if tx.session.scalar(select(Workspace).where(Workspace.user_id == actor.user_id, Workspace.name == name)):
        raise Conflict(
            f"You have a workspace named '{name}' already.", next_step="Choose another name.", pointer="/name"
        )
    chosen = tenants.profile_named(tx, profile)
    tenants.require_usable(chosen)
    row = Workspace(
        id=ids.new("ws"),
        name=name,
        created_at=tx.now,
        tenant_id=home.id,
        user_id=actor.user_id,
        profile_id=chosen.id,
        phase=Phase.NEW,
        since=tx.now,
        message="This workspace has never been started.",
    )
    tx.session.add(row)
    tx.session.flush()
    operations.changed(tx, row, "created")
    return row


def wish(tx: UnitOfWork, settings: Settings, row: Workspace, spec: dict[str, Any]) -> None:
    """Record what the owner wishes, and begin what it takes.

    Raises:
        InvalidRequest: when the wish is none.
        Conflict: when the workspace cannot do that now.
        QuotaExceeded: when a start finds no room.
    """
    desired = _desired(spec)
    if desired is Desired.RUNNING:
        _wish_running(tx, settings, row, _environment(spec))
    elif desired is Desired.ASLEEP:
        sleeps.wish(tx, settings, row)
    elif desired is Desired.STOPPED:
        _wish_stopped(tx, settings, row, discard=bool(spec.get("discard")))


def wish_deleted(tx: UnitOfWork, row: Workspace) -> None:
    """Record that the workspace is to go, with its environment and checkpoints; its home stays."""
    row.desired = Desired.DELETED
    operations.enter(tx, row, Phase.DELETING, message="The workspace is being deleted; files in the home stay.")


def owner_and_tenant(tx: UnitOfWork, row: Workspace) -> tuple[User, Tenant]:
    """Return the rows that a workspace belongs to."""
    user, tenant = tx.session.get_one(User, row.user_id), tx.session.get_one(Tenant, row.tenant_id)
    return user, tenant


def _wish_running(tx: UnitOfWork, settings: Settings, row: Workspace, choice: EnvironmentChoice) -> None:
    if row.phase == Phase.SLEEPING:
        sleeps.cancel(tx, row)
        return
    row.desired = Desired.RUNNING
    if row.phase not in RUNS:
        starts.begin(tx, settings, row, choice)
    elif choice is not EnvironmentChoice.CURRENT:
        raise Conflict(
            f"'{row.name}' runs with its environment.", next_step="Put it to sleep or stop it first, then choose."
        )


def _wish_stopped(tx: UnitOfWork, settings: Settings, row: Workspace, *, discard: bool) -> None:
    if row.phase not in (Phase.RUNNING, Phase.UNREACHABLE, Phase.STOPPED, Phase.FAILED):
        raise Conflict(
            f"'{row.name}' is {row.phase.lower()}; there is nothing to stop.", next_step="Wait until it runs."
        )
    if not discard and not settings.save_environments:
        raise refusal(saving.STOP_DISCARDS, pointer="/spec/discard")
    if not discard:
        raise InvalidRequest(
            "Stopping without saving loses what was installed since the last sleep.",
            next_step="Confirm with `discard: true`, or put the workspace to sleep instead.",
            pointer="/spec/discard",
        )
    row.desired, row.discard = Desired.STOPPED, True
    operations.changed(tx, row, "stop-asked")


def _desired(spec: dict[str, Any]) -> Desired:
    wanted = spec.get("desired")
    if wanted not in (Desired.RUNNING, Desired.ASLEEP, Desired.STOPPED):
        raise InvalidRequest(
            f"'{wanted}' is no wish.", next_step="Use running, asleep or stopped.", pointer="/spec/desired"
        )
    return Desired(wanted)


def _environment(spec: dict[str, Any]) -> EnvironmentChoice:
    wanted = spec.get("environment") or EnvironmentChoice.CURRENT
    if wanted not in tuple(EnvironmentChoice):
        raise InvalidRequest(
            f"'{wanted}' is no environment.", next_step="Use current, previous or profile.", pointer="/spec/environment"
        )
    return EnvironmentChoice(wanted)
