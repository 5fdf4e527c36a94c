"""Workspaces as pods on a real cluster, driven by the controller's own loops."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.tenant_site import kubectl, until
from tests.cluster.workspace_site import PYTHON, WorkspaceSite
from torpor_hub.cluster.access import Access
from torpor_hub.services import captures, operations, workspaces
from torpor_hub.stores.base import Store

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
Record = Callable[[str, Any], None]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path, reach: Access) -> Iterator[WorkspaceSite]:
    folder = tmp_path_factory.mktemp("site")
    file = folder / "torpor.sqlite"
    file.write_bytes(migrated_sqlite.read_bytes())
    store = Store(f"sqlite:///{file}")
    made = WorkspaceSite(folder, store, reach)
    try:
        made.start()
        yield made
    finally:
        made.close()
        store.close()


@pytest.fixture
def spoiled(site: WorkspaceSite) -> Iterator[WorkspaceSite]:
    yield site
    site.spoil(lambda _: None)


def container(pod: Json) -> Json:
    made: Json = pod["spec"]["containers"][0]
    return made


def test_a_workspace_runs_the_profiles_image_by_digest_and_its_record_says_where(site: WorkspaceSite) -> None:
    key = site.run("first")
    row, pod = site.platform.row(key), site.pod(key)
    assert pod is not None
    assert (row.handle, row.node) == (pod["metadata"]["uid"], pod["spec"]["nodeName"])
    assert f"containerd://{row.container}" == pod["status"]["containerStatuses"][0]["containerID"]
    assert container(pod)["image"].endswith(f"/profiles/small@{site.digest()}")
    assert site.platform.held() == 100
    site.platform.wish(key, desired="stopped", discard=True)
    site.phase(key, "STOPPED")
    assert (site.pod(key), site.platform.held()) == (None, 0)


def test_a_pod_that_somebody_deleted_is_lost_and_the_next_start_works(site: WorkspaceSite) -> None:
    key = site.run("second")
    kubectl("-n", site.namespace(), "delete", "pod", key, "--grace-period=1")
    shown = site.phase(key, "STOPPED")
    assert shown["reason"] in ("POD_DELETED", "LOST"), shown
    assert "was never saved" in shown["lost"]
    assert site.platform.held() == 0
    site.platform.wish(key, desired="running")
    site.phase(key, "RUNNING")
    site.platform.wish(key, desired="stopped", discard=True)
    site.phase(key, "STOPPED")


def without_image(pod: Json) -> None:
    container(pod)["image"] = container(pod)["image"].rpartition("@")[0] + "@sha256:" + "0" * 64


def on_no_node(pod: Json) -> None:
    pod["spec"]["nodeSelector"] = {"torpor/none": "such"}


def that_ends(pod: Json) -> None:
    container(pod)["command"] = [PYTHON, "-c", "print('no config', flush=True); raise SystemExit(3)"]


def that_eats(pod: Json) -> None:
    container(pod)["command"] = [PYTHON, "-c", "held = [bytearray(10**7) for _ in range(1000)]"]


def without_package(pod: Json) -> None:
    container(pod)["command"] = [PYTHON, "-c", "import not_there"]


FAILURES = {
    "image": (without_image, "IMAGE_MISSING"),
    "node": (on_no_node, "NO_NODE"),
    "crash": (that_ends, "CRASHED"),
    "memory": (that_eats, "OUT_OF_MEMORY"),
    "package": (without_package, "BROKEN_ENVIRONMENT"),
}


@pytest.mark.parametrize(("spoil", "reason"), FAILURES.values(), ids=FAILURES.keys())
def test_a_start_that_cannot_succeed_says_why_and_leaves_nothing(
    spoiled: WorkspaceSite, spoil: Callable[[Json], None], reason: str, record_property: Record
) -> None:
    site = spoiled
    site.spoil(spoil)
    key = site.platform.create(f"f-{reason.lower().replace('_', '-')}")
    site.platform.wish(key, desired="running")
    until(lambda: site.pod(key), "its pod is made")
    made = time.monotonic()
    shown = site.phase(key, "FAILED")
    record_property(f"{reason}: failed_after_pod_s", round(time.monotonic() - made, 2))
    assert shown["reason"] == reason, shown
    assert shown["next_step"]
    assert (site.pod(key), site.platform.held()) == (None, 0)
    if reason == "CRASHED":
        assert "no config" in site.platform.row(key).last_log
        assert "exit code 3: no config" in shown["message"]
    site.spoil(lambda _: None)
    # The hub repeats its request until it was told of the failure, once.
    site.platform.wish(key, desired="running")
    site.phase(key, "RUNNING")
    site.platform.wish(key, desired="stopped", discard=True)
    site.phase(key, "STOPPED")


def sleep(site: WorkspaceSite, key: str) -> str:
    """Put a workspace to sleep as its node's agent does, and return the digest that it is saved under."""
    site.platform.wish(key, desired="asleep")
    node = site.platform.row(key).node
    claim = site.platform.do(lambda tx: captures.claim(tx, site.settings, "agent", node))
    assert claim is not None
    digest = site.put_checkpoint(claim.repository)
    result = captures.Result(digest, [{"digest": digest, "size_bytes": 1}], 1, True, [], frozen_s=600)
    assert site.platform.do(
        lambda tx: captures.finish(tx, site.settings, claim.operation, claim.fence, result), "agent"
    )
    site.phase(key, "ASLEEP")
    return digest


