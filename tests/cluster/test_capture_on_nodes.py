"""Workspaces saved on one node of a real cluster and started on the other, by agents with no more rights than they need."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import kubectl, node_agents, release
from tests.cluster.node_agents import Agents, Api, container_of, freezer_state, until
from torpor_hub.oci import images
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address

pytestmark = pytest.mark.cluster

CHANGES = Path(__file__).with_name("changes.py")
PYTHON = "/opt/torpor/bin/python"
NODES = ("torpor-0", "torpor-1")
# A capture of next to nothing has to fit into the shorter one, also where the machine is busy.
THAW_AFTER_S, SOON_S = 120, 15
CREATED = "2026-11-21T00:00:00Z"
# What no layer can hold, and the top folder, which every start makes anew.
NOT_KEPT = {"/", "/opt/workspace/env/changes/.wh.user", "/opt/workspace/env/changes/socket"}


@pytest.fixture(scope="module")
def host() -> str:
    registry = os.environ.get(release.REGISTRY)
    if not registry or not os.environ.get("KUBECONFIG"):
        pytest.skip("needs the test cluster: KUBECONFIG and TORPOR_KUBE_REGISTRY are not set")
    return registry


@pytest.fixture(scope="module")
def built(host: str) -> dict[str, Any]:
    return release.images(host)


@pytest.fixture(scope="module")
def api(host: str) -> Iterator[Api]:
    with node_agents.serving(host.partition(":")[0]) as served:
        yield served


@pytest.fixture(scope="module")
def agents(built: dict[str, Any], api: Api) -> Iterator[Agents]:
    image = f"{built['agent']['reference'].rpartition(':')[0]}@{built['agent']['digest']}"
    with node_agents.installed(image, api) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def registry(host: str, api: Api) -> Iterator[Registry]:
    client = Registry(Address(host, insecure=True))
    yield client
    for claim in api.given:
        if claim["operation"] in api.results:
            client.delete_manifest(claim["repository"], api.results[claim["operation"]]["digest"])
    client.close()


@dataclass
class Workspace:
    """A pod that runs an image, and all that a claim has to say of it."""

    namespace: str
    name: str
    host: str
    repository: str
    pod: dict[str, Any]

    @property
    def container(self) -> str:
        return container_of(self.pod)

    @property
    def node(self) -> str:
        return str(self.pod["spec"]["nodeName"])

    def claim(self, kind: str = "sleep", parent: str | None = None, **more: Any) -> dict[str, Any]:
        operation = f"{kind}-{secrets.token_hex(4)}"
        return {
            "operation": operation,
            "kind": kind,
            "fence": 1,
            "workspace": self.name,
            "handle": self.pod["metadata"]["uid"],
            "root": "/opt/workspace",
            "source": "/opt/workspace/env",
            "repository": self.repository,
            "tag": f"{operation}-1",
            "parent_digest": parent,
            "annotations": {images.WORKSPACE: self.name, images.CREATED: CREATED},
            "thaw_after_s": THAW_AFTER_S,
            "heartbeat_s": 0.05,
            "node": self.node,
            "container": self.container,
            "base": "",
            "registry": {"host": self.host, "insecure": True, "username": "", "password": ""},
            **more,
        }

    def run(self, *command: str, stdin: str | None = None) -> str:
        return kubectl.run("exec", "-i", "-n", self.namespace, self.name, "--", *command, stdin=stdin, within_s=300)

    def change(self) -> None:
        self.run(PYTHON, "-I", "-", stdin=CHANGES.read_text())

    def tree(self) -> dict[str, Any]:
        seen = kubectl.tree(self.namespace, self.name, "bare")
        return {path: entry for path, entry in seen.items() if path not in NOT_KEPT}

    def works(self) -> bool:
        """Whether its processes run on: an exec into a frozen container fails at once."""
        with contextlib.suppress(AssertionError):
            return self.run("/bin/echo", "here").strip() == "here"
        return False

    def delete(self) -> None:
        kubectl.run("delete", "pod", self.name, "-n", self.namespace, "--grace-period=1", "--wait=true")


@dataclass
class Tenant:
    """A tenant's namespace, and the registry."""

    namespace: str
    host: str
    base: str

    def start(self, node: str, image: str | None = None, repository: str | None = None) -> Workspace:
        """Start a workspace on a node and wait until it runs; without an image, from the profile's."""
        name = f"ws-{secrets.token_hex(4)}"
        pod = kubectl.bare_pod(self.namespace, name, f"{self.host}/{image or self.base}", node)
        pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "50m", "memory": "64Mi"}}
        kubectl.apply(pod)
        running = node_agents.await_running(self.namespace, name)
        return Workspace(self.namespace, name, self.host, repository or f"hr-test/workspaces/{name}", running)

    def wake(self, slept: Workspace, digest: str, node: str) -> Workspace:
        return self.start(node, f"{slept.repository}@{digest}", slept.repository)


@pytest.fixture(scope="module")
def tenant(host: str, built: dict[str, Any]) -> Iterator[Tenant]:
    reference, digest = built["workspace"]["reference"], built["workspace"]["digest"]
    with node_agents.tenant() as namespace:
        yield Tenant(namespace, host, f"{reference.removeprefix(host + '/').rpartition(':')[0]}@{digest}")


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        path: (one.get(path), other.get(path)) for path in one.keys() | other.keys() if one.get(path) != other.get(path)
    }


