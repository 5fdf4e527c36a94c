"""Jobs, their attempts and log segments."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from torpor_hub.stores.tables.base import Status, Table, Versioned


class Job(Versioned, Status, Table):
    """A job: its wish is ``desired``; its code is a blob by hash. ``notice``: what of its spec could not be had."""

    __tablename__ = "jobs"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    workspace_id: Mapped[str | None]
    kind: Mapped[str]
    spec: Mapped[dict[str, Any]]
    spec_hash: Mapped[str]
    desired: Mapped[str] = mapped_column(default="running")
    attempt: Mapped[int] = mapped_column(default=0)
    retries_left: Mapped[int] = mapped_column(default=0)
    ranks: Mapped[int] = mapped_column(default=1)
    cpu_milli: Mapped[int]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    operation_id: Mapped[str | None]
    checkpoint_id: Mapped[str | None]
    environment_digest: Mapped[str | None]
    bundle_key: Mapped[str] = mapped_column(default="")
    bundle_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    bundle_sha256: Mapped[str] = mapped_column(default="")
    result_key: Mapped[str] = mapped_column(default="")
    result_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    result_sha256: Mapped[str] = mapped_column(default="")
    exit_code: Mapped[int | None]
    exception: Mapped[dict[str, Any] | None]
    notice: Mapped[str] = mapped_column(default="")
    parts: Mapped[list[Any]] = mapped_column(default=list)
    position: Mapped[int | None]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Attempt(Table):
    """One try at running a job; ``handle`` is saved by the runner's start."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    handle: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="admitted")
    created_at: Mapped[datetime]
    heard_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    reason: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(default="")
    exception: Mapped[dict[str, Any] | None]


class LogSegment(Table):
    """A piece of a rank's output; its bytes are the blob ``logs/<job>/<attempt>/<rank>/<offset>``."""

    __tablename__ = "log_segments"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
