"""Workspaces, their operations, checkpoints and grants, and the quota ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from torpor_hub.stores.tables.base import Status, Table, Versioned


class Workspace(Versioned, Status, Table):
    """A named JupyterLab server of one user in one tenant.

    ``desired``, ``discard`` and ``environment`` are the wish; the rest is fact. ``handle`` names the start that runs now.
    ``node`` and ``container`` say where. ``unsaved`` tells that the environment may have changed since ``checkpoint_id`` was taken.
    ``lost`` says what its last end cost, until the next start has come up and says it in its ``notice``.
    """

    __tablename__ = "workspaces"
    __table_args__ = (UniqueConstraint("user_id", "name"),)

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    profile_id: Mapped[str] = mapped_column(ForeignKey("profiles.id"))
    desired: Mapped[str] = mapped_column(default="stopped")
    discard: Mapped[bool] = mapped_column(default=False)
    environment: Mapped[str] = mapped_column(default="current")
    checkpoint_id: Mapped[str | None]
    previous_checkpoint_id: Mapped[str | None]
    operation_id: Mapped[str | None]
    grant_id: Mapped[str | None]
    handle: Mapped[str] = mapped_column(default="")
    node: Mapped[str] = mapped_column(default="")
    container: Mapped[str] = mapped_column(default="")
    unsaved: Mapped[bool] = mapped_column(default=False)
    asleep_because: Mapped[str] = mapped_column(default="")
    notice: Mapped[str] = mapped_column(default="")
    lost: Mapped[str] = mapped_column(default="")
    last_log: Mapped[str] = mapped_column(default="")


class Operation(Table):
    """The steps of one start, sleep or checkpoint of a workspace; ``fence`` grows with every claim."""

    __tablename__ = "operations"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    workspace_id: Mapped[str] = mapped_column(index=True)
    step: Mapped[str]
    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_total: Mapped[int] = mapped_column(BigInteger, default=0)
    fence: Mapped[int] = mapped_column(default=0)
    error: Mapped[str] = mapped_column(default="")
    error_code: Mapped[str] = mapped_column(default="")
    next_step: Mapped[str] = mapped_column(default="")
    actor: Mapped[str] = mapped_column(default="")
    handle: Mapped[str] = mapped_column(default="")
    node: Mapped[str] = mapped_column(default="")
    claimed_by: Mapped[str] = mapped_column(default="")
    claimed_until: Mapped[datetime | None]
    thaw_after_s: Mapped[int] = mapped_column(default=0)
    removing: Mapped[bool] = mapped_column(default=False)
    frozen_until: Mapped[datetime | None]
    parent_digest: Mapped[str | None]
    result_digest: Mapped[str | None]
    checkpoint_id: Mapped[str | None]
    cancel: Mapped[bool] = mapped_column(default=False)
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    deadline: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]


class Checkpoint(Table):
    """A saved environment: an OCI image by digest."""

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(index=True)
    tenant_id: Mapped[str]
    repository: Mapped[str]
    digest: Mapped[str] = mapped_column(index=True)
    base: Mapped[str] = mapped_column(default="")
    parent_digest: Mapped[str | None]
    layers: Mapped[list[Any]]
    entries: Mapped[int] = mapped_column(BigInteger, default=0)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    skipped: Mapped[list[Any]] = mapped_column(default=list)
    python_version: Mapped[str]
    platform_version: Mapped[str]
    created_at: Mapped[datetime]


class Grant(Table):
    """Leave to start once; what turns up with its id is that start."""

    __tablename__ = "grants"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(index=True)
    operation_id: Mapped[str]
    run: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Reservation(Table):
    """What a subject holds of a tenant's quota and of a pool, from when until when."""

    __tablename__ = "reservations"

    id: Mapped[str] = mapped_column(primary_key=True)
    subject_id: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    tenant_id: Mapped[str] = mapped_column(index=True)
    user_id: Mapped[str]
    pool: Mapped[str]
    cpu_milli: Mapped[int]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    gpu_class: Mapped[str] = mapped_column(default="")
    gpu_count: Mapped[int] = mapped_column(default=0)
    held_from: Mapped[datetime]
    held_until: Mapped[datetime | None]


class Pool(Table):
    """What a place lends in all, as it last said."""

    __tablename__ = "pools"

    name: Mapped[str] = mapped_column(primary_key=True)
    cpu_milli: Mapped[int]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    gpu_count: Mapped[int] = mapped_column(default=0)
    floor_cpu_milli: Mapped[int] = mapped_column(default=0)
    floor_memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
