"""A real hub and proxy on this machine whose servers are pods of the test cluster; the platform's api is a stand-in."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.cluster.doorway import Doorway
from tests.cluster.objects import make_tenant
from tests.cluster.stories import Story
from tests.spawning.hub_site import Site
from tests.spawning.starts_stand_in import StartsApi
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.domain import ids
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.podspecs import names, rights
from torpor_hub.podspecs.shape import GIB, ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan

Json = dict[str, Any]
REGISTRY = os.environ.get("TORPOR_KUBE_REGISTRY", "198.18.0.1:5000")
MACHINE = os.environ.get("TORPOR_KUBE_HOST", "198.18.0.1")
SIZE = Amount(500, GIB)
SHARED = "ReadWriteMany"
PEOPLE = ("usr-ada", "usr-ben")


def kubectl(*words: str, content: Any = None) -> str:
    """Run kubectl as the cluster's administrator and return what it says."""
    given = json.dumps(content) if content is not None else None
    return subprocess.run(["kubectl", *words], input=given, capture_output=True, text=True, check=True).stdout


class ClusterStarts(StartsApi):
    """Grants pods. ``changes`` are what a server's run has different from a small one."""

    image = ""

    def new_run(self, user: str, server: str) -> WorkspaceRun:
        run = WorkspaceRun(
            workspace_id=ids.new("ws"),
            grant_id=ids.new("gr"),
            name=server,
            tenant="research",
            user=user,
            profile="small",
            amount=SIZE,
            root_dir="/opt/workspace",
            home_dir="/home/user",
            environment=self.environment.get(server, {}),
            tenant_id="ten-1",
            user_id=f"usr-{user}",
            image=self.image,
        )
        self.runs[server] = replace(run, **self.changes.get(server, {}))
        return self.runs[server]

    @property
    def changes(self) -> dict[str, Json]:
        return self.__dict__.setdefault("_changes", {})


