"""The pods of workspaces as the hub sees them: one watch for all its spawners, and live lists for what must be certain."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.kinds import Json
from torpor_hub.cluster.watch import Snapshot, Watch
from torpor_hub.errors import ClusterUnavailable
from torpor_hub.podspecs import names
from torpor_hub.podspecs.workspace import COMPONENT

FINGERPRINT = "torpor/token-fingerprint"
SELECTOR = f"{names.MANAGED},{names.COMPONENT}={COMPONENT}"
OVER = ("Succeeded", "Failed")
# A live list is asked for while somebody waits for its answer.
LIST_S = 5.0
ANSWER_S = 2.0
Place = tuple[str, str]


def fingerprint(token: str) -> str:
    """Return what a pod may show of its server's token: who knows the token can compare, nobody can go back."""
    return hashlib.sha256(token.encode()).hexdigest()


def uid(pod: Json) -> str:
    """Return the pod's UID, which no other pod ever has."""
    return str(pod["metadata"]["uid"])


def label(pod: Json, name: str) -> str:
    """Return the value of a label; empty where the pod has none of that name."""
    return str((pod["metadata"].get("labels") or {}).get(name, ""))


def is_over(pod: Json) -> bool:
    """Return whether the pod's server has ended, for good: pods of ours do not restart."""
    return pod.get("status", {}).get("phase") in OVER or "terminated" in _state(pod)


def is_leaving(pod: Json) -> bool:
    """Return whether somebody has asked for the pod's end."""
    return "deletionTimestamp" in pod["metadata"]


def has_begun(pod: Json) -> bool:
    """Return whether the server's process runs, be it that it does not answer yet."""
    return "running" in _state(pod)


def last_words(pod: Json) -> str:
    """Return the last lines that a pod's program wrote before it ended; empty where it has not ended or wrote none."""
    return str(_state(pod).get("terminated", {}).get("message") or "")


def host(pod: Json) -> str:
    """Return the pod's address as a URL names it; empty before it has one."""
    address = str(pod.get("status", {}).get("podIP") or "")
    return f"[{address}]" if ":" in address else address


def shows(pod: Json, token: str) -> bool:
    """Return whether the pod's server was given ``token``."""
    annotations: Mapping[str, Any] = pod["metadata"].get("annotations") or {}
    return annotations.get(FINGERPRINT) == fingerprint(token)


def _state(pod: Json) -> Json:
    statuses: list[Json] = pod.get("status", {}).get("containerStatuses") or [{}]
    return statuses[0].get("state") or {}


@dataclass
class _Follower:
    owner: object
    tell: Callable[[], None]
    seen: object = None


class Pods:
    """The pods of workspaces in those tenants' namespaces where a server runs or starts.

    What is followed costs one watch for each namespace, whatever the number of servers. The watch says what probably is; that a
    pod is gone is certain only after ``of_workspace`` agreed.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._watch = Watch(cluster, kinds.POD, labels=SELECTOR)
        self._followers: dict[Place, _Follower] = {}
        self._telling: asyncio.Task[None] | None = None
        self._cached: tuple[asyncio.Event, Snapshot] | None = None
        # One for all, because each begins by reading the machine's certificates.
        self._http = httpx.AsyncClient(trust_env=False, timeout=ANSWER_S)

    def follow(self, namespace: str, name: str, owner: object, tell: Callable[[], None]) -> None:
        """Call ``tell`` at each change of what is known of a pod, until ``leave``; the last to follow a pod is the one told."""
        self._followers[namespace, name] = _Follower(owner, tell)
        self._watch.add(namespace)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_followers(), name="pods of workspaces")

    def leave(self, namespace: str, name: str, owner: object) -> None:
        """Stop telling ``owner``, unless another one has taken its place."""
        follower = self._followers.get((namespace, name))
        if follower is None or follower.owner is not owner:
            return
        del self._followers[namespace, name]
        self._watch.follow({place for place, _ in self._followers})

    def seen(self, namespace: str, name: str) -> Json | None:
        """Return a pod as the watch saw it last; None where it saw none, which may mean nothing."""
        return self._snapshot().objects.get((namespace, name))

    def misses(self, namespace: str, name: str, pod_uid: str) -> bool:
        """Return whether the watch knows that namespace and does not see exactly this pod there, or sees that it is over."""
        pod = self.seen(namespace, name)
        there = pod is not None and uid(pod) == pod_uid and not is_over(pod)
        return not there and self._watch.snapshot().knows(namespace)

    async def known(self, namespace: str, *, within_s: float) -> bool:
        """Return whether the watch knows the namespace, once it does or ``within_s`` has passed."""
        return await self._watch.known(namespace, within_s=within_s)

    async def of_workspace(self, namespace: str, workspace_id: str) -> tuple[Json, ...]:
        """Return all pods of a workspace, from a live list.

        Raises:
            ClusterError: when nothing is known.
        """
        selector = names.selector(workspace=workspace_id)
        try:
            async with asyncio.timeout(LIST_S):
                return (await self._cluster.list(kinds.POD, namespace, labels=selector)).items
        except TimeoutError as error:
            raise ClusterUnavailable(f"The pods of {namespace} were not listed within {LIST_S:.0f} s.") from error

    async def create(self, pod: Json) -> Json:
        """Make the pod and return it.

        Raises:
            ObjectExists: when there is one of that name.
            Denied: when a rule of the cluster forbids it.
            ClusterError: when it was not made, or nobody knows.
        """
        return await self._cluster.create(pod)

    def events_of(self, namespace: str, pod_uid: str) -> Watch:
        """Return what follows the events of exactly one pod; to be entered as a context."""
        watch = Watch(self._cluster, kinds.EVENT, fields=f"involvedObject.uid={pod_uid}")
        watch.follow({namespace})
        return watch

    async def answers(self, url: str) -> bool:
        """Return whether a server answers there."""
        try:
            return not (await self._http.get(url)).is_server_error
        except httpx.HTTPError:
            return False

    async def aclose(self) -> None:
        """Stop following everything."""
        if self._telling is not None:
            self._telling.cancel()
        await self._watch.aclose()
        await self._http.aclose()
        await self._cluster.aclose()

    def _snapshot(self) -> Snapshot:
        """Return what the watch saw last; it copies everything, so it is asked once for each change."""
        changed = self._watch.changed
        if self._cached is None or self._cached[0] is not changed:
            self._cached = changed, self._watch.snapshot()
        return self._cached[1]

    async def _tell_followers(self) -> None:
        while True:
            changed = self._watch.changed
            objects = self._snapshot().objects
            for place, follower in list(self._followers.items()):
                pod = objects.get(place)
                version = pod and pod["metadata"]["resourceVersion"]
                if version != follower.seen:
                    follower.seen = version
                    follower.tell()
            await changed.wait()
