"""What time does to tasks: silent importers, stages that last too long, reads that nobody takes, and old blobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import or_, select

from torpor_hub.domain.datasets import ENDED, QUEUED, FailureCode
from torpor_hub.services import claims
from torpor_hub.services.claims import Failed
from torpor_hub.services.queues import Task
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Dataset, Import, Read, Upload

MOST_CLAIMS = 3
UNCLAIMED_READ = timedelta(seconds=120)
KEPT = timedelta(minutes=10)
# The importer's own deadline comes first; this is for an importer that cannot even kill.
SLACK = timedelta(seconds=30)
BATCH = 200


def silent(tx: UnitOfWork) -> int:
    """Put every task whose importer's heartbeat stopped back into the queue; return how many there were.

    A task that has cost three importers fails instead: it would cost the next one too.
    """
    count = 0
    for row in _running(tx):
        if row.claimed_until is not None and row.claimed_until < tx.now:
            count += 1
            if row.claims < MOST_CLAIMS:
                claims.requeue(tx, row)
            else:
                claims.give_up(tx, row, _lost(row))
    return count


def overdue(tx: UnitOfWork, settings: Settings) -> int:
    """Fail imports that stay in a stage long after its deadline, and reads that no importer took; return how many."""
    longest = timedelta(seconds=2 * settings.limits.import_stage_s) + SLACK
    count = 0
    for row in _running(tx):
        if isinstance(row, Import) and row.since + longest < tx.now:
            count += 1
            row.fence += 1
            claims.give_up(tx, row, _too_long(row))
    late = select(Read).where(Read.phase == QUEUED, Read.since < tx.now - UNCLAIMED_READ).with_for_update()
    for read in tx.session.scalars(late):
        count += 1
        claims.give_up(tx, read, _unclaimed())
    return count


def old_uploads(tx: UnitOfWork) -> list[str]:
    """Return keys of blobs that nothing refers to any more: replaced samples, and pieces of reads that ended a while ago."""
    before = tx.now - KEPT
    kept = select(Dataset.sample_key)
    keys: list[str] = []
    for table in (Import, Read):
        query = (
            select(Upload.key)
            .join(table, table.id == Upload.task_id)
            .where(or_(table.ended_at < before, Upload.fence < table.fence), Upload.key.not_in(kept))
            .limit(BATCH)
        )
        keys.extend(tx.session.scalars(query))
    return keys


def forget_uploads(tx: UnitOfWork, keys: Sequence[str]) -> None:
    """Remove the rows of uploads whose blobs are gone."""
    for row in tx.session.scalars(select(Upload).where(Upload.key.in_(keys))):
        tx.session.delete(row)


def _running(tx: UnitOfWork) -> list[Task]:
    rows: list[Task] = []
    for table in (Import, Read):
        query = select(table).where(table.phase.not_in([*ENDED, QUEUED])).with_for_update(skip_locked=True)
        rows.extend(tx.session.scalars(query))
    return rows


def _lost(row: Task) -> Failed:
    return Failed(
        FailureCode.UNREACHABLE,
        row.stage if isinstance(row, Import) else "",
        f"The importer was lost {row.claims} times while it worked on this.",
        "Tell an admin to look into the importer's log; then try again.",
    )


def _too_long(row: Import) -> Failed:
    return Failed(
        FailureCode.TIMEOUT,
        row.stage,
        "The importer did not end the stage long after its deadline.",
        "Look whether the store answers, then import again.",
    )


def _unclaimed() -> Failed:
    seconds = int(UNCLAIMED_READ.total_seconds())
    return Failed(
        FailureCode.UNREACHABLE,
        "",
        f"No importer took the read within {seconds} seconds.",
        "Try again; if that lasts, tell an admin.",
    )
