"""Workspaces as pods in the namespaces of their tenants."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

from torpor_hub import failpoints
from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.kinds import Json
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint, Fact
from torpor_hub.errors import (
    ClusterError,
    ClusterUnavailable,
    Denied,
    ImageMissing,
    ObjectConflict,
    ObjectMissing,
    PlaceError,
    PlaceUnready,
    RegistryUnavailable,
)
from torpor_hub.oci.store import ImageStore
from torpor_hub.places import pod_facts
from torpor_hub.places.base import Preparation
from torpor_hub.places.pod_view import USERS_CODE, PodView
from torpor_hub.podspecs import names
from torpor_hub.podspecs.shape import ClusterShape

LOOK_AGAIN_S = 0.25
# With 0 the API server would forget a pod whose processes still run.
LEAST_GRACE_S = 1
ENDS_WITHIN_S = 30.0


class KubernetesPlace:
    """Runs workspaces as pods, one per workspace, named by its id.

    ``tenants`` returns the names of all tenants, from the records: their namespaces are followed, and nothing else.
    ``images`` is the registry of environments, None where there is none. ``overhead`` is what other pods of a node ask for:
    nobody here may list them. It makes neither pods (the hub does) nor namespaces and homes (the tenants' controller does).
    Use it within one event loop, and :meth:`aclose` it there.
    """

    keeps_environments = False

    def __init__(
        self,
        cluster: Cluster,
        shape: ClusterShape,
        images: ImageStore | None,
        tenants: Callable[[], Collection[str]],
        *,
        overhead: Amount | None = None,
    ) -> None:
        self._cluster = cluster
        self._shape = shape
        self._images = images
        self._overhead = overhead or Amount()
        self._view = PodView(cluster, shape, tenants)
        self._namespaces: dict[str, str] = {}
        self._removed: set[str] = set()

    async def aclose(self) -> None:
        """Stop following pods and nodes."""
        await self._view.aclose()

    async def facts(self) -> Mapping[str, Fact]:
        """Return every workspace's pod that was seen, by workspace id; ``alive`` None where its namespace is unknown now.

        Raises:
            PlaceError: when nothing is known of any namespace.
        """
        followed = await self._view.follow()
        sight = self._view.now()
        if followed and not any(map(sight.pods.knows, followed)):
            raise PlaceError("The cluster's API server does not say which pods there are.")
        pods = sight.workspaces()
        self._removed &= {pod_facts.uid(pod) for pod in pods}
        self._namespaces |= {pod["metadata"]["name"]: pod["metadata"]["namespace"] for pod in pods}
        there = [pod for pod in pods if pod_facts.uid(pod) not in self._removed]
        facts = await asyncio.gather(*(self._view.fact(pod, sight) for pod in there))
        return {fact.workspace_id: fact for fact in facts if fact is not None}

    async def find(self, workspace_id: str) -> Fact | None:
        """Return what a live list has of a workspace.

        Raises:
            PlaceError: when the API server does not answer, or may not be asked.
        """
        pod = await self._find(workspace_id)
        if pod is None:
            return None
        await self._view.follow()
        return pod_facts.fact_of(pod, await self._view.around(pod, self._view.now()))

    async def prepare(self, preparation: Preparation) -> None:
        """Make sure that tenant, home and image are there, and that nothing of an earlier start is.

        Raises:
            ImageMissing: when the checkpoint, or a part of it, is not in the registry.
            CorruptImage: when its manifest does not read back.
            PlaceUnready: when the home is not made yet, an earlier pod has not ended, or API server or registry do not answer.
            PlaceError: when it runs and would have to change.
        """
        namespace = names.namespace(self._shape.namespace_prefix, preparation.tenant)
        self._namespaces[preparation.workspace_id] = namespace
        await self._require_home(preparation, namespace)
        await self._require_ended(preparation)
        if preparation.checkpoint is not None:
            await self._require_image(preparation.checkpoint)

    async def remove(self, workspace_id: str, handle: str, *, grace_s: float) -> None:
        """Delete the pod whose UID is ``handle`` and return once a live list has it no more; gone already is success.

        A pod of that name with another UID is another start's, and is left alone.

        Raises:
            PlaceError: when it does not end in time, such as on a node that is off, or nobody can tell.
        """
        _require_uid(handle)
        grace = max(LEAST_GRACE_S, math.ceil(grace_s))
        namespace = await self._namespace_of(workspace_id)
        if namespace is None:
            return
        async with _as_place_error():
            try:
                await self._cluster.delete(kinds.POD, _pod_name(workspace_id), namespace, uid=handle, grace_s=grace)
            except (ObjectMissing, ObjectConflict):
                return
        await asyncio.to_thread(failpoints.hit, "place.removing")
        await self._wait_until_gone(workspace_id, handle, within_s=grace + ENDS_WITHIN_S)
        self._removed.add(handle)
        await asyncio.to_thread(failpoints.hit, "place.removed")

    async def discard(self, workspace_id: str) -> None:
        """Forget a workspace that does not run. Nothing is kept of it but images, which others remove.

        Raises:
            PlaceError: when it runs, or nobody can tell.
        """
        await self._require_none(workspace_id)
        self._namespaces.pop(workspace_id, None)

    async def discard_environment(self, workspace_id: str) -> None:
        """Make sure that the environment is gone, as it is with its container.

        Raises:
            PlaceError: when it runs, or nobody can tell.
        """
        await self._require_none(workspace_id)

    async def last_lines(self, workspace_id: str, count: int) -> str:
        """Return the last lines of the server's log; empty when there are none, or nobody can read them."""
        with contextlib.suppress(ClusterError, PlaceError):
            namespace = await self._namespace_of(workspace_id)
            if namespace is not None:
                log = await self._cluster.logs(_pod_name(workspace_id), namespace, lines=count)
                return log.rstrip("\n")
        return ""

    async def capacity(self) -> Amount:
        """Return what the nodes that answer and take workspaces have, less the overhead of each.

        Raises:
            PlaceError: when the nodes cannot be listed.
        """
        async with _as_place_error():
            nodes = await self._cluster.list(kinds.NODE)
        return pod_facts.lent(nodes.items, self._shape.node_selector, self._overhead)

    async def _find(self, workspace_id: str) -> Json | None:
        """Return the live pod of a workspace, in whichever tenant's namespace it is."""
        known = self._namespaces.get(workspace_id)
        wanted = (known,) if known is not None else await self._view.follow()
        found = await asyncio.gather(*(self._live(workspace_id, namespace) for namespace in wanted))
        pod = next((pod for pod in found if pod is not None), None)
        if pod is not None:
            self._namespaces[workspace_id] = pod["metadata"]["namespace"]
        return pod

    async def _live(self, workspace_id: str, namespace: str) -> Json | None:
        async with _as_place_error():
            listing = await self._cluster.list(
                kinds.POD, namespace, fields=f"metadata.name={_pod_name(workspace_id)}", labels=USERS_CODE
            )
        return listing.items[0] if listing.items else None

    async def _namespace_of(self, workspace_id: str) -> str | None:
        """Return where the workspace's pod is or was; None where it is nowhere.

        Raises:
            PlaceError: when nobody can tell.
        """
        if workspace_id not in self._namespaces:
            await self._find(workspace_id)
        return self._namespaces.get(workspace_id)

    async def _wait_until_gone(self, workspace_id: str, handle: str, *, within_s: float) -> None:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            pod = await self._find(workspace_id)
            if pod is None or pod_facts.uid(pod) != handle:
                return
            await asyncio.sleep(LOOK_AGAIN_S)
        raise PlaceError(f"The pod of {workspace_id} has not ended within {within_s:.0f} seconds; its node may be off.")

    async def _require_home(self, preparation: Preparation, namespace: str) -> None:
        claim = names.home_claim(preparation.user_id)
        try:
            found = await self._cluster.get(kinds.CLAIM, claim, namespace)
        except (ObjectMissing, Denied) as error:
            raise PlaceUnready("The tenant's namespace and the home in it are still being made.") from error
        except ClusterUnavailable as error:
            raise PlaceUnready(str(error)) from error
        if pod_facts.labels(found).get(names.TENANT) != preparation.tenant_id:
            raise PlaceUnready(f"The namespace {namespace} has a home that is not this platform's.")
        if pod_facts.is_ending(found):
            raise PlaceUnready("The home is being removed; a new one is made when that is done.")
        if found.get("status", {}).get("phase") == "Lost":
            raise PlaceError("The volume of the home is lost; a platform admin has to bring it back.")

    async def _require_ended(self, preparation: Preparation) -> None:
        """Remove what an earlier start left behind, and wait for what is being removed."""
        try:
            pod = await self._find(preparation.workspace_id)
        except PlaceError as error:
            raise PlaceUnready(str(error)) from error
        if pod is None:
            return
        if pod_facts.is_ending(pod):
            raise PlaceUnready("The workspace's earlier server is still ending.")
        if pod_facts.has_ended(pod):
            await self.remove(preparation.workspace_id, pod_facts.uid(pod), grace_s=0)
        elif preparation.fresh or preparation.checkpoint is not None:
            raise PlaceError(f"The workspace {preparation.workspace_id} runs: its environment cannot be changed.")

    async def _require_none(self, workspace_id: str) -> None:
        pod = await self._find(workspace_id)
        if pod is not None:
            raise PlaceError(f"The workspace {workspace_id} runs as {pod_facts.uid(pod)}, or has not quite ended.")

    async def _require_image(self, checkpoint: Checkpoint) -> None:
        if self._images is None:
            raise PlaceUnready("No registry is set, so that nothing that was saved can be woken.")
        try:
            await asyncio.to_thread(_require_whole, self._images, checkpoint)
        except RegistryUnavailable as error:
            raise PlaceUnready(str(error)) from error


def _require_whole(images: ImageStore, checkpoint: Checkpoint) -> None:
    failpoints.hit("place.before_restore")
    image = images.read_image(checkpoint.repository, checkpoint.digest)
    for blob in image.blobs:
        if not images.has_blob(checkpoint.repository, blob.digest, blob.size_bytes):
            raise ImageMissing(f"The blob {blob.digest} of the checkpoint {checkpoint.digest} is not in the registry.")


def _pod_name(workspace_id: str) -> str:
    try:
        return names.pod(workspace_id)
    except ClusterError as error:
        raise PlaceError(f"'{workspace_id}' is not the id of a workspace.") from error


def _require_uid(handle: str) -> None:
    try:
        uuid.UUID(handle)
    except ValueError as error:
        raise PlaceError(f"'{handle}' is not the handle of a pod.") from error


@asynccontextmanager
async def _as_place_error() -> AsyncIterator[None]:
    try:
        yield
    except ClusterError as error:
        raise PlaceError(str(error)) from error
