"""What to do next for a workspace: one pure function over wish, record and fact."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torpor_hub.domain.workspaces import Desired, Fact, Phase, SleepStep


class StartStep(StrEnum):
    """The steps of a start or wake, in order."""

    PREPARE = "PREPARE"
    HUB = "HUB"
    LAUNCH = "LAUNCH"
    DONE = "DONE"
    FAIL = "FAIL"


class Next(StrEnum):
    """What the controller does now."""

    NOTHING = "nothing"
    PREPARE = "prepare"
    CALL_HUB = "call-hub"
    START_OVERDUE = "start-overdue"
    GRANT_EXPIRED = "grant-expired"
    LAUNCHED = "launched"
    RUNNING = "running"
    DIED_AT_START = "died-at-start"
    GONE = "gone"
    SILENT = "silent"
    ANSWERS_AGAIN = "answers-again"
    BEGIN_SLEEP = "begin-sleep"
    DRAIN = "drain"
    KEEPS_NODE = "keeps-node"
    REMOVE = "remove"
    SLEEP_OVERDUE = "sleep-overdue"
    BACK_TO_WORK = "back-to-work"
    END = "end"
    ADOPT = "adopt"
    DELETE = "delete"


@dataclass(frozen=True)
class Work:
    """The operation under way, as far as decisions need it. ``overdue``: past its deadline.

    ``thaws``: what was saved is thawed by now, or so soon that its removal could come too late.
    """

    kind: str
    step: str
    overdue: bool = False
    claimed: bool = False
    thaws: bool = False


@dataclass(frozen=True)
class View:
    """Wish, record and fact of one workspace. ``fact`` None: the place does not have it.

    ``told_of_drain``: its owner was told that its node is being emptied, and that it cannot be saved.
    """

    phase: Phase
    desired: Desired
    grant_id: str | None
    work: Work | None
    fact: Fact | None
    grant_expired: bool = False
    told_of_drain: bool = False


STARTS = (Phase.STARTING, Phase.WAKING)
AT_REST = (Phase.NEW, Phase.ASLEEP, Phase.STOPPED, Phase.FAILED)


def decide(view: View) -> Next:
    """Return the next step for a workspace. Unknown facts lead to no step that could lose something."""
    if view.fact is not None and view.fact.alive is None:
        return Next.NOTHING
    alive = view.fact is not None and view.fact.alive is True
    if view.desired is Desired.DELETED:
        return Next.DELETE
    if view.phase in STARTS:
        return _starting(view, alive)
    if view.phase is Phase.SLEEPING:
        return _sleeping(view, alive)
    if view.phase in (Phase.RUNNING, Phase.UNREACHABLE):
        return _running(view, alive)
    if view.phase in AT_REST and alive:
        return Next.ADOPT
    return Next.NOTHING


def _starting(view: View, alive: bool) -> Next:
    work, fact = view.work, view.fact
    if work is None:
        return Next.START_OVERDUE
    ours = fact is not None and fact.grant_id == view.grant_id
    if alive and fact is not None:
        return _coming_up(fact, ours=ours, overdue=work.overdue)
    if ours and work.step == StartStep.LAUNCH:
        return Next.DIED_AT_START
    if work.overdue:
        return Next.START_OVERDUE
    if work.step == StartStep.PREPARE:
        return Next.PREPARE
    if view.grant_expired:
        return Next.GRANT_EXPIRED
    # Also after the grant: a hub that was ended before it launched anything has forgotten the start.
    return Next.CALL_HUB


def _coming_up(fact: Fact, *, ours: bool, overdue: bool) -> Next:
    if fact.answering:
        return Next.RUNNING
    if ours and not fact.reachable:
        return Next.SILENT
    if ours and fact.verdict is not None:
        return Next.DIED_AT_START
    return Next.START_OVERDUE if overdue else Next.LAUNCHED


def _running(view: View, alive: bool) -> Next:
    if not alive:
        return Next.GONE
    if view.desired is Desired.STOPPED:
        return Next.END
    if view.desired is Desired.ASLEEP and view.work is None:
        return Next.BEGIN_SLEEP
    answers = view.fact is not None and view.fact.answering
    if view.phase is Phase.RUNNING and answers is False:
        return Next.SILENT
    if view.phase is Phase.UNREACHABLE and answers:
        return Next.ANSWERS_AGAIN
    return _draining(view)


def _draining(view: View) -> Next:
    fact = view.fact
    if fact is None or not fact.reachable or view.work is not None or fact.draining is view.told_of_drain:
        return Next.NOTHING
    return Next.DRAIN if fact.draining else Next.KEEPS_NODE


def _sleeping(view: View, alive: bool) -> Next:
    work = view.work
    if work is None:
        return Next.BACK_TO_WORK
    if work.step == SleepStep.REMOVE:
        # One that was thawed after its capture has changed since: it must not be removed for what was saved.
        thawed = alive and view.fact is not None and (view.fact.frozen is False or work.thaws)
        return Next.BACK_TO_WORK if thawed else Next.REMOVE
    if work.step in (SleepStep.FAIL, SleepStep.CANCEL) and not work.claimed and alive:
        return Next.BACK_TO_WORK
    if not work.claimed and not alive:
        return Next.GONE
    if not work.claimed and view.fact is not None and not view.fact.reachable:
        return Next.SILENT
    if work.overdue:
        return Next.SLEEP_OVERDUE
    return Next.NOTHING
