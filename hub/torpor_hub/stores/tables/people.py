"""Tenants, users, memberships and profiles."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from torpor_hub.stores.tables.base import Table, Versioned


class Tenant(Versioned, Table):
    """A group of users with a quota. ``problem``: why nobody can work in it now."""

    __tablename__ = "tenants"
    __table_args__ = (UniqueConstraint("name"),)

    title: Mapped[str] = mapped_column(default="")
    cpu_milli: Mapped[int]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    gpu_count: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str] = mapped_column(default="")


class User(Versioned, Table):
    """A person, known by issuer and subject; ``name`` is the hub's."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("name"), UniqueConstraint("issuer", "subject"))

    issuer: Mapped[str]
    subject: Mapped[str]
    admin: Mapped[bool] = mapped_column(default=False)
    password_hash: Mapped[str] = mapped_column(default="")
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[datetime | None]


class Membership(Table):
    """A user's role in a tenant; ``origin`` is ``idp`` or ``admin``."""

    __tablename__ = "memberships"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    role: Mapped[str]
    origin: Mapped[str] = mapped_column(default="admin")


class Profile(Versioned, Table):
    """An image with resources. ``image`` is as an admin wrote it, ``digest`` what it was when it was taken over."""

    __tablename__ = "profiles"
    __table_args__ = (UniqueConstraint("name"),)

    title: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    cpu_milli: Mapped[int]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    gpu_count: Mapped[int] = mapped_column(default=0)
    image: Mapped[str] = mapped_column(default="")
    digest: Mapped[str] = mapped_column(default="")
    problem: Mapped[str] = mapped_column(default="")
    kinds: Mapped[list[Any]]
    is_default: Mapped[bool] = mapped_column(default=False)
    position: Mapped[int] = mapped_column(default=0)
