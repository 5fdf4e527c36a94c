"""Sleeps: from the wish to a workspace whose environment is an image and whose resources are free."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from torpor_hub.domain import draining, saving
from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.workspaces import Desired, EnvironmentChoice, Phase, SleepStep
from torpor_hub.errors import Conflict
from torpor_hub.services import ledger, operations, starts
from torpor_hub.services.access import refusal
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Operation, Workspace

REMOVAL = timedelta(seconds=30)
AWAKE = (Phase.RUNNING, Phase.UNREACHABLE)
ASKED = Cause("", "Going to sleep: the environment is being saved.", "")
AT_REST = Cause("", "Asleep: the environment is saved, nothing is held.", "")
RESTS = {draining.REASON: draining.ASLEEP}


def wish(tx: UnitOfWork, settings: Settings, row: Workspace) -> None:
    """Record the wish to sleep and begin at once, unless another operation has to end first.

    Raises:
        Conflict: when the workspace does not run, or environments are not saved here.
    """
    if row.phase in (Phase.ASLEEP, Phase.SLEEPING):
        row.desired = Desired.ASLEEP
        return
    if not settings.save_environments:
        raise refusal(saving.NO_SLEEP)
    if row.phase not in AWAKE:
        raise Conflict(
            f"'{row.name}' is {row.phase.lower()} and cannot go to sleep.",
            next_step="Start it first, if you want to save it.",
        )
    row.desired, row.asleep_because = Desired.ASLEEP, f"{tx.actor} put it to sleep"
    operations.changed(tx, row, "sleep-asked")
    if row.operation_id is None:
        begin(tx, settings, row)


def drain(tx: UnitOfWork, settings: Settings, row: Workspace) -> None:
    """Begin the sleep of a workspace whose node an admin empties; where it cannot be saved, say what its end will cost.

    One that has come to something else meanwhile is left to that.
    """
    if row.phase not in AWAKE or row.operation_id is not None or row.desired != Desired.RUNNING:
        return
    if settings.save_environments:
        row.desired, row.asleep_because = Desired.ASLEEP, draining.BECAUSE
        begin(tx, settings, row, draining.GOES_TO_SLEEP)
    else:
        _tell(tx, row, Phase(row.phase), draining.CANNOT_SLEEP)


def keeps_node(tx: UnitOfWork, row: Workspace) -> None:
    """Take back what was said of a node that is not being emptied any more."""
    if row.reason == draining.REASON and row.phase in AWAKE:
        operations.enter(tx, row, Phase(row.phase), message="Its node is not being emptied any more.")


def begin(tx: UnitOfWork, settings: Settings, row: Workspace, cause: Cause = ASKED) -> Operation:
    """Begin the sleep, for a cause: an operation that the agent claims."""
    operation = operations.begin(
        tx,
        row,
        "sleep",
        SleepStep.QUIESCE,
        deadline_s=settings.limits.sleep_s,
        handle=row.handle,
        thaw_after_s=int(settings.limits.thaw_after_s),
        payload={"expected": row.checkpoint_id, "cause": cause.reason},
    )
    row.operation_id = operation.id
    _tell(tx, row, Phase.SLEEPING, cause)
    return operation


def cancel(tx: UnitOfWork, row: Workspace) -> None:
    """The user came back: give the sleep up, or where it is past that, wake right after it."""
    operation = operations.current(tx, row)
    row.desired = Desired.RUNNING
    if operation is None or operation.step == SleepStep.REMOVE:
        operations.changed(tx, row, "wake-asked")
        return
    operation.cancel = True
    if not operation.claimed_by:
        operations.end(tx, operation, SleepStep.CANCEL, code="CANCELLED", error="The sleep was cancelled.")
    operations.changed(tx, row, "sleep-cancelled")


def saved(tx: UnitOfWork, row: Workspace, operation: Operation, checkpoint: Checkpoint) -> bool:
    """Move the workspace's pointer to a verified checkpoint by compare-and-swap; return whether it moved.

    A cancel that came before wins: the workspace keeps running, and the checkpoint stays as a spare.
    """
    if operation.cancel:
        operations.end(tx, operation, SleepStep.CANCEL, code="CANCELLED", error="The sleep was cancelled.")
        operations.changed(tx, row, "sleep-cancelled")
        return False
    if row.checkpoint_id != operation.payload.get("expected"):
        operations.end(
            tx, operation, SleepStep.FAIL, code="CONFLICT", error="Another checkpoint was made current meanwhile."
        )
        operations.changed(tx, row, "sleep-failed")
        return False
    if row.checkpoint_id != checkpoint.id:
        row.previous_checkpoint_id, row.checkpoint_id = row.checkpoint_id, checkpoint.id
    operation.step, operation.result_digest, operation.checkpoint_id = (
        SleepStep.REMOVE,
        checkpoint.digest,
        checkpoint.id,
    )
    operations.changed(tx, row, "saved", digest=checkpoint.digest)
    return True


def removing(tx: UnitOfWork, row: Workspace) -> bool:
    """Record that the removal begins, so that nobody thaws any more; return False where it would come too late."""
    operation = operations.current(tx, row)
    if operation is None or operation.step != SleepStep.REMOVE:
        return False
    if operation.frozen_until is not None and operation.frozen_until < tx.now + REMOVAL:
        return False
    operation.removing = True
    return True


def removed(tx: UnitOfWork, settings: Settings, row: Workspace) -> None:
    """Record that the process is gone and its environment rests in the checkpoint; what it held is free."""
    operation = operations.current(tx, row)
    if operation is not None:
        operations.end(tx, operation, SleepStep.DONE)
    ledger.release(tx, row.id)
    row.operation_id, row.grant_id, row.handle, row.unsaved = None, None, "", False
    _answer_waiting(tx, row)
    _tell(
        tx, row, Phase.ASLEEP, RESTS.get(operation.payload.get("cause", "") if operation is not None else "", AT_REST)
    )
    if row.desired == Desired.RUNNING:
        starts.begin(tx, settings, row, EnvironmentChoice.CURRENT)


def _tell(tx: UnitOfWork, row: Workspace, phase: Phase, cause: Cause) -> None:
    operations.enter(tx, row, phase, reason=cause.reason, message=cause.message, next_step=cause.next_step)


def _answer_waiting(tx: UnitOfWork, row: Workspace) -> None:
    """Give what the sleep saved to checkpoints for jobs that waited for its end: nothing else will ever be saved of it."""
    saved = tx.session.get(Checkpoint, row.checkpoint_id) if row.checkpoint_id else None
    if saved is None:
        return
    waiting = select(Operation).where(
        Operation.workspace_id == row.id, Operation.kind == "checkpoint", Operation.ended_at.is_(None)
    )
    for operation in tx.session.scalars(waiting):
        operation.result_digest, operation.checkpoint_id = saved.digest, saved.id
        operations.end(tx, operation, SleepStep.DONE)
        operations.changed(tx, row, "checkpoint-done", operation=operation.id)


def back_to_work(tx: UnitOfWork, row: Workspace) -> None:
    """Record that the workspace runs on after a sleep that was cancelled or failed, and why."""
    operation = operations.current(tx, row)
    cancelled = operation is not None and operation.step == SleepStep.CANCEL
    if operation is not None:
        thawed = "It was thawed before it could be removed; what was saved is kept as well."
        operations.end(tx, operation, SleepStep.FAIL, code="THAWED", error=thawed)
    row.operation_id, row.desired = None, Desired.RUNNING
    if cancelled or operation is None:
        operations.enter(tx, row, Phase.RUNNING, message="The sleep was cancelled; everything runs on.")
        return
    operations.enter(
        tx,
        row,
        Phase.RUNNING,
        reason=operation.error_code or "SLEEP_FAILED",
        message=f"The sleep failed, so everything runs on: {operation.error}",
        next_step=operation.next_step or "Try again; if it stays, tell a platform admin.",
    )


def overdue(tx: UnitOfWork, row: Workspace) -> None:
    """Give up a sleep that is past its deadline; the agent thaws at its next heartbeat, the reaper by itself."""
    operation = operations.current(tx, row)
    if operation is not None:
        operations.end(
            tx,
            operation,
            SleepStep.FAIL,
            code="OVERDUE",
            error="Saving took longer than allowed.",
            next_step="Remove what is large and not needed from the environment, then try again.",
        )
        operation.claimed_by = ""
        operations.changed(tx, row, "sleep-overdue")