def test_an_environment_sleeps_on_one_node_and_wakes_on_the_other_three_times_over(
    tenant: Tenant, agents: Agents, registry: Registry
) -> None:
    workspace, parent = tenant.start(NODES[0]), None
    for turn in range(3):
        workspace.change()
        before = workspace.tree()
        assert len(before) > 5000
        claim = workspace.claim(parent=parent)
        agents.api.give(claim)
        result = agents.api.await_end(claim["operation"])
        assert freezer_state(workspace.container) == "FROZEN"
        assert 0 < result["frozen_s"] <= THAW_AFTER_S
        assert sorted(result["skipped"]) == ([] if turn else SKIPPED), "what no layer holds is named"
        assert result["changed"]
        registry.verify(workspace.repository, result["digest"])
        workspace.delete()
        workspace = tenant.wake(workspace, result["digest"], NODES[(turn + 1) % 2])
        assert differences(before, workspace.tree()) == {}
        parent = result["digest"]
    claim = workspace.claim(parent=parent)
    agents.api.give(claim)
    result = agents.api.await_end(claim["operation"])
    assert (result["changed"], result["digest"]) == (False, parent)


SKIPPED = [
    "opt/workspace/env/changes/.wh.user (a layer means a deletion by such a name)",
    "opt/workspace/env/changes/socket (a socket)",
]


def test_what_is_large_is_copied_before_the_freeze(tenant: Tenant, agents: Agents, registry: Registry) -> None:
    workspace = tenant.start(NODES[1])
    workspace.run(
        "/bin/sh", "-c", "head -c 60000000 /dev/urandom > /opt/workspace/env/large; echo x > /opt/workspace/env/small"
    )
    before = workspace.tree()
    claim = workspace.claim()
    agents.api.give(claim)
    result = agents.api.await_end(claim["operation"])
    large, *_rest = result["layers"]
    assert large["size_bytes"] > 59_000_000
    awake = tenant.wake(workspace, result["digest"], NODES[0])
    assert differences(before, awake.tree()) == {}


def test_a_checkpoint_for_a_job_does_not_stop_the_workspace(tenant: Tenant, agents: Agents) -> None:
    workspace = tenant.start(NODES[0])
    workspace.run("/bin/sh", "-c", "echo one > /opt/workspace/env/one; echo two > /opt/workspace/env/two")
    claim = workspace.claim("checkpoint")
    agents.api.give(claim)
    first = agents.api.await_end(claim["operation"])
    assert (freezer_state(workspace.container), workspace.works()) == ("THAWED", True)
    workspace.run("/bin/rm", "/opt/workspace/env/one")
    before = workspace.tree()
    claim = workspace.claim(parent=first["digest"])
    agents.api.give(claim)
    second = agents.api.await_end(claim["operation"])
    workspace.delete()
    assert differences(before, tenant.wake(workspace, second["digest"], NODES[1]).tree()) == {}


def test_the_user_coming_back_in_the_middle_goes_on_at_once(tenant: Tenant, agents: Agents) -> None:
    workspace = tenant.start(NODES[0])
    workspace.run("/bin/sh", "-c", "head -c 250000000 /dev/urandom > /opt/workspace/env/large")
    claim = workspace.claim()
    agents.api.give(claim)
    agents.api.await_step(claim["operation"], "QUIESCE")
    agents.api.cancels.add(claim["operation"])
    assert agents.api.await_failure(claim["operation"])["code"] == "CANCELLED"
    assert (freezer_state(workspace.container), workspace.works()) == ("THAWED", True)


def test_a_claim_about_another_pod_s_container_saves_nothing(tenant: Tenant, agents: Agents) -> None:
    workspace, other = tenant.start(NODES[0]), tenant.start(NODES[0])
    claim = workspace.claim(container=other.container)
    agents.api.give(claim)
    failure = agents.api.await_failure(claim["operation"])
    assert "is of the pod" in failure["message"]
    assert (other.works(), freezer_state(other.container)) == (True, "THAWED")


def test_the_agent_s_end_leaves_nothing_frozen(tenant: Tenant, agents: Agents) -> None:
    """The DaemonSet goes while one container is frozen for its removal, which the platform has not begun."""
    workspace = tenant.start(NODES[1])
    workspace.run("/bin/sh", "-c", "echo x > /opt/workspace/env/x")
    claim = workspace.claim()
    agents.api.give(claim)
    agents.api.await_end(claim["operation"])
    assert freezer_state(workspace.container) == "FROZEN"
    agents.remove()
    assert claim["operation"] in agents.api.asked_to_thaw
    assert (freezer_state(workspace.container), workspace.works()) == ("THAWED", True)
    agents.install()


def test_what_nobody_thaws_the_second_path_does(tenant: Tenant, agents: Agents) -> None:
    """The agent's word is never needed: a lease that ends, and a freeze without a lease."""
    workspace, another = tenant.start(NODES[0]), tenant.start(NODES[0])
    claim = workspace.claim(thaw_after_s=SOON_S)
    agents.api.give(claim)
    agents.api.await_end(claim["operation"])
    assert freezer_state(workspace.container) == "FROZEN"
    until(lambda: freezer_state(workspace.container) == "THAWED", "nobody thawed it", 60)
    _freeze(another.container)
    until(lambda: freezer_state(another.container) == "THAWED", "nobody thawed it", 60)


def _freeze(container: str) -> None:
    plain = container.rpartition("/")[2]
    for folder, names, _files in os.walk(f"{node_agents.CGROUPS}/freezer"):
        if plain in names:
            (Path(folder) / plain / "freezer.state").write_text("FROZEN")


def test_the_agent_has_no_more_rights_than_it_needs(agents: Agents) -> None:
    pod = agents.on(NODES[0])
    for container, expected in (("agent", 1 << 2 | 1 << 21), ("thaw", 0)):
        status = kubectl.run("exec", "-n", agents.namespace, pod, "-c", container, "--", "cat", "/proc/self/status")
        held = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert (int(held["CapEff"], 16), held["NoNewPrivs"].strip()) == (expected, "1")
