"""What the controller does next, as a table; and that unknown never leads to a loss."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.lifecycle import Next, View, Work, decide
from torpor_hub.domain.workspaces import Desired, Fact, Phase

HARMLESS = {Next.NOTHING}


def fact(**values: Any) -> Fact:
    known = {"workspace_id": "ws", "grant_id": "gr", "alive": True, "answering": True, "handle": "1"}
    return Fact(**{**known, **values})


def view(phase: Phase, **values: Any) -> View:
    known: dict[str, Any] = {"desired": Desired.RUNNING, "grant_id": "gr", "work": None, "fact": None}
    return View(phase, **{**known, **values})


DEAD = fact(alive=False, answering=None)
LOST = fact(answering=False, reachable=False, verdict=Cause("NODE_LOST", "", ""))
DOOMED = fact(answering=False, verdict=Cause("IMAGE_MISSING", "", ""))
CASES = {
    "a start begins with its environment": (view(Phase.STARTING, work=Work("start", "PREPARE")), Next.PREPARE),
    "a prepared start is the hub's": (view(Phase.STARTING, work=Work("start", "HUB")), Next.CALL_HUB),
    "the hub is reminded of a grant": (view(Phase.WAKING, work=Work("wake", "LAUNCH")), Next.CALL_HUB),
    "a grant that nobody used is taken back": (
        view(Phase.WAKING, work=Work("wake", "LAUNCH"), grant_expired=True),
        Next.GRANT_EXPIRED,
    ),
    "a server that answers runs": (view(Phase.STARTING, work=Work("start", "LAUNCH"), fact=fact()), Next.RUNNING),
    "a server that died at its start failed": (
        view(Phase.STARTING, work=Work("start", "LAUNCH"), fact=DEAD),
        Next.DIED_AT_START,
    ),
    "the end of an earlier start is not this one's": (
        view(Phase.STARTING, work=Work("start", "PREPARE"), fact=fact(alive=False, grant_id="older")),
        Next.PREPARE,
    ),
    "a start past its deadline ends": (
        view(Phase.STARTING, work=Work("start", "HUB", overdue=True)),
        Next.START_OVERDUE,
    ),
    "a running server that is gone is recorded": (view(Phase.RUNNING), Next.GONE),
    "a wish to sleep waits for a checkpoint under way": (
        view(Phase.RUNNING, desired=Desired.ASLEEP, fact=fact(), work=Work("checkpoint", "UPLOAD")),
        Next.NOTHING,
    ),
    "then it begins": (view(Phase.RUNNING, desired=Desired.ASLEEP, fact=fact()), Next.BEGIN_SLEEP),
    "a confirmed end is carried out": (view(Phase.RUNNING, desired=Desired.STOPPED, fact=fact()), Next.END),
    "a silent server is only told of": (view(Phase.RUNNING, fact=fact(answering=False)), Next.SILENT),
    "a saved and frozen one is removed": (
        view(Phase.SLEEPING, work=Work("sleep", "REMOVE"), fact=fact(frozen=True, answering=None)),
        Next.REMOVE,
    ),
    "a saved one that was thawed since is not": (
        view(Phase.SLEEPING, work=Work("sleep", "REMOVE"), fact=fact()),
        Next.BACK_TO_WORK,
    ),
    "a saved one that is gone already is cleared away": (
        view(Phase.SLEEPING, work=Work("sleep", "REMOVE"), fact=DEAD),
        Next.REMOVE,
    ),
    "a failed sleep leads back to work": (
        view(Phase.SLEEPING, work=Work("sleep", "FAIL"), fact=fact()),
        Next.BACK_TO_WORK,
    ),
    "a server that died while it was saved is recorded": (
        view(Phase.SLEEPING, work=Work("sleep", "FAIL"), fact=DEAD),
        Next.GONE,
    ),
    "a live server at rest is taken up": (view(Phase.STOPPED, fact=fact()), Next.ADOPT),
    "one that can never come up has failed": (
        view(Phase.STARTING, work=Work("start", "LAUNCH"), fact=DOOMED),
        Next.DIED_AT_START,
    ),
    "what came up before is not asked why it would not": (
        view(Phase.WAKING, work=Work("wake", "LAUNCH"), fact=fact(grant_id="older", verdict=DOOMED.verdict)),
        Next.RUNNING,
    ),
    "a start on a node that is off waits for nothing": (
        view(Phase.STARTING, work=Work("start", "LAUNCH", overdue=True), fact=LOST),
        Next.SILENT,
    ),
    "a sleep on a node that is off is given up with its agent": (
        view(Phase.SLEEPING, work=Work("sleep", "UPLOAD"), fact=LOST),
        Next.SILENT,
    ),
    "but not while its agent still speaks": (
        view(Phase.SLEEPING, work=Work("sleep", "UPLOAD", claimed=True), fact=LOST),
        Next.NOTHING,
    ),
    "a saved one on a node that is off is still removed": (
        view(Phase.SLEEPING, work=Work("sleep", "REMOVE"), fact=fact(reachable=False, frozen=None)),
        Next.REMOVE,
    ),
    "a node that is back has its workspaces back": (view(Phase.UNREACHABLE, fact=fact()), Next.ANSWERS_AGAIN),
    "a node that is being emptied has its workspaces put to sleep": (
        view(Phase.RUNNING, fact=fact(draining=True)),
        Next.DRAIN,
    ),
    "one that does not answer there too": (
        view(Phase.UNREACHABLE, fact=fact(draining=True, answering=False)),
        Next.DRAIN,
    ),
    "but not while something is under way": (
        view(Phase.RUNNING, fact=fact(draining=True), work=Work("checkpoint", "UPLOAD")),
        Next.NOTHING,
    ),
    "nor on a node that is off": (
        view(Phase.UNREACHABLE, fact=fact(draining=True, answering=False, reachable=False)),
        Next.NOTHING,
    ),
    "who cannot be saved is told of it once": (
        view(Phase.RUNNING, fact=fact(draining=True), told_of_drain=True),
        Next.NOTHING,
    ),
    "and told again when the node stays": (view(Phase.RUNNING, fact=fact(), told_of_drain=True), Next.KEEPS_NODE),
    "nothing happens to what rests": (view(Phase.ASLEEP, desired=Desired.ASLEEP), Next.NOTHING),
}


@pytest.mark.parametrize(("seen", "expected"), CASES.values(), ids=CASES.keys())
def test_the_next_step_is(seen: View, expected: Next) -> None:
    assert decide(seen) is expected


STEPS = st.sampled_from(["PREPARE", "HUB", "LAUNCH", "QUIESCE", "UPLOAD", "REMOVE", "FAIL", "CANCEL", "DONE"])
WORKS = st.none() | st.builds(Work, st.sampled_from(["start", "sleep"]), STEPS, st.booleans(), st.booleans())


@given(st.sampled_from(Phase), st.sampled_from(Desired), WORKS, st.booleans())
def test_where_a_fact_is_unknown_nothing_is_done(
    phase: Phase, desired: Desired, work: Work | None, expired: bool
) -> None:
    unknown = fact(alive=None, answering=None)
    assert decide(View(phase, desired, "gr", work, unknown, expired)) in HARMLESS


@given(st.sampled_from(Phase), WORKS, st.booleans())
def test_what_cannot_be_reached_is_never_taken_for_gone(phase: Phase, work: Work | None, expired: bool) -> None:
    step = decide(View(phase, Desired.RUNNING, "gr", work, LOST, expired))
    assert step not in (Next.GONE, Next.DIED_AT_START, Next.GRANT_EXPIRED, Next.END, Next.DELETE)


@given(st.sampled_from(Phase), st.sampled_from([Desired.RUNNING, Desired.ASLEEP]), WORKS)
def test_nothing_that_runs_unfrozen_is_removed_for_a_sleep(phase: Phase, desired: Desired, work: Work | None) -> None:
    assert decide(View(phase, desired, "gr", work, fact())) not in (Next.REMOVE, Next.END, Next.DELETE)
