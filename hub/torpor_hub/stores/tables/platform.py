"""Changes, leases, programs of the platform, and repeated requests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Integer
from sqlalchemy.orm import Mapped, mapped_column

from torpor_hub.stores.tables.base import Table


class Change(Table):
    """What happened, in the order of commits: feeds event streams, wakes the loops, and is the audit log."""

    __tablename__ = "changes"

    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    tenant_id: Mapped[str | None]
    owner_id: Mapped[str | None]
    kind: Mapped[str]
    object_id: Mapped[str] = mapped_column(index=True)
    event: Mapped[str]
    request_id: Mapped[str] = mapped_column(default="")
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Lease(Table):
    """Who may act; ``epoch`` grows with every new holder and fences the old one."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    epoch: Mapped[int]
    expires_at: Mapped[datetime]


class Component(Table):
    """When a program of the platform was last heard of."""

    __tablename__ = "components"

    name: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]


class Repeat(Table):
    """An idempotency key, and the object that its first request made."""

    __tablename__ = "repeats"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[str]
    object_id: Mapped[str]
    created_at: Mapped[datetime]
