"""The store: one engine, units of work, and the change that each of them records."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.orm import Session

from torpor_hub.errors import LeaseLost
from torpor_hub.stores.tables import Change, Lease
from torpor_hub.stores.tables.base import Versioned

CHANGES_LOCK = 7_461_001
BUSY_TIMEOUT_MS = 15_000


def utc_now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


@dataclass
class UnitOfWork:
    """One transaction: all of it is kept, or nothing. ``now`` is its moment, ``actor`` who caused it."""

    session: Session
    actor: str
    now: datetime
    request_id: str = ""
    changed: bool = field(default=False, init=False)

    def change(
        self,
        kind: str,
        object_id: str,
        event_name: str,
        *,
        tenant_id: str | None = None,
        owner_id: str | None = None,
        **payload: Any,
    ) -> None:
        """Record what happened to an object, in this transaction."""
        if not self.changed and self.session.get_bind().dialect.name == "postgresql":
            # Sequence numbers must become visible in their order, or a tailing reader skips one for ever.
            self.session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CHANGES_LOCK})
        self.changed = True
        row = Change(
            at=self.now,
            actor=self.actor,
            tenant_id=tenant_id,
            owner_id=owner_id,
            kind=kind,
            object_id=object_id,
            event=event_name,
            request_id=self.request_id,
            payload=payload,
        )
        self.session.add(row)

    def touch(self, row: Versioned) -> None:
        """Give the row its next version."""
        row.version += 1

    def fence(self, name: str, epoch: int) -> None:
        """Lock the lease row and make sure that ``epoch`` is still the holder's.

        Raises:
            LeaseLost: when a newer holder has taken over.
        """
        row = self.session.execute(select(Lease).where(Lease.name == name).with_for_update()).scalar_one_or_none()
        if row is None or row.epoch != epoch:
            raise LeaseLost(f"The lease '{name}' is no longer held with epoch {epoch}.")


class Store:
    """The database, as units of work.

    SQLite (one writing process) takes its write lock at the beginning of each unit, so that two never fail in the middle;
    PostgreSQL locks rows.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.engine = _engine(url)
        self.clock = clock
        self._reading = self.engine.execution_options(torpor_read=True)
        self._committed = threading.Condition()
        self._commits = 0

    @contextmanager
    def begin(self, actor: str, *, request_id: str = "") -> Iterator[UnitOfWork]:
        """Give a unit of work that may write; leaving the block commits, an exception rolls back."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            unit = UnitOfWork(session, actor, self.clock(), request_id)
            yield unit
        if unit.changed:
            self._announce()

    @contextmanager
    def read(self) -> Iterator[UnitOfWork]:
        """Give a unit of work for reading, which sees one state of the database."""
        with Session(self._reading, expire_on_commit=False) as session, session.begin():
            yield UnitOfWork(session, "", self.clock())

    def wait_for_commit(self, seen: int, timeout_s: float) -> int:
        """Return a counter of this process's commits once it differs from ``seen``, or after ``timeout_s``."""
        with self._committed:
            self._committed.wait_for(lambda: self._commits != seen, timeout_s)
            return self._commits

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _announce(self) -> None:
        with self._committed:
            self._commits += 1
            self._committed.notify_all()


def take_lease(store: Store, name: str, holder: str, lifetime_s: float) -> int | None:
    """Take or renew a lease; return its epoch, or None while another holder has it."""
    with store.begin(holder) as tx:
        row = tx.session.execute(select(Lease).where(Lease.name == name).with_for_update()).scalar_one_or_none()
        expires = tx.now + timedelta(seconds=lifetime_s)
        if row is None:
            tx.session.add(Lease(name=name, holder=holder, epoch=1, expires_at=expires))
            return 1
        if row.holder != holder:
            if row.expires_at > tx.now:
                return None
            row.holder, row.epoch = holder, row.epoch + 1
        row.expires_at = expires
        return row.epoch


def drop_lease(store: Store, name: str, holder: str) -> None:
    """Give a lease back at an orderly end, so that the next holder need not wait."""
    with store.begin(holder) as tx:
        row = tx.session.get(Lease, name)
        if row is not None and row.holder == holder:
            row.expires_at = tx.now


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=10)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # pysqlite would begin by itself, and too late: with deferred transactions two writers fail instead of waiting.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("torpor_read")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
