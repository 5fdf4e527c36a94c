"""A release of the chart on the test cluster, with the images of this very code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import kubectl
from tests.cluster.site import ClusterSite

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "torpor"
NODE = "torpor-0"
REGISTRY = "TORPOR_KUBE_REGISTRY"
IMAGES = "TORPOR_TEST_IMAGES"
TAG = "dev"
INSTALLED_WITHIN = "8m"
GONE_WITHIN_S = 600
USERS = ("ada", "ben", "root")


@dataclass(frozen=True)
class Release:
    """A release's name and its own namespace, with the names that the chart makes of them."""

    name: str = "torpor"
    namespace: str = "torpor"

    @property
    def fullname(self) -> str:
        """What the names of its objects begin with."""
        return self.name if "torpor" in self.name else f"{self.name}-torpor"

    @property
    def agents(self) -> str:
        """The namespace of its agents."""
        return f"{self.namespace}-agent"

    @property
    def prefix(self) -> str:
        """What the names of its tenants' namespaces begin with."""
        return f"{self.namespace}-"


TORPOR = Release()


def images(registry: str) -> dict[str, Any]:
    """Return what was built: what the file of ``TORPOR_TEST_IMAGES`` says, else images built and pushed now."""
    given = os.environ.get(IMAGES)
    if given and Path(given).exists():
        return dict(json.loads(Path(given).read_text()))
    file = Path(given or ROOT / "test-results" / "images.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    build = [sys.executable, str(ROOT / "images" / "build.py"), "--registry", f"{registry}/torpor", "--insecure"]
    subprocess.run([*build, "--tag", TAG, "--json", str(file)], check=True, cwd=ROOT)
    return dict(json.loads(file.read_text()))


def by_digest(built: dict[str, Any], name: str) -> str:
    """Return the reference of a built image by its digest."""
    return f"{built[name]['reference'].rpartition(':')[0]}@{built[name]['digest']}"


def values(registry: str, built: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the values of a release with every image by digest, all of the platform on one node, served below ``path``."""
    on_node = {"nodeSelector": {"kubernetes.io/hostname": NODE}}
    return {
        "registry": {"host": registry, "insecure": True},
        "publicUrl": f"http://torpor.test{path}",
        "images": {
            "platform": by_digest(built, "platform"),
            "agent": by_digest(built, "agent"),
            "workspace": by_digest(built, "workspace"),
            "workspaceSpark": by_digest(built, "workspace-spark"),
        },
        "data": {"accessMode": "ReadWriteMany"},
        # A node has two cores: a workspace and its job have to be able to run apart.
        "homes": {"accessMode": "ReadWriteMany"},
        "server": on_node,
        "hub": on_node,
        "proxy": on_node,
        "importer": on_node,
        # Where this cluster's containerd keeps what is elsewhere below /run/containerd and /var/lib/containerd.
        "agent": {"containers": "/run/torpor-kube", "snapshots": "/var/lib/torpor-kube/nodes"},
    }


@contextmanager
def installed(path: str = "/", release: Release = TORPOR, **more: Any) -> Iterator[ClusterSite]:
    """Give an installed release, with ``more`` values over the usual; afterwards all of it but its volumes' data is removed."""
    registry = os.environ[REGISTRY]
    began = time.monotonic()
    built = images(registry)
    print(f"images: {time.monotonic() - began:.0f} s")
    await_gone(release)
    try:
        content = {**values(registry, built, path), **more}
        install(release, content)
        if content["data"].get("enabled", True) and not content["data"].get("source"):
            # As the notes of the first say: tenants mount the platform's data once its claim is bound.
            install(release, content)
        print(f"chart: installed after {time.monotonic() - began:.0f} s")
        yield site(release, path, registry)
    finally:
        uninstall(release)


def install(release: Release, content: dict[str, Any]) -> None:
    """Install the release, or bring it to these values, and wait until every pod of it is ready."""
    command = ["helm", "upgrade", "--install", release.name, str(CHART), "-n", release.namespace, "--create-namespace"]
    command += ["-f", "-", "--wait", "--timeout", INSTALLED_WITHIN]
    ended = subprocess.run(command, input=yaml.safe_dump(content), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stderr[-2000:]}\n{kubectl.run('get', 'pods', '-A', '-o', 'wide')}"


def site(release: Release, path: str, registry: str) -> ClusterSite:
    """Return the installed release, with a new password for each user."""
    address = kubectl.get("service", f"{release.fullname}-proxy", "-n", release.namespace)["spec"]
    url = f"http://{address['clusterIP']}:{address['ports'][0]['port']}{path}"
    passwords = {user: password(release, user) for user in USERS}
    return ClusterSite(url, release.namespace, release.prefix, registry, passwords, release.fullname)


def password(release: Release, user: str) -> str:
    """Return a new password of a user, as an admin gets one."""
    server = f"deploy/{release.fullname}-server"
    said = kubectl.run("exec", "-n", release.namespace, server, "--", "torpor", "users", "reset", user)
    return said.strip().splitlines()[-1]


def uninstall(release: Release) -> None:
    """Remove the release, the namespaces of its tenants and its kept claims; these go while other tests run."""
    # Its controller would make its tenants anew, and a namespace that finds an agent's pod ending waits for half of what that may take.
    server, agent = f"deployment/{release.fullname}-server", f"daemonset/{release.fullname}-agent"
    for program, namespace in ((server, release.namespace), (agent, release.agents)):
        delete = ["kubectl", "delete", program, "-n", namespace, "--cascade=foreground", "--timeout=60s"]
        subprocess.run(delete, check=False, capture_output=True)
    subprocess.run(["helm", "uninstall", release.name, "-n", release.namespace], check=False, capture_output=True)
    ours = [str(item["metadata"]["name"]) for item in namespaces(release)]
    # Tenants' volumes over the platform's data lie in no namespace, and are kept.
    kept = [str(item["metadata"]["name"]) for item in volumes(release, "-l", "app.kubernetes.io/managed-by=torpor")]
    if ours:
        kubectl.run("delete", "namespace", *ours, "--wait=false", "--ignore-not-found")
    if kept:
        kubectl.run("delete", "persistentvolume", *kept, "--wait=false", "--ignore-not-found")


def await_gone(release: Release) -> None:
    """Wait until what was removed of an earlier release of this name is gone."""
    found = [("namespace", item) for item in namespaces(release)]
    found += [("persistentvolume", item) for item in volumes(release)]
    left = [f"{kind}/{item['metadata']['name']}" for kind, item in found if "deletionTimestamp" in item["metadata"]]
    if left:
        kubectl.run("wait", "--for=delete", *left, f"--timeout={GONE_WITHIN_S}s", within_s=GONE_WITHIN_S + 10)


def namespaces(release: Release) -> list[Json]:
    """Return the release's own namespaces and those of its tenants."""
    return [item for item in kubectl.items("namespaces") if _is_of(release, item["metadata"]["name"])]


def volumes(release: Release, *selected: str) -> list[Json]:
    """Return the volumes that are bound to claims of the release or its tenants."""
    found = kubectl.items("persistentvolumes", *selected)
    return [item for item in found if _is_of(release, item["spec"].get("claimRef", {}).get("namespace", ""))]


def _is_of(release: Release, namespace: str) -> bool:
    return namespace == release.namespace or namespace.startswith(release.prefix)
