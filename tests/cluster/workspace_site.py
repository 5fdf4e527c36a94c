"""Workspaces on the test cluster: the controller's loops with the server's rights, and a stand-in that makes pods with the hub's."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.tenant_site import TenantSite, until
from tests.contract.place_worlds import SERVER
from tests.controllers.pod_platform import PodPlatform
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.controllers.base import Leadership, Waker, loop
from torpor_hub.controllers.profiles import ProfileController
from torpor_hub.controllers.tenants import TenantController
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address
from torpor_hub.programs.control_cluster import reach_of
from torpor_hub.services.images import default_profile
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.changes import ChangeFeed

Json = dict[str, Any]
MIB = 1024**2
PATHS = {"workspace": "/opt/workspace", "home": "/home/user", "data": "/data"}
PYTHON = "/opt/torpor/bin/python"


class WorkspaceSite(TenantSite):
    """A whole controller, whose workspaces run a small server in an image of the platform's."""

    def __init__(self, folder: Path, store: Store, reach: Access, **values: Any) -> None:
        host = os.environ.get("TORPOR_KUBE_REGISTRY", "")
        if not host:
            pytest.skip("needs the test cluster: TORPOR_KUBE_REGISTRY is not set")
        profile = {
            **{"name": "small", "title": "Small", "default": True, "image": f"{host}/torpor/agent:dev"},
            **{"cpu_milli": 100, "memory_bytes": 128 * MIB},
        }
        super().__init__(
            folder,
            store,
            reach,
            mode="kubernetes",
            paths=PATHS,
            registry={"host": host, "insecure": True, "prefix": f"hp-test/{os.urandom(3).hex()}"},
            seed={"profiles": [profile]},
            **values,
        )
        self.registry = Registry(Address(host, insecure=True))
        self.platform: PodPlatform

    async def work(self, lead: Leadership, feed: ChangeFeed) -> None:
        hub = Cluster(self.sign_in(self.shape.hub_account))
        self.platform = PodPlatform(self.store, self.settings, self.cluster, self.registry, hub=hub, lead=lead)
        self.platform.hub.command = (PYTHON, "-c", SERVER)
        self.platform.hub.args = (str(self.shape.workspace_port), "3600.5", "0.0.0.0")
        tenants = TenantController(self.store, self.settings, self.cluster, self.shape, lead)
        reach = reach_of(self.settings)
        profiles = ProfileController(self.store, self.settings, self.registry, lead, reach=reach)
        try:
            await asyncio.gather(
                loop("tenants", tenants.turn, Waker(feed, ("tenant",)), lead),
                loop("profiles", profiles.turn, Waker(feed, ("profile",)), lead),
                loop("workspaces", self.platform.controller.turn, Waker(feed, ("workspace",)), lead),
            )
        finally:
            await tenants.aclose()
            await self.platform.place.aclose()
            await hub.aclose()

    def start(self) -> None:
        super().start()
        until(lambda: self.is_whole() and self.digest(), "tenant and image are ready")

    def close(self) -> None:
        super().close()
        self.registry.close()

    def digest(self) -> str:
        """Return the digest of the profile's image."""
        return str(self.platform.do(_digest))

    def pod(self, key: str) -> Json | None:
        return self.get("pod", key)

    def phase(self, key: str, phase: str, within_s: float = 90.0) -> Json:
        """Wait until the workspace is in a phase and return its status."""
        try:
            until(lambda: self.platform.show(key)["phase"] == phase, phase, within_s)
        except AssertionError as error:
            shown, hub, pod = self.platform.show(key), self.platform.hub.told, self.pod(key)
            raise AssertionError(f"{phase} in vain: {shown}, {hub}, {json.dumps((pod or {}).get('status'))}") from error
        return self.platform.show(key)

    def run(self, name: str) -> str:
        """Make a workspace, start it, and return its id once it answers."""
        key = self.platform.create(name)
        self.platform.wish(key, desired="running")
        self.phase(key, "RUNNING")
        return key

    def spoil(self, change: Callable[[Json], None]) -> None:
        """Change what the stand-in for the hub makes from now on."""
        self.platform.hub.change = change

    def put_checkpoint(self, repository: str) -> str:
        """Put an image into a workspace's repository, as a capture does, and return its digest."""
        source = f"{self.settings.registry.prefix}/profiles/small"
        manifest = self.registry.read_manifest(source, self.digest())
        for blob in self.registry.read_image(source, self.digest()).blobs:
            self.registry.borrow_blob(repository, source, blob)
        content = {**json.loads(manifest), "annotations": {"org.torpor.workspace": os.urandom(4).hex()}}
        return self.registry.put_manifest(repository, "saved", json.dumps(content).encode())


def _digest(tx: UnitOfWork) -> str:
    return default_profile(tx).digest
