"""Who may do what: one pure function, asked by every route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """A user's role in a tenant, weakest first."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"


RANK = {Role.VIEWER: 0, Role.MEMBER: 1, Role.ADMIN: 2}


class ActorKind(StrEnum):
    """What stands behind a request. A ``READER`` is an attempt's own code: it acts as its job's owner, who writes nothing."""

    PERSON = "person"
    ATTEMPT = "attempt"
    READER = "reader"
    PROGRAM = "program"


@dataclass(frozen=True)
class Actor:
    """Who asks. ``roles`` maps tenant ids to roles; ``name`` is a user's, a program's, or an attempt's (``job-…-a1``).

    ``node`` is the node that a program is tied to; empty where it is tied to none.
    """

    kind: ActorKind
    name: str
    user_id: str = ""
    admin: bool = False
    can_write: bool = False
    roles: Mapping[str, Role] = field(default_factory=dict)
    node: str = ""

    def has(self, tenant_id: str | None, least: Role) -> bool:
        """Return whether the actor holds ``least`` or more in the tenant."""
        role = self.roles.get(tenant_id or "")
        return role is not None and RANK[role] >= RANK[least]


@dataclass(frozen=True)
class Object:
    """What is asked about. ``id`` is empty for one that is yet to be made; ``attempt`` names a job's attempt.

    ``node`` is where a capture takes place: it is the affair of that node's agent alone.
    """

    kind: str
    id: str = ""
    tenant_id: str | None = None
    owner_id: str | None = None
    attempt: str = ""
    node: str = ""


class Action(StrEnum):
    """What may be done. ``REPORT`` and ``CLAIM`` are for attempts and programs."""

    SEE = "see"
    CREATE = "create"
    CHANGE = "change"
    SAMPLE = "sample"
    READ = "read"
    REPORT = "report"
    CLAIM = "claim"


PROGRAMS: Mapping[str, frozenset[tuple[Action, str]]] = {
    "hub": frozenset(
        {(Action.CREATE, "sign-in"), (Action.CREATE, "start"), (Action.CHANGE, "workspace"), (Action.SEE, "workspace")}
    ),
    "importer": frozenset({(Action.CLAIM, "import"), (Action.REPORT, "import")}),
    "agent": frozenset({(Action.CLAIM, "capture"), (Action.REPORT, "capture")}),
    "demo": frozenset(
        (action, kind) for action in (Action.SEE, Action.CREATE) for kind in ("source", "dataset", "import", "tenant")
    ),
}
WRITES = (Action.CREATE, Action.CHANGE)


def may(actor: Actor, action: Action, thing: Object) -> bool:
    """Return whether ``actor`` may do ``action`` to ``thing``."""
    if actor.kind is ActorKind.PROGRAM:
        return (action, thing.kind) in PROGRAMS.get(actor.name, frozenset()) and thing.node in ("", actor.node)
    if actor.kind is ActorKind.ATTEMPT:
        return action is Action.REPORT and thing.kind == "job" and thing.attempt == actor.name
    if actor.kind is ActorKind.READER:
        return False
    if action in WRITES and not actor.can_write:
        return False
    return _person_may(actor, action, thing)


def _person_may(actor: Actor, action: Action, thing: Object) -> bool:
    match thing.kind:
        case "self" | "profile":
            return action is Action.SEE
        case "tenant":
            return action is Action.SEE and (actor.admin or actor.has(thing.tenant_id, Role.VIEWER))
        case "workspace" | "job" | "read":
            return _may_own(actor, action, thing)
        case "source" | "dataset" | "import":
            return _may_data(actor, action, thing)
    return False


def _may_own(actor: Actor, action: Action, thing: Object) -> bool:
    """Return the rule for what belongs to one person: its owner, and in a weaker way the admins."""
    if action is Action.CREATE:
        return actor.has(thing.tenant_id, Role.MEMBER)
    if actor.user_id and actor.user_id == thing.owner_id:
        return action in (Action.SEE, Action.CHANGE, Action.READ)
    return action in (Action.SEE, Action.CHANGE) and (actor.admin or actor.has(thing.tenant_id, Role.ADMIN))


def _may_data(actor: Actor, action: Action, thing: Object) -> bool:
    """Return the rule for a tenant's data: viewers see and sample, members read and register, admins change."""
    if action in (Action.SEE, Action.SAMPLE):
        return actor.admin or actor.has(thing.tenant_id, Role.VIEWER)
    if action is Action.READ:
        return actor.has(thing.tenant_id, Role.MEMBER)
    if action is Action.CREATE:
        return actor.has(thing.tenant_id, Role.MEMBER)
    if action is Action.CHANGE:
        return actor.admin or actor.has(thing.tenant_id, Role.ADMIN) or actor.user_id == thing.owner_id
    return False
