"""What a job is, the phases that it passes, and every rule about its attempts: pure functions over what is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Where a job is."""

    SUBMITTED = "SUBMITTED"
    QUEUED = "QUEUED"
    ADMITTED = "ADMITTED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PREEMPTED = "PREEMPTED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Desired(StrEnum):
    """What the owner wishes."""

    RUNNING = "running"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """Where an attempt is: ``ENDED`` says that its outcome is known, ``CLOSED`` that its processes are gone and what it held is free."""

    ADMITTED = "admitted"
    STARTED = "started"
    RUNNING = "running"
    ENDED = "ended"
    CLOSED = "closed"


FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})
HOLDING = frozenset({Phase.ADMITTED, Phase.STARTING, Phase.RUNNING, Phase.CANCELLING})
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.SUBMITTED: frozenset({Phase.QUEUED, Phase.FAILED, Phase.CANCELLED}),
    Phase.QUEUED: frozenset({Phase.ADMITTED, Phase.FAILED, Phase.CANCELLED}),
    Phase.ADMITTED: frozenset({Phase.STARTING, Phase.RUNNING, Phase.CANCELLING, Phase.QUEUED, *FINAL}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.PREEMPTED, Phase.CANCELLING, Phase.QUEUED, *FINAL}),
    Phase.RUNNING: frozenset({Phase.PREEMPTED, Phase.CANCELLING, Phase.QUEUED, *FINAL}),
    Phase.PREEMPTED: frozenset({Phase.QUEUED, Phase.CANCELLED}),
    Phase.CANCELLING: FINAL,
    Phase.SUCCEEDED: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.CANCELLED: frozenset(),
}
LOST = "lost"
STOPPED = "stopped"
NEXT_STEPS: Mapping[str, str] = {
    "EXIT_CODE": "Read its log.",
    "EXCEPTION": "Read the traceback in its log, correct the code and submit it again.",
    "TIMEOUT": "Submit it again with a longer limit, or with more cores.",
    "KILLED": "Read its log; it may have needed more memory than the machine had.",
    "OUT_OF_MEMORY": "Submit it again with more memory, or let it load less at once.",
    "IMAGE_MISSING": "Submit it again from the running workspace, which saves its environment anew, or with `profile`.",
    "NO_ROOM": "Submit it again with less, or once others have ended.",
    "HOME_ELSEWHERE": "Put your workspace to sleep or end your other jobs, then submit it again.",
    "QUOTA": "Submit it again once workspaces sleep and jobs have ended, or ask a tenant admin for more.",
}
MISSING_LISTS = 3
ENDING_S = 20.0


def may_become(phase: Phase, later: Phase) -> bool:
    """Return whether a job may pass from one phase to the other."""
    return later in TRANSITIONS[phase]


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    ``reason`` is the wire's, ``lost``, ``stopped`` where the platform itself ended it, or what a runner found: ``image_missing``.
    """

    exit_code: int | None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Verdict:
    """What an ending means for the job."""

    phase: Phase
    reason: str
    message: str
    next_step: str = ""


def judge(ending: Ending, *, attempt: int, cancelled: bool, retries_left: int) -> Verdict:
    """Return what the end of an attempt means: only what was lost with its process is run again, within the budget."""
    if ending.reason == "" and ending.exit_code == 0:
        return Verdict(Phase.SUCCEEDED, "", "")
    if cancelled or ending.reason == "cancelled":
        return Verdict(Phase.CANCELLED, "CANCELLED", "The job was cancelled.")
    if ending.reason in (LOST, STOPPED):
        return _again(ending, attempt, retries_left)
    message = ending.message or f"The job ended with exit code {ending.exit_code}."
    reason = ending.reason.upper() or "EXIT_CODE"
    return Verdict(Phase.FAILED, reason, message, NEXT_STEPS.get(reason, "Tell a platform admin."))


def _again(ending: Ending, attempt: int, retries_left: int) -> Verdict:
    stopped = ending.reason == STOPPED
    reason = "PLATFORM_STOPPED" if stopped else "LOST"
    told = "The platform was stopped while the job ran." if stopped else ending.message or "The attempt was lost."
    if retries_left > 0:
        return Verdict(Phase.QUEUED, reason, f"{told} Attempt {attempt + 1} is queued.")
    return Verdict(
        Phase.FAILED, reason, f"{told} No repeat was left.", "Submit it again; `retries` allows more repeats."
    )


class Next(StrEnum):
    """What the controller does about an attempt now."""

    NOTHING = "nothing"
    START = "start"
    END = "end"
    CLOSE = "close"


@dataclass(frozen=True)
class View:
    """An attempt as one turn of the loop sees it.

    ``known`` tells whether the runner listed it, ``alive`` what it says of it; ``missing`` counts the lists in a row without it.
    """

    state: AttemptState
    cancelled: bool
    known: bool = False
    alive: bool | None = None
    missing: int = 0
    ended_for_s: float = 0.0


def decide(view: View) -> Next:
    """Return the next step of an attempt: unknown is never taken for ended."""
    if view.known:
        return _decide_known(view)
    if view.state is AttemptState.ADMITTED:
        # Ending sweeps by name, so a start that nobody recorded leaves nothing behind either.
        return Next.CLOSE if view.cancelled else Next.START
    return Next.CLOSE if view.missing >= MISSING_LISTS else Next.NOTHING


def _decide_known(view: View) -> Next:
    if view.alive is None:
        return Next.NOTHING
    if not view.alive:
        return Next.CLOSE
    if view.state is AttemptState.ADMITTED and not view.cancelled:
        return Next.START
    overdue = view.state is AttemptState.ENDED and view.ended_for_s > ENDING_S
    unwanted = view.cancelled and view.state is not AttemptState.ENDED
    return Next.END if overdue or unwanted else Next.NOTHING
