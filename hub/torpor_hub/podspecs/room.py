"""What the nodes of a cluster have, and what of it is free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torpor_hub.domain.units import Amount
from torpor_hub.podspecs import names, quantities

Json = Mapping[str, Any]
STAYS = "false"
ENDED = ("Succeeded", "Failed")


def answers(node: Json) -> bool:
    """Return whether the node's kubelet still reports."""
    conditions = node.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def draining(node: Json) -> bool:
    """Return whether an admin empties the node: it carries the label for that, whatever its value but "false"."""
    labels: Json = node["metadata"].get("labels") or {}
    return bool(labels.get(names.DRAIN, STAYS) != STAYS)


def not_draining() -> Json:
    """Return the node affinity of a pod that no node which is being emptied may get."""
    unmarked = {"key": names.DRAIN, "operator": "DoesNotExist"}
    stays = {"key": names.DRAIN, "operator": "In", "values": [STAYS]}
    terms = [{"matchExpressions": [expression]} for expression in (unmarked, stays)]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def usable(node: Json) -> bool:
    """Return whether the node answers and takes new pods."""
    return answers(node) and not node.get("spec", {}).get("unschedulable") and not draining(node)


def capacity(nodes: Iterable[Json]) -> Amount:
    """Return what all nodes that answer can lend in all, cordoned ones too: their pods go on."""
    return sum((_allocatable(node) for node in nodes if answers(node)), Amount())


def free(nodes: Iterable[Json], pods: Iterable[Json]) -> dict[str, Amount]:
    """Return what is free on each node that takes new pods. Pods that are not in ``pods`` are not counted: it is at most that."""
    rooms = {node["metadata"]["name"]: _allocatable(node) for node in nodes if usable(node)}
    for pod in pods:
        name = pod["spec"].get("nodeName", "")
        if name in rooms and pod.get("status", {}).get("phase") not in ENDED:
            rooms[name] -= requested(pod)
    return rooms


def requested(pod: Json) -> Amount:
    """Return what a pod's containers ask for together. (Pods of ours have no init containers.)"""
    asked = (container.get("resources", {}).get("requests", {}) for container in pod["spec"]["containers"])
    return sum((quantities.amount(values) for values in asked), Amount())


def freest(rooms: Mapping[str, Amount]) -> Amount:
    """Return the most of each thing that any one node has free; nothing where there is no node."""
    return Amount(
        max((room.cpu_milli for room in rooms.values()), default=0),
        max((room.memory_bytes for room in rooms.values()), default=0),
        max((room.gpu_count for room in rooms.values()), default=0),
    )


def _allocatable(node: Json) -> Amount:
    return quantities.amount(node.get("status", {}).get("allocatable", {}))
