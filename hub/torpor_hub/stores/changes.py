"""The feed of changes: one tailing thread per process, any number of listeners."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from torpor_hub.stores.base import Store
from torpor_hub.stores.tables import Change

POLL_S = 0.5
PAGE = 500


@dataclass(frozen=True)
class Seen:
    """One change, as listeners get it."""

    seq: int
    at: datetime
    actor: str
    tenant_id: str | None
    owner_id: str | None
    kind: str
    object_id: str
    event: str
    payload: dict[str, Any]


class ChangeFeed:
    """Tails the table of changes in one thread and hands every change to all listeners, in order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: list[Callable[[Seen], object]] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.last_seq = 0

    def start(self) -> None:
        """Begin at the newest change."""
        with self._store.read() as tx:
            self.last_seq = tx.session.scalar(select(func.max(Change.seq))) or 0
        self._thread = threading.Thread(target=self._tail, name="changes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(5)

    def listen(self, listener: Callable[[Seen], object]) -> Callable[[], None]:
        """Call ``listener`` (in the feed's thread) for every later change; return what ends that."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return end

    def since(self, seq: int, limit: int = PAGE) -> list[Seen]:
        """Return the changes after ``seq``, oldest first, at most ``limit``."""
        with self._store.read() as tx:
            rows = tx.session.scalars(select(Change).where(Change.seq > seq).order_by(Change.seq).limit(limit))
            return [_seen(row) for row in rows]

    def _tail(self) -> None:
        commits = 0
        while not self._stopped.is_set():
            commits = self._store.wait_for_commit(commits, POLL_S)
            try:
                self._deliver()
            except SQLAlchemyError:
                # A database that is away now is asked again at the next turn; nothing is skipped.
                self._stopped.wait(POLL_S)

    def _deliver(self) -> None:
        while found := self.since(self.last_seq):
            with self._lock:
                listeners = list(self._listeners)
            for change in found:
                for listener in listeners:
                    listener(change)
            self.last_seq = found[-1].seq


def _seen(row: Change) -> Seen:
    return Seen(
        row.seq, row.at, row.actor, row.tenant_id, row.owner_id, row.kind, row.object_id, row.event, row.payload
    )
