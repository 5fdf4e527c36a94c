"""Users, their passwords and what they may do."""

from __future__ import annotations

import secrets
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import select

from torpor_hub.domain.policy import Actor, ActorKind, Role
from torpor_hub.errors import Forbidden, TooManyAttempts
from torpor_hub.services.access import missing
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Membership, Tenant, User

FREE_FAILURES = 5
LOCK_S = 30
PASSWORD_BYTES = 9
HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# Verified in place of an unknown user's hash, so that the time of an answer does not tell who exists.
DECOY = HASHER.hash("a password that nobody has")


def user_named(tx: UnitOfWork, name: str) -> User:
    """Return the user with this name.

    Raises:
        NotFound: when there is none.
    """
    user = tx.session.scalar(select(User).where(User.name == name))
    if user is None:
        raise missing("user", name)
    return user


def tenant_named(tx: UnitOfWork, name: str) -> Tenant:
    """Return the tenant with this name.

    Raises:
        NotFound: when there is none.
    """
    tenant = tx.session.scalar(select(Tenant).where(Tenant.name == name))
    if tenant is None:
        raise missing("tenant", name)
    return tenant


def person(tx: UnitOfWork, name: str, *, can_write: bool) -> Actor:
    """Return a user as the actor of a request, with the roles in force now.

    Raises:
        Forbidden: when the hub knows the name and the platform does not.
    """
    user = tx.session.scalar(select(User).where(User.name == name))
    if user is None:
        raise Forbidden(f"'{name}' is not a user of this platform.", next_step="Ask a platform admin to add you.")
    rows = tx.session.scalars(select(Membership).where(Membership.user_id == user.id))
    roles = {row.tenant_id: Role(row.role) for row in rows}
    return Actor(ActorKind.PERSON, user.name, user.id, user.admin, can_write, roles)


def sign_in(tx: UnitOfWork, name: str, password: str) -> User | None:
    """Return the user whose password this is, or None; failures are counted and, past five, slowed down.

    Raises:
        TooManyAttempts: while the user is locked; the text says for how long.
    """
    user = tx.session.scalar(select(User).where(User.name == name).with_for_update())
    if user is not None and user.locked_until is not None and user.locked_until > tx.now:
        wait_s = int((user.locked_until - tx.now).total_seconds()) + 1
        raise TooManyAttempts(
            f"Too many wrong passwords for '{name}'.", next_step=f"Wait {wait_s} seconds, then try again."
        )
    right = _verify(user.password_hash if user is not None and user.password_hash else DECOY, password)
    if user is None or not user.password_hash:
        return None
    if right:
        user.failures, user.locked_until = 0, None
        tx.change("user", user.id, "signed-in", owner_id=user.id)
        return user
    user.failures += 1
    if user.failures >= FREE_FAILURES:
        user.locked_until = tx.now + timedelta(seconds=LOCK_S)
    tx.change("user", user.id, "sign-in-refused", owner_id=user.id)
    return None


def set_password(user: User, password: str) -> None:
    """Give the user a password; only its hash is kept (argon2id)."""
    user.password_hash = HASHER.hash(password)
    user.failures, user.locked_until = 0, None


def reset_password(tx: UnitOfWork, name: str) -> str:
    """Give the user of that name a new password and return it; who is signed in stays so.

    Raises:
        NotFound: when there is none.
    """
    user = user_named(tx, name)
    tx.change("user", user.id, "password-reset", owner_id=user.id)
    return new_password(user)


def new_password(user: User) -> str:
    """Give the user a password that nobody could guess, and return it."""
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    set_password(user, password)
    return password


def _verify(hashed: str, password: str) -> bool:
    try:
        return HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False
