"""What the controller records about workspaces that run, end, or are found."""

from __future__ import annotations

from sqlalchemy import delete, select

from torpor_hub.domain.diagnose import Cause, diagnose
from torpor_hub.domain.workspaces import Desired, Fact, Phase, SleepStep
from torpor_hub.services import ledger, operations, starts
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Grant, Job, Workspace

KEPT_LOG_CHARS = 40_000
SILENT = Cause(
    "SILENT", "The server runs, but does not answer.", "Wait a moment; if it stays, put it to sleep and wake it."
)


def gone(
    tx: UnitOfWork,
    row: Workspace,
    *,
    exit_code: int | None,
    log: str,
    handle: str,
    kept: bool,
    verdict: Cause | None = None,
) -> None:
    """Record that a workspace ended without being asked, and why; ``kept``: its environment is still there.

    Where it is not, what was not saved is lost, and the page says since when. ``verdict`` is the place's own, which knows more
    than exit code and log.
    """
    if row.handle != handle:
        return
    cause = verdict or diagnose(exit_code, log, had_answered=True, kept=kept)
    operation = operations.current(tx, row)
    if operation is not None and operation.kind == "sleep":
        operations.end(tx, operation, "FAIL", code=cause.reason, error=cause.message)
    next_step = cause.next_step
    if not kept:
        row.unsaved, row.lost = False, _lost(tx, row)
        next_step = "Start it again, and install anew what is missing."
    rest(tx, row, Phase.STOPPED, reason=cause.reason, message=cause.message, next_step=next_step, log=log)


def _lost(tx: UnitOfWork, row: Workspace) -> str:
    """Return what went with a container, and since when changes are missing; true before the next start and after it."""
    saved = tx.session.get(Checkpoint, row.checkpoint_id) if row.checkpoint_id else None
    if saved is None:
        return "Its environment was never saved: what was installed in it is lost; files in the home are not."
    return f"What was changed in its environment since {saved.created_at:%Y-%m-%d %H:%M} UTC is lost; files in the home are not."


def rest(
    tx: UnitOfWork, row: Workspace, phase: Phase, *, reason: str, message: str, next_step: str, log: str = ""
) -> None:
    """Bring a workspace whose process is gone to rest: nothing is held any more."""
    ledger.release(tx, row.id)
    row.operation_id, row.grant_id, row.handle, row.desired = None, None, "", Desired.STOPPED
    row.last_log = log[-KEPT_LOG_CHARS:]
    operations.enter(tx, row, phase, reason=reason, message=message, next_step=next_step)


def keep_log(_: UnitOfWork, row: Workspace, log: str) -> None:
    """Store the last lines of a server that failed; where there are none any more, those that are stored stay."""
    row.last_log = log[-KEPT_LOG_CHARS:] or row.last_log


def discarded(tx: UnitOfWork, row: Workspace) -> None:
    """Record that a workspace was ended without saving."""
    row.unsaved, row.discard = False, False
    kept = "the last checkpoint" if row.checkpoint_id else "the profile's own environment"
    rest(
        tx,
        row,
        Phase.STOPPED,
        reason="DISCARDED",
        message=f"Ended without saving. The next start has {kept}.",
        next_step="Start it when you need it.",
    )


def silent(tx: UnitOfWork, row: Workspace, cause: Cause = SILENT) -> None:
    """Record that a server which was not seen to end does not answer; nothing is ended for that.

    A start or a sleep of it is given up: both would wait in vain.
    """
    operation = operations.current(tx, row)
    if operation is not None and operation.kind != "checkpoint":
        operations.end(tx, operation, SleepStep.FAIL, code=cause.reason, error=cause.message, next_step=cause.next_step)
        row.operation_id, row.desired = None, Desired.RUNNING
    operations.enter(tx, row, Phase.UNREACHABLE, reason=cause.reason, message=cause.message, next_step=cause.next_step)


def answers_again(tx: UnitOfWork, row: Workspace, fact: Fact) -> None:
    """Record that the server answers again."""
    row.node, row.container = fact.node, fact.container
    operations.enter(tx, row, Phase.RUNNING, message="The server answers again.")


def adopt(tx: UnitOfWork, row: Workspace, fact: Fact) -> None:
    """Charge and record a live server that the record has at rest: nothing that runs is ended or forgotten."""
    ledger.charge(tx, starts.claim_of(tx, row))
    row.handle, row.unsaved, row.desired, row.lost = fact.handle, True, Desired.RUNNING, ""
    row.node, row.container = fact.node, fact.container
    row.grant_id = fact.grant_id if tx.session.get(Grant, fact.grant_id) is not None else None
    operations.enter(
        tx, row, Phase.RUNNING, reason="ADOPTED", message="The server was found running and is looked after again."
    )


def spare_images(tx: UnitOfWork, workspace_id: str) -> list[tuple[str, str]]:
    """Return repository and digest of a workspace's checkpoints that no unfinished job needs."""
    needed = select(Job.environment_digest).where(Job.ended_at.is_(None), Job.environment_digest.is_not(None))
    rows = tx.session.scalars(
        select(Checkpoint).where(Checkpoint.workspace_id == workspace_id, Checkpoint.digest.not_in(needed))
    )
    return sorted({(row.repository, row.digest) for row in rows})


def forget_images(tx: UnitOfWork, workspace_id: str) -> None:
    """Remove the records of the checkpoints whose images are gone."""
    gone = [digest for _, digest in spare_images(tx, workspace_id)]
    tx.session.execute(delete(Checkpoint).where(Checkpoint.workspace_id == workspace_id, Checkpoint.digest.in_(gone)))


def notice(tx: UnitOfWork, row: Workspace, checkpoint_id: str, *, fell_back: bool) -> str:
    """Return what the first page after a start says: what was lost, what was restored, what was not, and why it slept."""
    checkpoint = tx.session.get(Checkpoint, checkpoint_id) if checkpoint_id else None
    if checkpoint is None:
        return row.lost
    taken = checkpoint.created_at.strftime("%Y-%m-%d %H:%M UTC")
    why = f" ({row.asleep_because})" if row.asleep_because and row.phase == Phase.WAKING else ""
    lost = "kernels and other processes, and what they held in memory, were not"
    fallen = "The newest checkpoint could not be read, so an older one was used. " if fell_back else ""
    before = f"{row.lost} " if row.lost else ""
    return f"{before}{fallen}Packages and files of the environment were restored as of {taken}{why}; {lost}."
