"""The queue of tasks for importers: what waits, what runs, and when an importer last asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.exc import IntegrityError

from torpor_hub.domain.datasets import ENDED, QUEUED, Waiting
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Component, Import, Read, Source

Task = Import | Read
IMPORTER = "importer"
MOST_PER_SOURCE = 2
DAY = timedelta(days=1)


def seen(tx: UnitOfWork) -> None:
    """Record that an importer was heard of."""
    if _seen_now(tx):
        return
    try:
        with tx.session.begin_nested():
            tx.session.add(Component(name=IMPORTER, seen_at=tx.now))
    except IntegrityError:
        # Another importer's first word came in between.
        _seen_now(tx)


def _seen_now(tx: UnitOfWork) -> bool:
    told = tx.session.execute(update(Component).where(Component.name == IMPORTER).values(seen_at=tx.now))
    return bool(cast(CursorResult[Any], told).rowcount)


def running(tx: UnitOfWork, source_id: str) -> int:
    """Return how many tasks run at a source now."""
    return busy(tx).get(source_id, 0)


def busy(tx: UnitOfWork) -> dict[str, int]:
    """Return how many tasks run, by source."""
    counts: dict[str, int] = {}
    for table in (Import, Read):
        query = (
            select(table.source_id, func.count()).where(table.phase.not_in([*ENDED, QUEUED])).group_by(table.source_id)
        )
        for source_id, count in tx.session.execute(query):
            counts[source_id] = counts.get(source_id, 0) + count
    return counts


def anything(tx: UnitOfWork) -> bool:
    """Return whether any task is queued; cheap, and locks nothing."""
    return any(tx.session.scalar(select(table.id).where(table.phase == QUEUED).limit(1)) for table in (Import, Read))


def next_queued(tx: UnitOfWork) -> Task | None:
    """Return the task to run next, locked: reads before imports, because somebody sits in front of them; then by age.

    A source that is busy enough is passed over, so that what hangs there holds up nothing else.
    """
    full = [source_id for source_id, count in busy(tx).items() if count >= MOST_PER_SOURCE]
    for table in (Read, Import):
        query = (
            select(table)
            .where(table.phase == QUEUED, table.source_id.not_in(full))
            .order_by(table.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        found = cast(Task | None, tx.session.scalar(query))
        if found is not None and _has_room(tx, found.source_id):
            return found
    return None


def waiting(tx: UnitOfWork, settings: Settings, row: Task) -> Waiting:
    """Return what a queued task waits for."""
    component = tx.session.get(Component, IMPORTER)
    source = tx.session.get_one(Source, row.source_id)
    asked = component.seen_at if component is not None else None
    form = "%H:%M" if asked is not None and tx.now - asked < DAY else "%Y-%m-%d %H:%M"
    return Waiting(
        now=tx.now.timestamp(),
        asked_at=asked.timestamp() if asked is not None else None,
        asked_text=f"{asked:{form}} UTC" if asked is not None else "",
        source=source.name,
        busy=running(tx, row.source_id),
        most=MOST_PER_SOURCE,
        silent_after_s=settings.limits.import_claim_s,
    )


def _has_room(tx: UnitOfWork, source_id: str) -> bool:
    """Return whether one more task may run at the source; its row is locked, so that two claims cannot both be the last."""
    tx.session.execute(select(Source.id).where(Source.id == source_id).with_for_update())
    return running(tx, source_id) < MOST_PER_SOURCE
