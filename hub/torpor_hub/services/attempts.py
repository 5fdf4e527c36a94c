"""What the wrapper of an attempt asks and reports: its task, heartbeats, log, result and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from torpor_hub.domain.job_specs import LONGEST_S
from torpor_hub.domain.jobs import FINAL, AttemptState, Desired, Ending, Phase, judge
from torpor_hub.domain.policy import Action, Actor, Object
from torpor_hub.errors import Conflict, InvalidRequest, NotFound, StaleFence, Unauthenticated
from torpor_hub.services import jobs, people
from torpor_hub.services.access import check
from torpor_hub.services.resources import amount
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.blobs import Blobs, Written
from torpor_hub.stores.tables import Attempt, Job, LogSegment, User

RESULT_BYTES = 64 * 1024**2
SEGMENT_BYTES = 1024**2
LOG_READ_BYTES = 32 * 1024**2
LIVE = (AttemptState.ADMITTED, AttemptState.STARTED, AttemptState.RUNNING)
HEARD_EVERY = timedelta(seconds=10)


class NotFinished(Conflict):
    """The job has no result yet."""

    code = "not_finished"


@dataclass(frozen=True)
class Report:
    """How an attempt ended, as its wrapper tells it."""

    exit_code: int | None
    reason: str
    message: str
    exception: dict[str, Any] | None


def current(tx: UnitOfWork, actor: Actor, job_id: str, number: int) -> tuple[Job, Attempt]:
    """Return the attempt that reports, with its job, both locked.

    Raises:
        NotFound: when the token is not this attempt's.
        StaleFence: when the attempt is not the job's newest, or is over.
    """
    name = f"{job_id}-a{number}"
    check(actor, Action.REPORT, Object("job", job_id, attempt=name))
    row = jobs.lock(tx, job_id)
    attempt = tx.session.get(Attempt, (job_id, number))
    if attempt is None or row.attempt != number or attempt.state == AttemptState.CLOSED:
        raise StaleFence(f"{name} is over.", next_step="End its processes; nothing more is taken from it.")
    return row, attempt


def owner(tx: UnitOfWork, name: str) -> Actor:
    """Return the owner of the job whose attempt ``job-…-a1`` runs, with the rights in force now except for writing.

    Raises:
        Unauthenticated: when the attempt has ended, or another one has taken over.
    """
    job_id, _, number = name.rpartition("-a")
    row, attempt = tx.session.get(Job, job_id), tx.session.get(Attempt, (job_id, int(number)))
    if row is None or attempt is None or row.attempt != attempt.number or attempt.state not in LIVE:
        raise Unauthenticated(f"{name} has ended, and its token with it.", next_step="Use a token of your own.")
    return people.person(tx, tx.session.get_one(User, row.user_id).name, can_write=False)


def task(row: Job) -> dict[str, Any]:
    """Return what the attempt has to do."""
    bundle = {"size_bytes": row.bundle_bytes, "sha256": row.bundle_sha256} if row.bundle_key else None
    return {
        "job": row.id,
        "name": row.name,
        "attempt": row.attempt,
        "ranks": row.ranks,
        "kind": row.kind,
        "code": row.spec["code"],
        "amount": amount(row.cpu_milli, row.memory_bytes),
        "timeout_s": row.spec["timeout_s"] or LONGEST_S,
        "result_bytes": RESULT_BYTES,
        "bundle": bundle,
        "desired": row.desired,
    }


def heard(tx: UnitOfWork, row: Job, attempt: Attempt) -> str:
    """Record a heartbeat; return what the owner wishes.

    Raises:
        StaleFence: when the attempt has reported its end.
    """
    if attempt.state == AttemptState.ENDED:
        raise StaleFence(f"{row.id}-a{attempt.number} has ended.", next_step="End its processes.")
    if attempt.heard_at is None or tx.now - attempt.heard_at > HEARD_EVERY:
        attempt.heard_at = tx.now
    if attempt.state != AttemptState.RUNNING:
        attempt.state, attempt.started_at = AttemptState.RUNNING, tx.now
        row.started_at = row.started_at or tx.now
        if row.phase in (Phase.ADMITTED, Phase.STARTING):
            jobs.enter(tx, row, Phase.RUNNING)
    return row.desired


def add_segment(tx: UnitOfWork, row: Job, attempt: Attempt, rank: int, start: int, written: Written) -> None:
    """Record a stored piece of the log; repeating it is harmless.

    Raises:
        InvalidRequest: when the rank or the offset cannot be.
    """
    if not 0 <= rank < row.ranks or start < 0:
        raise InvalidRequest(f"The job has no log {rank}/{start}.", next_step=f"Its ranks are 0 to {row.ranks - 1}.")
    key = (row.id, attempt.number, rank, start)
    segment = tx.session.get(LogSegment, key)
    if segment is None:
        segment = LogSegment(job_id=row.id, attempt=attempt.number, rank=rank, start=start, size_bytes=0, sha256="")
        tx.session.add(segment)
    segment.size_bytes, segment.sha256 = written.size_bytes, written.sha256


def set_result(tx: UnitOfWork, row: Job, written: Written) -> None:
    """Record a stored result."""
    row.result_key, row.result_bytes, row.result_sha256 = written.key, written.size_bytes, written.sha256
    jobs.changed(tx, row, "result")


def ended(tx: UnitOfWork, row: Job, attempt: Attempt, report: Report) -> None:
    """Record how the attempt ended, once; what it held stays held until its processes are gone."""
    if attempt.state in (AttemptState.ENDED, AttemptState.CLOSED):
        return
    attempt.state, attempt.ended_at = AttemptState.ENDED, tx.now
    attempt.exit_code, attempt.reason = report.exit_code, report.reason
    attempt.message, attempt.exception = report.message, report.exception
    conclude(tx, row, attempt)


def conclude(tx: UnitOfWork, row: Job, attempt: Attempt) -> None:
    """Let the job follow from the end of its attempt."""
    if row.phase in FINAL:
        return
    verdict = judge(
        Ending(attempt.exit_code, attempt.reason, attempt.message),
        attempt=attempt.number,
        cancelled=row.desired == Desired.CANCELLED,
        retries_left=row.retries_left,
    )
    if verdict.phase is Phase.QUEUED:
        row.retries_left -= 1
        row.result_key, row.result_bytes, row.result_sha256 = "", 0, ""
    else:
        row.exit_code, row.exception, row.ended_at = attempt.exit_code, attempt.exception, tx.now
    jobs.enter(tx, row, verdict.phase, reason=verdict.reason, message=verdict.message, next_step=verdict.next_step)


@dataclass(frozen=True)
class LogPart:
    """A range of one attempt's log: where it begins, and the stored pieces that it is cut from, by offset."""

    attempt: int
    start: int
    end: int
    pieces: Mapping[int, str]

    def read(self, blobs: Blobs) -> bytes:
        """Return the bytes of the range."""
        found = [blobs.get(key) for _, key in sorted(self.pieces.items())]
        if not found:
            return b""
        skipped = self.start - min(self.pieces)
        return b"".join(found)[skipped : skipped + self.end - self.start]