def test_a_sleep_frees_everything_and_a_wake_runs_what_was_saved(site: WorkspaceSite) -> None:
    key = site.run("sleeper")
    begun = site.platform.row(key).handle
    first = sleep(site, key)
    assert (site.pod(key), site.platform.held()) == (None, 0)
    site.platform.wish(key, desired="running")
    site.phase(key, "RUNNING")
    pod = site.pod(key)
    assert pod is not None
    assert container(pod)["image"].endswith(f"/workspaces/research/{key}@{first}")
    assert pod["metadata"]["uid"] != begun
    second = sleep(site, key)
    repository = f"{site.settings.registry.prefix}/workspaces/research/{key}"
    site.registry.delete_manifest(repository, second)
    site.platform.wish(key, desired="running")
    shown = site.phase(key, "RUNNING")
    pod = site.pod(key)
    assert pod is not None
    assert container(pod)["image"].endswith(f"@{first}"), "the lost checkpoint was not replaced by the one before"
    assert "an older one was used" in shown["notice"]
    site.platform.do(lambda tx: workspaces.wish_deleted(tx, operations.workspace_of(tx, key)))
    until(lambda: site.pod(key) is None, "a deleted workspace's pod is gone")


NODE = "torpor-1"


@pytest.fixture
def bound_late(reach: Access) -> Iterator[str]:
    """A class whose volumes are bound to one node at their first use, and two such volumes."""
    name = f"hp-{secrets.token_hex(3)}"
    at = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}]
    volumes = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{name}-{number}"},
            "spec": {
                "capacity": {"storage": "20Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": name,
                "hostPath": {"path": f"/tmp/{name}-{number}", "type": "DirectoryOrCreate"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": at}},
            },
        }
        for number in range(2)
    ]
    made: Json = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    content = {"apiVersion": "v1", "kind": "List", "items": [made, *volumes]}
    kubectl("apply", "-f", "-", content=content)
    yield name
    kubectl("delete", "--wait=false", "-f", "-", content=content)


def test_a_home_that_is_bound_to_a_node_at_its_first_use_is_healthy_before_that(
    tmp_path: Path, store: Store, reach: Access, bound_late: str
) -> None:
    homes = {"storage_class": bound_late}
    site = WorkspaceSite(tmp_path, store, reach, cluster={"homes": homes})
    try:
        site.start()
        claim = f"home-{site.user_id('ada')}"
        assert (site.get("persistentvolumeclaim", claim) or {})["status"]["phase"] == "Pending"
        key = site.run("first")
        assert site.platform.row(key).node == NODE
        sleep(site, key)
        site.platform.wish(key, desired="running")
        site.phase(key, "RUNNING")
        assert site.platform.row(key).node == NODE
    finally:
        site.close()
