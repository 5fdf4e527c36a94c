"""Repeated requests: the same idempotency key and body give the same object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import IntegrityError

from torpor_hub.domain.policy import Actor
from torpor_hub.errors import Conflict, InvalidRequest
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Repeat

LONGEST_KEY = 64


class Mismatch(Conflict):
    """The key was used for another request before."""

    code = "idempotency_mismatch"


def once(tx: UnitOfWork, actor: Actor, key: str, body: Any, make: Callable[[], str]) -> str:
    """Return the id of the object that ``make`` makes, or made when the key came first; an empty key repeats nothing.

    ``body`` holds everything that must agree: the route's own name and the JSON of the request.

    Raises:
        InvalidRequest: when the key is too long.
        Conflict: when the first request with this key ends at the same moment.
        Mismatch: when the key came with another body before.
    """
    if not key:
        return make()
    if len(key) > LONGEST_KEY:
        raise InvalidRequest(f"An Idempotency-Key has at most {LONGEST_KEY} characters.", next_step="Use a UUID.")
    user = actor.user_id or f"{actor.kind}:{actor.name}"
    body_hash = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    known = tx.session.get(Repeat, (user, key))
    if known is None:
        made = make()
        tx.session.add(Repeat(user_id=user, key=key, body_hash=body_hash, object_id=made, created_at=tx.now))
        try:
            tx.session.flush()
        except IntegrityError as error:
            raise Conflict("The first request with this key ends just now.", next_step="Repeat it.") from error
        return made
    if known.body_hash != body_hash:
        raise Mismatch("This Idempotency-Key came with another request before.", next_step="Use a new key.")
    return known.object_id
