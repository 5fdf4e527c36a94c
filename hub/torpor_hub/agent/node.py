"""The ground of a cluster's node: environments are containers, frozen by their cgroup under a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from torpor_hub.agent import containers
from torpor_hub.agent.containers import Container
from torpor_hub.agent.ground import Claim, Left, Subject
from torpor_hub.agent.leases import Lease, Leases
from torpor_hub.capture.overlay import Memory, OverlayCapture
from torpor_hub.errors import CaptureFailed, PlaceError
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address
from torpor_hub.processes.cgroups import Cgroups

REMEMBERED = 500


class NodeGround:
    """The containers of this node, saved into the registry that each claim names."""

    def __init__(self, cgroups: Cgroups, leases: Leases) -> None:
        self._cgroups = cgroups
        self._leases = leases
        self._registries: dict[Address, Registry] = {}
        self._memories: dict[tuple[str, Address], Memory] = {}

    async def locate(self, claim: Claim) -> Subject:
        """Return the container that the claim names, with the image that it runs."""
        found = await asyncio.to_thread(containers.find, _container(claim), claim.handle)
        address = _address(claim.content["registry"])
        if address not in self._registries:
            self._registries[address] = Registry(address)
        capture = OverlayCapture(self._registries[address], found.upper, self._memory(found.id, address))
        return Subject(claim.task(found.upper.path, _image(found, address)), capture)

    async def freeze(self, claim: Claim) -> None:
        """Stop every process of the container, under a lease that is written first."""
        await asyncio.to_thread(self._freeze, claim)

    async def thaw(self, claim: Claim) -> None:
        """Let every process of the container go on."""
        await asyncio.to_thread(self._thaw, _container(claim))

    async def promise(self, claim: Claim) -> float:
        """Return how long the lease lasts, after a check that nobody thawed the container."""
        return await asyncio.to_thread(self._promise, claim)

    async def thaw_all(self) -> Sequence[Left]:
        """Thaw what has a lease, but for what the platform was promised, which is returned."""
        return await asyncio.to_thread(self._thaw_all)

    async def thaw_left(self, left: Left) -> None:
        """Let one of those go on."""
        await asyncio.to_thread(self._thaw, left.container)

    def close(self) -> None:
        """Close the connections to registries."""
        for registry in self._registries.values():
            registry.close()

    def _memory(self, container: str, address: Address) -> Memory:
        """Return what is known of a container; of those that were saved longest ago, nothing is any more."""
        self._memories[container, address] = memory = self._memories.pop((container, address), Memory())
        for oldest in list(self._memories)[:-REMEMBERED]:
            del self._memories[oldest]
        return memory

    def _freeze(self, claim: Claim) -> None:
        container = _container(claim)
        group = self._cgroups.find(container)
        if group is None:
            raise PlaceError(
                f"The container {container[:12]} is gone, or the agent does not see the node's cgroups; they have to be mounted"
                " into it, writable."
            )
        self._leases.write(container, claim.operation, claim.fence, claim.thaw_after_s)
        try:
            self._cgroups.freeze(group)
        except PlaceError:
            self._leases.end(container)
            raise

    def _thaw(self, container: str) -> None:
        group = self._cgroups.find(container)
        if group is not None:
            self._cgroups.thaw(group)
        self._leases.end(container)

    def _promise(self, claim: Claim) -> float:
        container = _container(claim)
        lease, group = self._leases.read(container), self._cgroups.find(container)
        if lease is None or group is None or not _is_of(lease, claim) or not self._cgroups.is_frozen(group):
            raise PlaceError("The container was thawed before it was saved.")
        return self._leases.promise(lease).left_s

    def _thaw_all(self) -> list[Left]:
        left = []
        for lease in filter(self._leases.is_own, self._leases.all()):
            if lease.promised and lease.left_s > 0 and self._cgroups.find(lease.container) is not None:
                left.append(Left(lease.operation, lease.fence, lease.container))
            else:
                self._thaw(lease.container)
        return left


def _container(claim: Claim) -> str:
    return str(claim.content["container"]).rpartition("/")[2]


def _is_of(lease: Lease, claim: Claim) -> bool:
    return (lease.operation, lease.fence) == (claim.operation, claim.fence) and lease.left_s > 0


def _address(held: Mapping[str, Any]) -> Address:
    return Address(str(held["host"]), bool(held["insecure"]), str(held["username"]), str(held["password"]))


def _image(found: Container, address: Address) -> str:
    """Return ``repository@digest`` of the image that the container runs, of which its changes are changes.

    What the runtime has noted decides: the newest checkpoint may be younger than the container.

    Raises:
        CaptureFailed: when it runs an image that is not in the registry.
    """
    host, _, image = found.image.partition("/")
    if host == address.host and "@sha256:" in image:
        repository, _, digest = image.partition("@")
        # A name may have a tag beside the digest, which says nothing.
        return f"{repository.partition(':')[0]}@{digest}"
    raise CaptureFailed(
        f"The workspace runs the image {found.image or 'of no known name'}, which is not named by a digest in the registry"
        f" {address.host}; have an administrator apply its profile again, then start the workspace anew."
    )
