"""Asking the policy, with the answer that a route gives."""

from __future__ import annotations

from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.policy import Action, Actor, Object, may
from torpor_hub.errors import Conflict, Forbidden, NotFound

NAMES = {"self": "page", "import": "import", "read": "read"}


def check(actor: Actor, action: Action, thing: Object) -> None:
    """Return when the actor may do this.

    Raises:
        NotFound: when the actor may not even see it: the same answer as for what does not exist.
        Forbidden: when the actor may see it, but not do this.
    """
    if may(actor, action, thing):
        return
    if thing.id and not may(actor, Action.SEE, thing):
        raise missing(thing.kind, thing.id)
    kind = NAMES.get(thing.kind, thing.kind)
    if action in (Action.CREATE, Action.CHANGE) and not actor.can_write:
        raise Forbidden(
            f"These credentials may look at a {kind}, but not change or make one.",
            next_step="Use a token with the scope custom:torpor:write.",
        )
    raise Forbidden(
        f"'{actor.name}' may not {action.value} this {kind}.", next_step="Ask an admin of the tenant for the right."
    )


def missing(kind: str, key: str) -> NotFound:
    """Return the one answer for what does not exist and for what the actor may not see."""
    return NotFound(
        f"There is no {NAMES.get(kind, kind)} '{key}'.",
        next_step="Check the id or name; you may lack the right to see it.",
    )


def refusal(cause: Cause, *, pointer: str = "") -> Conflict:
    """Return a cause as the answer to a request that it stands against."""
    return Conflict(cause.message, next_step=cause.next_step, pointer=pointer, reason=cause.reason)
