"""Tasks in the hands of importers: fenced claims, heartbeats, uploads and reports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import select

from torpor_hub.domain.datasets import ENDED, QUEUED, FailureCode, ImportPhase, ReadPhase, Stage, explain_ready
from torpor_hub.errors import InvalidRequest, StaleFence
from torpor_hub.services import imports, queues, reads, sources
from torpor_hub.services.access import missing
from torpor_hub.services.queues import Task
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Dataset, Import, Read, Source, Upload

HEARTBEAT_S = 2.0
PARTITIONS = 20
CELL_BYTES = 2048
MOST_UPLOAD_BYTES = 16 * 1024**2
UPLOAD_NAME = re.compile(r"[a-z0-9][a-z0-9.]{0,63}")
PHASES = {
    Stage.TESTING.value: ImportPhase.TESTING,
    Stage.SAMPLING.value: ImportPhase.SAMPLING,
    Stage.DESCRIBING.value: ImportPhase.DESCRIBING,
}


@dataclass(frozen=True)
class Failed:
    """Why an importer gave a task up."""

    code: str
    stage: str
    message: str
    next_step: str


@dataclass(frozen=True)
class Found:
    """What an importer found. ``chunks`` counts its uploads; the rest is for imports."""

    schema: dict[str, Any] | None
    sample: dict[str, Any] | None
    stats: dict[str, Any] | None
    chunks: int


def claim(tx: UnitOfWork, settings: Settings, importer: str) -> dict[str, Any] | None:
    """Give the next task to ``importer``; None when there is none that may run now."""
    queues.seen(tx)
    row = queues.next_queued(tx)
    if row is None:
        return None
    row.fence += 1
    row.claims += 1
    row.claimed_by = importer
    row.claimed_until = tx.now + timedelta(seconds=settings.limits.claim_s)
    if isinstance(row, Import):
        row.stage, row.stages = Stage.TESTING.value, []
        imports.enter(tx, row, ImportPhase.TESTING)
    else:
        row.bytes_done = 0
        reads.enter(tx, row, ReadPhase.READING)
    return _told(tx, settings, row)


def progress(
    tx: UnitOfWork, settings: Settings, task_id: str, fence: int, *, stage: str, stages: Sequence[dict[str, Any]]
) -> bool:
    """Record an importer's heartbeat; return whether it is to stop.

    Raises:
        StaleFence: when another claim has taken over.
    """
    queues.seen(tx)
    row = _task(tx, task_id)
    if row.fence == fence and row.phase == ImportPhase.CANCELLED:
        return True
    _check_fence(row, fence)
    row.claimed_until = tx.now + timedelta(seconds=settings.limits.claim_s)
    if isinstance(row, Import) and (row.stage, row.stages) != (stage, list(stages)):
        row.stage, row.stages = stage, list(stages)
        imports.enter(tx, row, PHASES.get(stage, ImportPhase(row.phase)))
    return False


def check_upload(tx: UnitOfWork, task_id: str, fence: int, name: str) -> str:
    """Return the key below which an upload is to be stored.

    Raises:
        StaleFence: when another claim has taken over.
        InvalidRequest: when it cannot be named so.
    """
    if UPLOAD_NAME.fullmatch(name) is None:
        raise InvalidRequest(f"'{name}' cannot name an upload.", next_step="Use letters, digits and dots.")
    row = _task(tx, task_id)
    _check_fence(row, fence)
    folder = "samples" if isinstance(row, Import) else "reads"
    return f"{folder}/{task_id}/{fence}/{name}"


def uploaded(tx: UnitOfWork, task_id: str, fence: int, name: str, *, key: str, size_bytes: int, sha256: str) -> None:
    """Record a stored upload whose size and hash agreed; repeating one is harmless.

    Raises:
        StaleFence: when another claim has taken over.
    """
    row = _task(tx, task_id)
    _check_fence(row, fence)
    known = tx.session.get(Upload, (task_id, fence, name))
    if known is not None:
        known.key, known.size_bytes, known.sha256 = key, size_bytes, sha256
        return
    tx.session.add(Upload(task_id=task_id, fence=fence, name=name, key=key, size_bytes=size_bytes, sha256=sha256))
    if isinstance(row, Read):
        row.bytes_done += size_bytes
        reads.changed(tx, row, "piece")


def finish(tx: UnitOfWork, task_id: str, fence: int, found: Found, stages: Sequence[dict[str, Any]]) -> None:
    """Record what an importer found; repeating the report is harmless.

    Raises:
        StaleFence: when another claim has taken over.
        InvalidRequest: when the report names uploads that did not arrive so.
    """
    queues.seen(tx)
    row = _task(tx, task_id)
    if row.fence == fence and row.phase == ImportPhase.READY:
        return
    _check_fence(row, fence)
    if isinstance(row, Import):
        _finish_import(tx, row, found, stages)
    else:
        _finish_read(tx, row, found)


def fail(tx: UnitOfWork, task_id: str, fence: int, failed: Failed, stages: Sequence[dict[str, Any]]) -> None:
    """Record why an importer gave a task up; repeating the report is harmless.

    Raises:
        StaleFence: when another claim has taken over.
        InvalidRequest: when the code is not of the closed set.
    """
    queues.seen(tx)
    if failed.code not in list(FailureCode):
        raise InvalidRequest(f"There is no failure '{failed.code}'.", next_step="Use the closed set.", pointer="/code")
    row = _task(tx, task_id)
    if row.fence == fence and row.phase in ENDED:
        return
    _check_fence(row, fence)
    if isinstance(row, Import):
        row.stage, row.stages = failed.stage or row.stage, list(stages) or row.stages
    give_up(tx, row, failed)


def give_up(tx: UnitOfWork, row: Task, failed: Failed) -> None:
    """Bring a task to its end as failed."""
    why = {"reason": failed.code, "message": failed.message, "next_step": failed.next_step}
    if isinstance(row, Import):
        imports.enter(tx, row, ImportPhase.FAILED, **why)
    else:
        reads.enter(tx, row, ReadPhase.FAILED, **why)


def requeue(tx: UnitOfWork, row: Task) -> None:
    """Put a task back into the queue; whoever still works on it is refused from now on."""
    row.fence += 1
    row.claimed_by, row.claimed_until = "", None
    if isinstance(row, Import):
        row.stage, row.stages = "", []
        imports.enter(tx, row, ImportPhase.QUEUED)
    else:
        reads.enter(tx, row, ReadPhase.QUEUED)


def _finish_import(tx: UnitOfWork, row: Import, found: Found, stages: Sequence[dict[str, Any]]) -> None:
    if found.schema is None or found.sample is None or found.stats is None:
        raise InvalidRequest("An import ends with schema, sample and stats.", next_step="Send all three.")
    sample = tx.session.get(Upload, (row.id, row.fence, str(found.sample.get("name"))))
    told = (found.sample.get("size_bytes"), found.sample.get("sha256"))
    if sample is None or (sample.size_bytes, sample.sha256) != told:
        raise InvalidRequest(
            "The report's sample did not arrive so.", next_step="Upload it first, then report.", pointer="/sample"
        )
    dataset = tx.session.get_one(Dataset, row.dataset_id)
    dataset.columns, dataset.stats = found.schema, found.stats
    dataset.sample_key, dataset.sample_rows = sample.key, int(found.sample.get("rows", 0))
    dataset.as_of = tx.now
    row.stages = list(stages) or row.stages
    imports.enter(tx, row, ImportPhase.READY, message=explain_ready(found.stats))


def _finish_read(tx: UnitOfWork, row: Read, found: Found) -> None:
    names = set(tx.session.scalars(select(Upload.name).where(Upload.task_id == row.id, Upload.fence == row.fence)))
    if names != {str(index) for index in range(found.chunks)}:
        raise InvalidRequest(
            f"The report names {found.chunks} pieces, {len(names)} arrived.", next_step="Upload the rest, then report."
        )
    row.chunks = found.chunks
    reads.enter(tx, row, ReadPhase.READY, message="All rows were sent.")


def _told(tx: UnitOfWork, settings: Settings, row: Task) -> dict[str, Any]:
    """Return what an importer is told of its task."""
    dataset, source = tx.session.get_one(Dataset, row.dataset_id), tx.session.get_one(Source, row.source_id)
    limits = settings.limits
    return {
        "task": row.id,
        "kind": "import" if isinstance(row, Import) else "read",
        "fence": row.fence,
        "deadline_s": limits.import_stage_s,
        "source": {"kind": source.connector, **sources.spec_of(settings, source)},
        "dataset": {"path": dataset.path, "format": dataset.format},
        "limits": {
            "rows": limits.sample_rows,
            "bytes": limits.sample_bytes,
            "cell_bytes": CELL_BYTES,
            "partitions": PARTITIONS,
        },
        "read": row.request if isinstance(row, Read) else None,
        "heartbeat_s": min(HEARTBEAT_S, limits.claim_s / 4),
    }


def _task(tx: UnitOfWork, task_id: str) -> Task:
    """Return a task, locked."""
    table: type[Import] | type[Read] = Import if task_id.startswith("imp-") else Read
    row = cast(Task | None, tx.session.scalar(select(table).where(table.id == task_id).with_for_update()))
    if row is None:
        raise missing("task", task_id)
    return row


def _check_fence(row: Task, fence: int) -> None:
    if row.fence != fence or row.phase in ENDED or row.phase == QUEUED:
        raise StaleFence("This task was given to another importer, or has ended.", next_step="Claim another one.")
