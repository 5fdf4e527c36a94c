"""Sources, datasets, imports and reads."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from torpor_hub.stores.tables.base import Status, Table, Versioned


class Source(Versioned, Table):
    """An external store; ``connector`` is its kind, ``spec`` what the connector needs."""

    __tablename__ = "sources"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    connector: Mapped[str]
    spec: Mapped[dict[str, Any]]


class Dataset(Versioned, Status, Table):
    """A registered part of a source, with what the last good import stored of it."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    source_id: Mapped[str] = mapped_column(ForeignKey("sources.id"))
    path: Mapped[str]
    format: Mapped[str] = mapped_column(default="parquet")
    description: Mapped[str] = mapped_column(default="")
    import_id: Mapped[str | None]
    columns: Mapped[dict[str, Any] | None]
    stats: Mapped[dict[str, Any] | None]
    sample_key: Mapped[str] = mapped_column(default="")
    sample_rows: Mapped[int] = mapped_column(default=0)
    as_of: Mapped[datetime | None]


class Import(Status, Table):
    """One run of test, sample and description over a dataset, claimed by an importer."""

    __tablename__ = "imports"

    id: Mapped[str] = mapped_column(primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    source_id: Mapped[str]
    tenant_id: Mapped[str]
    user_id: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    desired: Mapped[str] = mapped_column(default="ready")
    stage: Mapped[str] = mapped_column(default="")
    stages: Mapped[list[Any]] = mapped_column(default=list)
    fence: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str] = mapped_column(default="")
    claimed_until: Mapped[datetime | None]
    claims: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Read(Status, Table):
    """Rows of a dataset for code: the importer uploads pieces, the api streams them."""

    __tablename__ = "reads"

    id: Mapped[str] = mapped_column(primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    source_id: Mapped[str]
    tenant_id: Mapped[str]
    user_id: Mapped[str]
    request: Mapped[dict[str, Any]]
    fence: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str] = mapped_column(default="")
    claimed_until: Mapped[datetime | None]
    claims: Mapped[int] = mapped_column(default=0)
    chunks: Mapped[int | None]
    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Upload(Table):
    """A piece that an importer sent for a task, once size and hash agreed."""

    __tablename__ = "uploads"

    task_id: Mapped[str] = mapped_column(primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
