"""The api and the controller's loop for jobs on this machine, their jobs on the test cluster, behind the tenant's own walls."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from tests.cluster.objects import quota_counts
from tests.jobs.job_platform import JobPlatform
from torpor_hub.cluster import access, kinds
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.kinds import Json, Kind
from torpor_hub.cluster.shape import shape_of
from torpor_hub.domain.policy import Role
from torpor_hub.domain.units import Amount
from torpor_hub.errors import ObjectMissing
from torpor_hub.oci.registry import Registry, copy_image
from torpor_hub.oci.registry_auth import Address
from torpor_hub.podspecs import names
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan, home_object, namespace_object, tenant_objects
from torpor_hub.podspecs.volumes import data_objects
from torpor_hub.runners.base import Runner
from torpor_hub.runners.kubernetes import KubernetesRunner
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store
from torpor_hub.stores.tables import Membership, Profile, Tenant, User

MIB, GIB = 1024**2, 1024**3
SMALL = {"cpu_milli": 100, "memory_bytes": 256 * MIB}
SHARE = Amount(4000, 8 * GIB)
PACK = """
import base64, cloudpickle, json, sys
exec(sys.argv[1])
bundle = cloudpickle.dumps({"function": main, "args": tuple(json.loads(sys.argv[2])), "kwargs": {}}, protocol=5)
print(base64.b64encode(bundle).decode())
"""


class JobSite(JobPlatform):
    """A platform whose jobs are pods of one tenant, ``research``. ``images`` maps profiles to repositories, the default first."""

    patience_s = 180.0

    def __init__(self, state: Path, store: Store, images: Mapping[str, str], **settings: Any) -> None:
        self.registry = Registry(Address(os.environ["TORPOR_KUBE_REGISTRY"], insecure=True))
        self.prefix = f"hr-{secrets.token_hex(3)}-"
        self.namespace = f"{self.prefix}research"
        host = os.environ["TORPOR_KUBE_HOST"]
        profiles = [
            {"name": name, "title": name, "image": repository, "kinds": ["command", "spark"]}
            for name, repository in images.items()
        ]
        super().__init__(
            state,
            store,
            host=host,
            make_runner=self._runner,
            seed={"profiles": [{**profiles[0], "default": True}, *profiles[1:]]},
            paths={"workspace": "/opt/workspace", "home": "/home/user", "data": "/data", **settings.pop("paths", {})},
            registry={"host": os.environ["TORPOR_KUBE_REGISTRY"], "insecure": True},
            cluster={
                "namespace": f"{self.prefix}platform",
                "namespace_prefix": self.prefix,
                # The platform is on this machine, outside of the cluster.
                "egress": [{"to": [{"ipBlock": {"cidr": f"{host}/32"}}]}],
                **settings.pop("cluster", {}),
            },
            **settings,
        )
        with store.read() as tx:
            self.tenant_id = tx.session.scalars(select(Tenant.id).where(Tenant.name == "research")).one()
            self.user_id = tx.session.scalars(select(User.id).where(User.name == "ada")).one()
            digests = {
                row.name: self._take_over(row.name, images[row.name]) for row in tx.session.scalars(select(Profile))
            }
        for name, digest in digests.items():
            self.set_image(name, digest)
        self.do(self._make_tenant)

    def close(self) -> None:
        super().close()
        self.do(self._remove)
        self.registry.close()

    def set_image(self, profile: str, digest: str) -> None:
        with self.store.begin("test") as tx:
            tx.session.execute(update(Profile).where(Profile.name == profile).values(digest=digest))

    def demote(self) -> None:
        """Make the user a viewer of the tenant, who reads no datasets, as an admin does."""
        of_theirs = (Membership.user_id == self.user_id, Membership.tenant_id == self.tenant_id)
        with self.store.begin("test") as tx:
            tx.session.execute(update(Membership).where(*of_theirs).values(role=Role.VIEWER))

    def _take_over(self, profile: str, repository: str) -> str:
        """Copy a profile's image to where the platform has it; return its digest."""
        digest = self.registry.resolve(repository, "dev")
        copy_image(self.registry, repository, digest, self.registry, names.profile_repository(profile), "test")
        return digest

    def do(self, work: Callable[[Cluster], Any]) -> Any:
        """Return what ``work`` returns, given a client of the cluster as its administrator."""

        async def run() -> Any:
            async with Cluster(access.find()) as cluster:
                return await work(cluster)

        return asyncio.run(run())

    def objects(self, kind: Kind) -> list[Json]:
        """Return all objects of a kind in the tenant's namespace that are of a job."""
        labels = "app.kubernetes.io/component=job"
        return list(self.do(lambda cluster: cluster.list(kind, self.namespace, labels=labels)).items)

    def pod(self, job: str) -> Json | None:
        found = [pod for pod in self.objects(kinds.POD) if pod["metadata"]["labels"]["torpor/job"] == job]
        return found[-1] if found else None

    def remove_pod(self, job: str, grace_s: int = 30) -> None:
        """Delete a job's pod as somebody would behind the platform's back."""
        pod = self.pod(job)
        assert pod is not None
        name = pod["metadata"]["name"]
        self.do(lambda cluster: cluster.delete(kinds.POD, name, self.namespace, grace_s=grace_s))

    def function_in_image(self, text: str, *args: Any, **spec: Any) -> str:
        """Submit the function ``main`` of a program, packed by the image's own Python as a notebook there packs it."""
        packing = self.command("python", "-c", PACK, text, json.dumps(args), amount=SMALL)
        status = self.ended(packing)
        assert status["phase"] == "SUCCEEDED", (status, self.log(packing))
        return self.function(base64.b64decode(self.log(packing)), **spec)

    def _runner(self, settings: Settings) -> Runner:
        return KubernetesRunner(
            Cluster(access.find()),
            self._shape(settings),
            lambda: ["research", "operations"],
            patience_s=settings.limits.job_start_s,
        )

    def _shape(self, settings: Settings) -> ClusterShape:
        return replace(shape_of(settings), storage_class="")

    def settings_file(self) -> Path:
        """Return a file with what an importer needs to know of the platform."""
        state, file = self.settings.state_dir, self.settings.state_dir / "settings.toml"
        ports = {name: getattr(self.settings, name).port for name in ("server", "hub", "proxy", "proxy_api")}
        lines = [f'state_dir = "{state}"', f'server.host = "{self.settings.server.host}"']
        lines += [
            *(f"{name}.port = {port}" for name, port in ports.items()),
            f'paths.data = "{self.settings.data_dir}"',
        ]
        file.write_text("\n".join(lines))
        return file

    async def make_data(self, cluster: Cluster, source: Json) -> None:
        """Make the tenant's claim of the platform's own data."""
        for thing in data_objects(self._plan(), self.tenant_id, source, self._shape(self.settings)):
            await cluster.create(thing)

    async def _remove(self, cluster: Cluster) -> None:
        await cluster.delete(kinds.NAMESPACE, self.namespace)
        with suppress(ObjectMissing):
            await cluster.delete(kinds.VOLUME, names.data_volume(self.namespace, self.tenant_id))

    def _plan(self) -> TenantPlan:
        return TenantPlan(self.tenant_id, "research", SHARE, (self.user_id,))

    async def _make_tenant(self, cluster: Cluster) -> None:
        shape, plan = self._shape(self.settings), self._plan()
        await cluster.create(namespace_object(plan, shape))
        for thing in tenant_objects(plan, shape):
            if thing["kind"] != "RoleBinding":
                await cluster.apply(thing)
        await cluster.create(home_object(plan, self.user_id, shape))
        await quota_counts(cluster, self.namespace)


def reachable() -> Access | None:
    """Return how the test cluster is reached; None where there is none."""
    needed = (access.CONFIG, "TORPOR_KUBE_REGISTRY", "TORPOR_KUBE_HOST")
    return access.find() if all(os.environ.get(name) for name in needed) else None
