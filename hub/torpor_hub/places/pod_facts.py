"""What a workspace's pod says of it: pod, node and events in, a fact out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Fact
from torpor_hub.podspecs import names, room
from torpor_hub.podspecs.diagnose import Surroundings, diagnose_pod, exit_code, progress

Json = Mapping[str, Any]
ENDED = ("Succeeded", "Failed")
# Ends of which the exit code and the log tell more than the pod.
PLAIN = ("Error", "Completed")
SCHEME = "containerd://"
DELETED = Cause("POD_DELETED", "Its pod was deleted from outside of the platform.", "Start it again.")


def fact_of(pod: Json, around: Surroundings) -> Fact | None:
    """Return what the pod says; None where it is no workspace's.

    A pod that is being deleted lives until it is gone, and one whose node does not answer lives on: only its own kubelet, or
    who removes the node, knows its end.
    """
    workspace_id = labels(pod).get(names.WORKSPACE, "")
    if not workspace_id:
        return None
    alive = not has_ended(pod)
    started = _state(pod).get("running") or _state(pod).get("terminated") or {}
    return Fact(
        workspace_id=workspace_id,
        grant_id=labels(pod).get(names.GRANT, ""),
        alive=alive,
        answering=alive and around.node_answers and _is_ready(pod),
        handle=uid(pod),
        exit_code=exit_code(pod),
        started_at=_seconds(started.get("startedAt")),
        frozen=None,
        node=pod["spec"].get("nodeName", ""),
        container=str(_container(pod).get("containerID", "")).removeprefix(SCHEME),
        reachable=around.node_answers or not alive,
        draining=around.node_drains,
        verdict=_verdict(pod, around, alive=alive),
        waits_for=f"{progress(pod)}." if alive and not _is_ready(pod) else "",
    )


def unknown(pod: Json) -> Fact:
    """Return what is known of a pod that was seen once, in a namespace that cannot be listed now."""
    given = labels(pod)
    return Fact(given.get(names.WORKSPACE, ""), given.get(names.GRANT, ""), alive=None, answering=None, handle=uid(pod))


def waits(pod: Json, *, longer_than_s: float, now_s: float) -> bool:
    """Return whether the pod has not come up for so long that its events may say why."""
    made = _seconds(pod["metadata"].get("creationTimestamp"))
    pending = pod.get("status", {}).get("phase", "Pending") == "Pending"
    return pending and made is not None and now_s - made > longer_than_s


def has_no_node(pod: Json) -> bool:
    """Return whether the scheduler has found no node for the pod."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(condition["type"] == "PodScheduled" and condition["status"] == "False" for condition in conditions)


def has_ended(pod: Json) -> bool:
    """Return whether the pod's one container has ended; it never starts again."""
    return pod.get("status", {}).get("phase") in ENDED or "terminated" in _state(pod)


def is_ending(pod: Json) -> bool:
    """Return whether the pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def node_answers(pod: Json, nodes: Mapping[tuple[str, str], Json]) -> bool:
    """Return whether the node that the pod is on still reports; of a pod on none, True."""
    name = pod["spec"].get("nodeName", "")
    node = nodes.get(("", name))
    return not name or (node is not None and room.answers(node))


def node_drains(pod: Json, nodes: Mapping[tuple[str, str], Json]) -> bool:
    """Return whether the node that the pod is on is being emptied."""
    node = nodes.get(("", pod["spec"].get("nodeName", "")))
    return node is not None and room.draining(node)


def lent(nodes: Sequence[Json], selector: Mapping[str, str], overhead: Amount) -> Amount:
    """Return what the nodes that take workspaces can lend in all; ``overhead`` is what other pods of each ask for."""
    total = Amount()
    for node in nodes:
        given = node["metadata"].get("labels", {})
        if room.usable(node) and selector.items() <= given.items():
            left = room.capacity([node]) - overhead
            total += Amount(max(0, left.cpu_milli), max(0, left.memory_bytes), left.gpu_count)
    return total


def labels(thing: Json) -> Mapping[str, str]:
    """Return an object's labels."""
    return thing["metadata"].get("labels") or {}


def uid(thing: Json) -> str:
    """Return an object's UID."""
    return str(thing["metadata"]["uid"])


def _verdict(pod: Json, around: Surroundings, *, alive: bool) -> Cause | None:
    if alive and _is_ready(pod) and around.node_answers:
        return None
    if not alive and is_ending(pod):
        return DELETED
    plain = _state(pod).get("terminated", {}).get("reason") in PLAIN
    if plain and not pod.get("status", {}).get("reason"):
        return None
    return diagnose_pod(pod, around)


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _container(pod: Json) -> Json:
    statuses: Sequence[Json] = pod.get("status", {}).get("containerStatuses") or ({},)
    return statuses[0]


def _state(pod: Json) -> Json:
    state: Json = _container(pod).get("state") or {}
    return state


def _seconds(time: str | None) -> float | None:
    return datetime.fromisoformat(time).timestamp() if time else None