class KubeSite(Site):
    """One hub with the rights of the chart's hub and no more, in namespaces that begin with ``prefix``."""

    starts = ClusterStarts
    api: ClusterStarts

    def __init__(self, folder: Path, prefix: str, image: str, admin: Access) -> None:
        self.prefix, self.admin = prefix, admin
        self.shape = ClusterShape(
            f"{prefix}platform",
            namespace_prefix=prefix,
            registry_host=REGISTRY,
            home_access_mode=SHARED,
            tenant_hub_role=f"{prefix}tenant-hub",
            tenant_controller_role=f"{prefix}tenant-controller",
        )
        last = (
            f'[registry]\nhost = "{REGISTRY}"\ninsecure = true\n'
            f'[cluster]\nnamespace = "{prefix}platform"\nnamespace_prefix = "{prefix}"\nrelax_x509 = true\n'
            # Else all workspaces of one person would have to find room on one node.
            f'[cluster.homes]\naccess_mode = "{SHARED}"\n'
        )
        super().__init__(folder, hub_host=MACHINE, first='mode = "kubernetes"\n', last=last)
        self.api.image = image
        self.namespace = names.namespace(prefix, "research")
        address = urlsplit(admin.server)
        self.door = Doorway((address.hostname or "", address.port or 443))
        self._make_platform()
        self.make_tenant("research", Amount(8000, 16 * GIB, 16))
        self.environment = {"KUBECONFIG": str(self._hub_config())}

    def make_tenant(self, name: str, share: Amount) -> None:
        """Make a tenant as the controller does, whose pods and this machine reach each other."""
        plan = TenantPlan("ten-1", name, share, PEOPLE)

        async def make() -> str:
            async with Cluster(self.admin) as cluster:
                return await make_tenant(cluster, plan, self.shape)

        namespace = asyncio.run(make())
        peers = [{"ipBlock": {"cidr": f"{MACHINE}/32"}}]
        spec = {"podSelector": {}, "ingress": [{"from": peers}], "egress": [{"to": peers}]}
        kubectl("apply", "-f", "-", content=_object("NetworkPolicy", "this-machine", namespace, spec))

    def workspace(self, server: str) -> str:
        return self.api.runs[server].workspace_id

    def namespace_of(self, server: str) -> str:
        return names.namespace(self.prefix, self.api.runs[server].tenant)

    def pods(self, server: str) -> list[Json]:
        """Return a workspace's pods as the cluster has them."""
        selector = names.selector(workspace=self.workspace(server))
        found = kubectl("-n", self.namespace_of(server), "get", "pods", "-l", selector, "-o", "json")
        return list(json.loads(found)["items"])

    def pod(self, server: str) -> Json:
        (found,) = self.pods(server)
        return found

    def start_pod(self, server: str) -> str:
        """Start a workspace's server, wait until it is ready, and return its pod's UID."""
        self.ask_for(server)
        return str(self.pod(server)["metadata"]["uid"])

    def end(self, server: str) -> None:
        """Remove a workspace's pod, as the controller does, and wait until it is gone."""
        selector = names.selector(workspace=self.workspace(server))
        kubectl("-n", self.namespace_of(server), "delete", "pods", "-l", selector, "--grace-period=1")

    def server_token(self, name: str) -> str:
        variables = self.pod(name)["spec"]["containers"][0]["env"]
        return next(str(each["value"]) for each in variables if each["name"] == "JUPYTERHUB_API_TOKEN")

    def grant(self, server: str, **changes: Any) -> WorkspaceRun:
        """Let the next start of Ada's server get a new grant, of a run with these changes."""
        old = self.api.runs.get(server) or self.api.new_run("ada", server)
        self.api.runs[server] = replace(old, grant_id=ids.new("gr"), **changes)
        return self.api.runs[server]

    def follow_start(self, server: str, **how: Any) -> Story:
        """Start Ada's server and return what the cluster and the hub said until it was ready or had failed, and when."""
        return Story(self, server, **how)

    def close(self) -> None:
        self.door.be("open")
        for process in self.programs.values():
            process.terminate()
        for process in self.programs.values():
            process.wait(30)
        self.api.close()
        self.door.be("shut")
        for kind, given in (("namespace", ()), ("clusterrole", ())):
            for name in kubectl("get", kind, "-o", "name").split():
                if name.partition("/")[2].startswith(self.prefix):
                    kubectl("delete", name, "--wait=false", *given)

    def _make_platform(self) -> None:
        role = rights.roles(self.shape)[rights.TENANT_HUB]
        other = rights.roles(self.shape)[rights.TENANT_CONTROLLER]
        kubectl("create", "namespace", self.shape.platform_namespace)
        kubectl("-n", self.shape.platform_namespace, "create", "serviceaccount", self.shape.hub_account)
        for each in (role, other):
            content = _object("ClusterRole", each.name) | {"rules": rights.rules(each)}
            kubectl("apply", "-f", "-", content=content)

    def _hub_config(self) -> Path:
        """Write a kubeconfig of the hub's own account, by way of the door."""
        account = ("create", "token", self.shape.hub_account, "--duration=2h")
        token = kubectl("-n", self.shape.platform_namespace, *account).strip()
        content = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        cluster = content["clusters"][0]["cluster"]
        authority = (
            cluster.get("certificate-authority-data")
            or base64.b64encode(Path(cluster["certificate-authority"]).read_bytes()).decode()
        )
        server = {"server": f"https://127.0.0.1:{self.door.port}", "certificate-authority-data": authority}
        file = self.state / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "hub",
                    "contexts": [{"name": "hub", "context": {"cluster": "test", "user": "hub"}}],
                    "clusters": [{"name": "test", "cluster": server}],
                    "users": [{"name": "hub", "user": {"token": token}}],
                }
            )
        )
        return file


def _object(kind: str, name: str, namespace: str = "", spec: Json | None = None) -> Json:
    groups = {"NetworkPolicy": "networking.k8s.io/v1", "ClusterRole": "rbac.authorization.k8s.io/v1"}
    place = {"namespace": namespace} if namespace else {}
    content: Json = {"apiVersion": groups[kind], "kind": kind, "metadata": {"name": name, **place}}
    return content | ({"spec": spec} if spec is not None else {})
