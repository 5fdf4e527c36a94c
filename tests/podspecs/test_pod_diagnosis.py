from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.podspecs.examples import GIB, pod
from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.units import Amount
from torpor_hub.podspecs.diagnose import Surroundings, diagnose_pod, exit_code, progress

T0, T0_TEXT = 1_790_000_000.0, "2026-09-21T14:13:20Z"
NOW = Surroundings(T0 + 2)


def status(**fields: Any) -> dict[str, Any]:
    made = pod(amount=Amount(2000, 2 * GIB, 1))
    made["metadata"]["uid"] = "uid-1"
    made["status"] = {"phase": "Pending", **fields}
    return made


def condition(kind: str, value: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": T0_TEXT}


def unschedulable(message: str) -> dict[str, Any]:
    return status(conditions=[condition("PodScheduled", "False", "Unschedulable", message)])


def container(phase: str = "Pending", **state: Any) -> dict[str, Any]:
    made = status(
        phase=phase,
        conditions=[condition("PodScheduled", "True")],
        containerStatuses=[{"name": "workspace", "state": state}],
    )
    made["spec"]["nodeName"] = "node-1"
    return made


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return container(waiting={"reason": reason, "message": message})


def ended(**fields: Any) -> dict[str, Any]:
    return container("Failed", terminated=fields)


NOT_FOUND = 'failed to pull and unpack image "r/x@sha256:0": failed to resolve reference: r/x@sha256:0: not found'
UNBOUND = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
CASES = {
    "IMAGE_MISSING": (waiting("ErrImagePull", NOT_FOUND), "The image is not in the registry"),
    "IMAGE_MISSING later": (
        waiting("ImagePullBackOff", f"Back-off pulling image: ErrImagePull: {NOT_FOUND}"),
        "not in the",
    ),
    "IMAGE_DENIED": (waiting("ErrImagePull", "pull access denied: 401 Unauthorized"), "did not let the node fetch"),
    "IMAGE_UNREACHABLE": (waiting("ImagePullBackOff", "dial tcp: connection refused"), "dial tcp: connection refused."),
    "IMAGE_NOT_ON_NODE": (waiting("ErrImageNeverPull"), "not on the node"),
    "IMAGE_NAME_INVALID": (waiting("InvalidImageName", "couldn't parse"), "couldn't parse."),
    "NOT_CREATED": (waiting("CreateContainerConfigError", 'secret "a" not found'), 'secret "a" not found.'),
    "NOT_CREATED by the runtime": (ended(reason="StartError", exitCode=128, message="no such file"), "no such file."),
    "NO_ROOM": (unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu."), "No node has 1 GPU free."),
    "NO_ROOM twice": (
        unschedulable("0/2 nodes are available: 1 Insufficient cpu, 2 Insufficient memory."),
        "No node has 2 cores and 2 GiB of memory free.",
    ),
    "NO_NODE": (
        unschedulable("0/2 nodes are available: 2 node(s) were unschedulable."),
        "2 node(s) were unschedulable.",
    ),
    "HOME_ELSEWHERE": (
        unschedulable("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod affinity rules."),
        "Your home can be used on one node at a time",
    ),
    "CRASHED": (ended(exitCode=3, message="cannot bind"), "The server ended with exit code 3: cannot bind"),
    "KILLED": (ended(exitCode=139), "The server was ended by SIGSEGV."),
    "OUT_OF_MEMORY": (ended(exitCode=137, reason="OOMKilled"), "It used more than its 2 GiB of memory"),
    "REMOVED_BY_NODE": (
        status(phase="Failed", reason="Evicted", message="low on disk"),
        "The node removed it: low on disk.",
    ),
    "REMOVED_BY_NODE unstarted": (
        status(phase="Failed", reason="OutOfcpu", message="not enough cpu"),
        "not enough cpu.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pod_that_needs_help_says_why_and_what_to_do(case: str) -> None:
    made, sentence = CASES[case]
    cause = diagnose_pod(made, NOW)
    assert cause is not None
    assert cause.reason == case.split(maxsplit=1)[0]
    assert sentence in cause.message
    assert cause.next_step.endswith(".")


HEALTHY = {
    "just made": status(),
    "its image is fetched": waiting("ContainerCreating"),
    "its registry was away once": waiting("ErrImagePull", "dial tcp: connection refused"),
    "it runs": container("Running", running={"startedAt": T0_TEXT}),
    "its first volume is being made": unschedulable(UNBOUND),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_a_pod_that_may_yet_come_up_is_left_alone(case: str) -> None:
    assert diagnose_pod(HEALTHY[case], NOW) is None


def test_a_volume_that_does_not_come_is_a_cause_after_a_while() -> None:
    cause = diagnose_pod(unschedulable(UNBOUND), Surroundings(T0 + 20))
    assert cause is not None
    assert cause.reason == "VOLUME_UNBOUND"


def test_a_volume_that_cannot_be_made_is_a_cause_at_once() -> None:
    event = {
        "reason": "ProvisioningFailed",
        "message": 'storageclass "fast" not found',
        "involvedObject": {"kind": "PersistentVolumeClaim", "name": "home-usr-1"},
    }
    cause = diagnose_pod(unschedulable(UNBOUND), replace(NOW, events=(event,)))
    assert cause is not None
    assert 'storageclass "fast" not found.' in cause.message
    elsewhere = {**event, "involvedObject": {"kind": "PersistentVolumeClaim", "name": "home-usr-2"}}
    assert diagnose_pod(unschedulable(UNBOUND), replace(NOW, events=(elsewhere,))) is None


def test_a_mount_that_keeps_failing_is_a_cause_and_an_earlier_pods_events_are_none() -> None:
    event = {"reason": "FailedMount", "message": "timed out", "involvedObject": {"kind": "Pod", "uid": "uid-1"}}
    made = waiting("ContainerCreating")
    assert diagnose_pod(made, Surroundings(T0 + 5, events=(event,))) is None
    cause = diagnose_pod(made, Surroundings(T0 + 90, events=(event,)))
    assert cause is not None
    assert (cause.reason, cause.message) == ("VOLUME_NOT_MOUNTED", "A volume could not be mounted: timed out.")
    old = {**event, "involvedObject": {"kind": "Pod", "uid": "uid-0"}}
    assert diagnose_pod(made, Surroundings(T0 + 90, events=(old,))) is None


def test_people_read_what_is_free_where_anybody_knows() -> None:
    made = unschedulable("0/2 nodes are available: 2 Insufficient cpu.")
    cause = diagnose_pod(made, replace(NOW, free=Amount(1500, 4 * GIB)))
    assert cause is not None
    assert cause.message == "No node has 2 cores free. The most that one node has free is 1.5 cores."


def test_nothing_is_called_free_that_pods_of_others_hold() -> None:
    made = unschedulable("0/2 nodes are available: 2 Insufficient cpu.")
    cause = diagnose_pod(made, replace(NOW, free=Amount(2000, 4 * GIB)))
    assert cause is not None
    assert cause.message == "No node has 2 cores free."


def test_a_node_that_does_not_answer_is_said_and_nothing_is_called_dead() -> None:
    made = container("Running", running={})
    assert diagnose_pod(made, replace(NOW, node_answers=False)) == Cause(
        "NODE_LOST",
        "The node 'node-1' does not answer; nobody knows whether it still runs there.",
        "Wait for the node, or ask a platform admin to remove it; what was saved can be started elsewhere then.",
    )


def test_a_shut_down_from_inside_is_told_from_a_crash() -> None:
    cause = diagnose_pod(container("Succeeded", terminated={"exitCode": 0}), replace(NOW, had_answered=True))
    assert cause is not None
    assert cause.reason == "SHUT_DOWN"


def test_the_log_that_somebody_could_read_wins_over_the_end_that_the_kubelet_kept() -> None:
    cause = diagnose_pod(ended(exitCode=1, message="short"), replace(NOW, log="ModuleNotFoundError: no pandas"))
    assert cause is not None
    assert cause.reason == "BROKEN_ENVIRONMENT"


@pytest.mark.parametrize(("code", "said"), [(0, 0), (3, 3), (137, -9), (143, -15)])
def test_an_exit_code_above_128_is_a_signal(code: int, said: int) -> None:
    assert exit_code(ended(exitCode=code)) == said
    assert exit_code(container("Running", running={})) is None


def test_progress_follows_the_pod() -> None:
    up = container("Running", running={})
    up["status"]["conditions"].append(condition("Ready", "True"))
    seen = [progress(made) for made in (status(), waiting("ContainerCreating"), container("Running", running={}), up)]
    assert seen == [
        "Looking for a node with room",
        "Fetching the image and mounting volumes",
        "The server starts",
        "Running",
    ]
