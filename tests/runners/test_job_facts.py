"""What Jobs and pods say of attempts, without a cluster: objects as its API server has them, and facts."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.podspecs.examples import JOB, SHAPE
from torpor_hub.podspecs.job import job_object
from torpor_hub.runners.base import JobFact
from torpor_hub.runners.job_facts import Seen, fact_of, hinders, may_start, newest

MADE = datetime.fromisoformat("2026-09-21T14:13:20Z")
PATIENCE_S = 60.0


def job(*conditions: tuple[str, str], **status: Any) -> dict[str, Any]:
    made = job_object(JOB, SHAPE)
    made["metadata"] |= {"uid": "uid-job", "creationTimestamp": MADE.isoformat()}
    found = [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions]
    return {**made, "status": {**status, "conditions": found}}


def pod(phase: str = "Pending", *, age_s: float = 0, going: bool = False, **status: Any) -> dict[str, Any]:
    made = job_object(JOB, SHAPE)["spec"]["template"]
    times = {"creationTimestamp": (MADE + timedelta(seconds=age_s)).isoformat()}
    if going:
        times["deletionTimestamp"] = MADE.isoformat()
    metadata = {**made["metadata"], **times, "uid": f"uid-{age_s}", "name": "job-1-a1-0-abcde"}
    return {"metadata": metadata, "spec": {**made["spec"], "nodeName": "node-1"}, "status": {"phase": phase, **status}}


def state(**content: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "job", "state": content}]}


def ended(**content: Any) -> dict[str, Any]:
    return pod("Failed", **state(terminated=content))


def words(**said: Any) -> str:
    whole = {"exit_code": 0, "reason": "", "message": "", "exception": None, "delivered": True, "result": False}
    return json.dumps({**whole, **said})


def said(thing: dict[str, Any] | None, *, later_s: float = 1, of: dict[str, Any] | None = None, **more: Any) -> JobFact:
    seen = Seen(of or job(active=1), thing, **more)
    return fact_of(seen, now_s=MADE.timestamp() + later_s, patience_s=PATIENCE_S)


def test_an_attempt_is_named_by_its_job_and_lives_while_its_pod_does() -> None:
    assert said(pod("Running")) == JobFact("job-1", 1, "uid-job", True)
    assert said(pod("Running", going=True)).alive is True
    assert said(None).alive is True


def test_of_a_pod_whose_node_is_off_nobody_knows_unless_it_had_ended() -> None:
    assert said(pod("Running"), node_answers=False).alive is None
    assert said(pod("Running", going=True), node_answers=False).alive is None
    assert said(ended(exitCode=0, message=words()), node_answers=False).alive is False


@pytest.mark.parametrize(
    ("told", "reason", "exit_code"),
    [
        (words(exit_code=4), "", 4),
        (words(exit_code=1, reason="exception", message="ValueError: no"), "exception", 1),
        (words(exit_code=137, reason="out_of_memory"), "out_of_memory", 137),
        (words(exit_code=143, reason="lost", delivered=False), "lost", 143),
        (words(exit_code=6, delivered=False), "", 6),
        (words(result=True), "", 0),
        (words(result=True, delivered=False), "lost", None),
    ],
)
def test_what_the_wrapper_said_last_is_how_it_ended(told: str, reason: str, exit_code: int | None) -> None:
    fact = said(ended(exitCode=1, message=told))
    assert (fact.alive, fact.reason, fact.exit_code) == (False, reason, exit_code)


@pytest.mark.parametrize(
    ("thing", "reason", "sentence"),
    [
        (ended(exitCode=137, reason="OOMKilled"), "out_of_memory", "more than its 1 GiB of memory"),
        (ended(exitCode=128, reason="StartError", message="no such file"), "not_created", "no such file"),
        (ended(exitCode=1, message="Traceback: no module"), "lost", "with exit code 1"),
        (ended(exitCode=137, message='{"exit_code": 3}'), "lost", "with exit code 137"),
        (pod("Failed", reason="Evicted", message="low on disk"), "lost", "The node removed it: low on disk."),
        (pod("Failed", message="Pod was rejected"), "lost", "Pod was rejected"),
    ],
)
def test_an_end_without_a_word_is_lost_unless_the_cluster_knows_why(thing: Any, reason: str, sentence: str) -> None:
    fact = said(thing)
    assert (fact.alive, fact.reason) == (False, reason)
    assert sentence in fact.message


def test_a_pod_that_was_removed_is_lost_once_its_job_knows_it() -> None:
    assert said(None, of=job(active=1)).alive is True
    fact = said(None, of=job(("FailureTarget", "x"), ("Failed", "BackoffLimitExceeded"), failed=1))
    assert (fact.alive, fact.reason) == (False, "lost")
    assert "removed from outside" in fact.message


def test_a_job_that_the_cluster_ended_for_its_age_ran_too_long() -> None:
    assert said(None, of=job(("Failed", "DeadlineExceeded"))).reason == "timeout"


MISSING = state(waiting={"reason": "ErrImagePull", "message": "r/x@sha256:0: not found"})
AWAY = state(waiting={"reason": "ImagePullBackOff", "message": "dial tcp: connection refused"})


def test_an_image_that_is_missing_is_no_use_waiting_for() -> None:
    fact = said(pod(**MISSING))
    assert (fact.alive, fact.reason) == (False, "image_missing")
    assert "not in the registry" in fact.message


def test_what_time_may_mend_is_said_at_once_and_ends_the_attempt_only_later() -> None:
    waits, late = said(pod(**AWAY)), said(pod(**AWAY), later_s=PATIENCE_S + 1)
    assert (waits.alive, waits.reason) == (True, "")
    assert waits.message == late.message != ""
    assert (late.alive, late.reason) == (False, "image_unreachable")


def test_a_pod_that_is_refused_says_by_what() -> None:
    refused = 'pods "x" is forbidden: exceeded quota: torpor, requested: requests.cpu=1, used: requests.cpu=3, limited: requests.cpu=3'
    events = ({"reason": "FailedCreate", "message": refused},)
    waits = said(None, of=job(), events=events)
    assert waits.alive is True
    assert "share of the cluster is used up" in waits.message
    assert said(None, of=job(), events=events, later_s=PATIENCE_S + 1).reason == "quota"


def test_a_job_whose_pod_is_not_even_made_is_given_up_after_a_while() -> None:
    assert said(None, of=job()).message == ""
    assert said(None, of=job(), later_s=PATIENCE_S + 1).reason == "not_created"


def test_events_are_asked_for_only_where_something_does_not_come_up() -> None:
    def asks(thing: dict[str, Any] | None, later_s: float) -> bool:
        return hinders(Seen(job(), thing), longer_than_s=5, now_s=MADE.timestamp() + later_s)

    assert [asks(pod(), 1), asks(pod(), 6), asks(None, 6), asks(pod("Running"), 6)] == [False, True, True, False]


def test_the_pod_that_lives_counts_before_those_that_ended() -> None:
    old, new = pod("Failed", age_s=1), pod("Failed", age_s=2)
    assert newest([]) is None
    assert newest([new, old]) is new
    assert newest([pod("Running"), new, old]) is not new


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (job(), True),
        (job(active=1), False),
        (job(failed=1), False),
        (job(uncountedTerminatedPods={"failed": ["uid"]}), False),
        (job(("Failed", "BackoffLimitExceeded")), False),
    ],
)
def test_a_job_may_make_its_first_pod_as_long_as_it_had_none(thing: dict[str, Any], expected: bool) -> None:
    assert may_start(thing) is expected
