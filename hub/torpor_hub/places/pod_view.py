"""What is known of the pods of workspaces and jobs, and of what is around them: kept by watches, asked for where it matters."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.kinds import Json
from torpor_hub.cluster.watch import Snapshot, Watch
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Fact
from torpor_hub.errors import ClusterError
from torpor_hub.places import pod_facts
from torpor_hub.podspecs import job, names, room, workspace
from torpor_hub.podspecs.diagnose import Surroundings
from torpor_hub.podspecs.shape import ClusterShape

FIRST_LIST_S = 3.0
SAYS_WHY_AFTER_S = 5.0
ASK_EVENTS_EVERY_S = 5.0
USERS_CODE = f"{names.MANAGED},{names.COMPONENT} in ({workspace.COMPONENT},{job.COMPONENT})"


@dataclass(frozen=True)
class Sight:
    """Pods and nodes as they were last seen, and how much of them is known."""

    pods: Snapshot
    nodes: Snapshot

    def workspaces(self) -> list[Json]:
        """Return the pods of workspaces."""
        pods = self.pods.objects.values()
        return [pod for pod in pods if pod_facts.labels(pod).get(names.COMPONENT) == workspace.COMPONENT]


class PodView:
    """Follows the pods of all tenants, and the nodes. ``tenants`` returns the tenants' names, from the records."""

    def __init__(self, cluster: Cluster, shape: ClusterShape, tenants: Callable[[], Collection[str]]) -> None:
        self._cluster = cluster
        self._shape = shape
        self._tenants = tenants
        self._pods = Watch(cluster, kinds.POD, labels=USERS_CODE)
        self._nodes = Watch(cluster, kinds.NODE)
        self._followed: frozenset[str] = frozenset()
        self._events: dict[str, tuple[float, tuple[Json, ...]]] = {}

    async def aclose(self) -> None:
        """Stop following."""
        await self._pods.aclose()
        await self._nodes.aclose()

    async def follow(self) -> frozenset[str]:
        """Follow the namespaces of all tenants; return them once those that are new were listed, or have had time for it."""
        tenants = await asyncio.to_thread(self._tenants)
        wanted = frozenset(names.namespace(self._shape.namespace_prefix, tenant) for tenant in tenants)
        if wanted != self._followed:
            new, self._followed = wanted - self._followed, wanted
            self._pods.follow(wanted)
            self._nodes.add("")
            waits = [self._pods.known(namespace, within_s=FIRST_LIST_S) for namespace in new]
            await asyncio.gather(*waits, self._nodes.known("", within_s=FIRST_LIST_S))
        return wanted

    def now(self) -> Sight:
        """Return what is seen at this moment."""
        return Sight(self._pods.snapshot(), self._nodes.snapshot())

    async def fact(self, pod: Json, sight: Sight) -> Fact | None:
        """Return what a pod that was seen says; ``alive`` None where its namespace is unknown now."""
        if not sight.pods.knows(pod["metadata"]["namespace"]):
            return pod_facts.unknown(pod)
        return pod_facts.fact_of(pod, await self.around(pod, sight))

    async def around(self, pod: Json, sight: Sight) -> Surroundings:
        """Return what explains a pod: whether its node answers and, where it does not come up, its events and what is free."""
        now_s, nodes = time.time(), sight.nodes
        answers = not nodes.knows("") or pod_facts.node_answers(pod, nodes.objects)
        events = await self._events_of(pod, now_s)
        free = _free(sight) if nodes.knows("") and pod_facts.has_no_node(pod) else None
        if free is not None and room.requested(pod).fits(free):
            # Pods that nobody here may see have the rest: what is free is not known.
            free = None
        drains = pod_facts.node_drains(pod, nodes.objects)
        return Surroundings(now_s, events, free=free, node_answers=answers, node_drains=drains)

    async def _events_of(self, pod: Json, now_s: float) -> tuple[Json, ...]:
        """Return the events of a pod that does not come up, and those of claims without a volume."""
        if not pod_facts.waits(pod, longer_than_s=SAYS_WHY_AFTER_S, now_s=now_s):
            return ()
        uid, namespace = pod_facts.uid(pod), pod["metadata"]["namespace"]
        asked_s, events = self._events.get(uid, (0.0, ()))
        if now_s - asked_s < ASK_EVENTS_EVERY_S:
            return events
        with contextlib.suppress(ClusterError):
            own = await self._cluster.list(kinds.EVENT, namespace, fields=f"involvedObject.uid={uid}")
            claims = "involvedObject.kind=PersistentVolumeClaim,reason=ProvisioningFailed"
            events = (*own.items, *(await self._cluster.list(kinds.EVENT, namespace, fields=claims)).items)
        fresh = {key: held for key, held in self._events.items() if now_s - held[0] < 2 * ASK_EVENTS_EVERY_S}
        self._events = fresh | {uid: (now_s, events)}
        return events


def _free(sight: Sight) -> Amount:
    return room.freest(room.free(sight.nodes.objects.values(), sight.pods.objects.values()))