def stored_log(tx: UnitOfWork, job_id: str, attempt: int, rank: int) -> tuple[list[LogSegment], int]:
    """Return the pieces of a log up to the first gap, and the offset where they end."""
    rows = tx.session.scalars(
        select(LogSegment)
        .where(LogSegment.job_id == job_id, LogSegment.attempt == attempt, LogSegment.rank == rank)
        .order_by(LogSegment.start)
    )
    whole, end = [], 0
    for segment in rows:
        if segment.start != end:
            break
        whole.append(segment)
        end += segment.size_bytes
    return whole, end


def log_part(tx: UnitOfWork, row: Job, *, attempt: int | None, rank: int, offset: int, tail: int | None) -> LogPart:
    """Return a range of the log, as far as it is stored without a gap: from ``offset``, or the last ``tail`` bytes."""
    number = row.attempt if attempt is None else attempt
    whole, end = stored_log(tx, row.id, number, rank)
    start = max(0, end - tail) if tail is not None else min(max(0, offset), end)
    stop = min(end, start + LOG_READ_BYTES)
    pieces = {
        part.start: log_key(row.id, number, rank, part.start)
        for part in whole
        if part.start < stop and part.start + part.size_bytes > start
    }
    return LogPart(number, start, stop, pieces)


def log_key(job_id: str, attempt: int, rank: int, start: int) -> str:
    """Return the key of a piece of log."""
    return f"logs/{job_id}/{attempt}/{rank}/{start}"


def result_key(job_id: str, attempt: int) -> str:
    """Return the key of an attempt's result."""
    return f"results/{job_id}/{attempt}"


def result_of(row: Job) -> tuple[str, str]:
    """Return the key and sha256 of the job's result.

    Raises:
        NotFinished: while the job has not ended.
        NotFound: when it ended without one.
    """
    if row.phase not in FINAL:
        raise NotFinished(
            f"The job '{row.name}' is {row.phase.lower()}.", next_step="Wait until it has ended, then ask again."
        )
    if not row.result_key:
        raise NotFound(f"The job '{row.name}' left no result.", next_step="Read its status and its log.")
    return row.result_key, row.result_sha256
