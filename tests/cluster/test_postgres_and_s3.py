"""The chart with a PostgreSQL database and an S3 store: api and controller apart, and the same path through the api alone.

The same release is that of a cluster with GPUs.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

from tests.cluster import kubectl, object_store
from tests.cluster.object_store import ObjectStore
from tests.cluster.release import NODE, Release, installed
from tests.cluster.scene import KUBE, kube
from tests.cluster.site import ClusterSite
from tests.support import postgres, wheels
from tests.support.people import Person
from tests.support.platform import free_port, until
from torpor_hub.cluster.access import Access

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(postgres.programs() is None, reason="PostgreSQL's programs are not installed"),
]
RELEASE = Release("stores", "stores")
HOST = "TORPOR_KUBE_HOST"
NETWORKS = "198.18.0.0/15"
FOLDER = "platform"
GONE_WITHIN_S = 60
MIB = 1024**2
SIZE = {"cpu_milli": 250, "memory_bytes": 768 * MIB, "gpu_count": 0}
LITTLE = {"kinds": ["command"], **SIZE, "cpu_milli": 100}
GPU = {"name": "gpu", "title": "GPU", "description": "1 GPU.", **LITTLE, "gpu_count": 1}
TWO_GPUS = {"name": "two-gpus", "title": "Two GPUs", **LITTLE, "gpu_count": 2}
SEED = {
    "tenants": [{"name": "research", "title": "Research", "gpu_count": 2}],
    "users": [
        {"name": "ada", "tenants": {"research": "member"}},
        {"name": "ben", "tenants": {"research": "member"}},
        {"name": "root", "admin": True, "tenants": {"research": "admin"}},
    ],
    "profiles": [
        {"name": "tiny", "title": "Tiny", "default": True, "kinds": ["command"], **SIZE},
        TWO_GPUS,
    ],
}
NODES = ("torpor-0", "torpor-1")
SAYS_WITHIN_S = 60
SQLITE = "import pathlib; print([str(p) for p in pathlib.Path('/var/lib/torpor').rglob('*') if 'sqlite' in p.name])"


@dataclass
class Stores:
    """A release on a database and a store of objects, both beside the cluster, with what looks into them."""

    site: ClusterSite
    database: Engine
    objects: ObjectStore

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Return rows of the database, read beside the platform."""
        with self.database.connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]

    def blobs(self) -> dict[str, bytes]:
        """Return every blob of the platform by its key."""
        return self.objects.objects(FOLDER)


@pytest.fixture(scope="module")
def stores(reach: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    host, password = os.environ[HOST], secrets.token_hex(16)
    door = postgres.Door(host, free_port(), NETWORKS)
    with postgres.running(door) as by_socket, object_store.running(tmp_path_factory.mktemp("s3"), host) as objects:
        database = create_engine(by_socket.format(database="postgres"), isolation_level="AUTOCOMMIT")
        with database.connect() as connection:
            connection.execute(text(f"CREATE ROLE platform LOGIN PASSWORD '{password}'"))
            connection.execute(text("CREATE DATABASE torpor OWNER platform"))
        database.dispose()
        database = create_engine(by_socket.format(database="torpor"))
        url = f"postgresql+psycopg://platform:{password}@{host}:{door.port}/torpor"
        with a_gpu_on_each_node(), installed("/", RELEASE, **_values(url, objects)) as site:
            yield Stores(site, database, objects)
        database.dispose()


@contextmanager
def a_gpu_on_each_node() -> Iterator[None]:
    """Let the cluster have GPUs meanwhile; no other test has a pod that asks for one."""
    try:
        for node in NODES:
            give_gpus(node, 1)
        yield
    finally:
        for node in NODES:
            give_gpus(node, 0)


def give_gpus(node: str, count: int) -> None:
    """Let a node say that it has so many GPUs, where the program that runs the test cluster is there."""
    if KUBE.exists():
        kube("gpu", node.rpartition("-")[2], str(count))


def _values(database: str, objects: ObjectStore) -> dict[str, Any]:
    on_node = {"nodeSelector": {"kubernetes.io/hostname": NODE}}
    account = {"endpoint": objects.endpoint, "accessKeyId": objects.key, "secretAccessKey": objects.secret}
    return {
        "database": {"url": database},
        "blobs": {"url": f"s3://{objects.bucket}/{FOLDER}", "s3": {**account, "region": "us-east-1"}},
        "server": {**on_node, "replicas": 2, "resources": {"requests": {"cpu": "10m"}}},
        "data": {"enabled": False},
        "seed": SEED,
        "gpu": {"enabled": True, "profile": GPU},
    }


def test_the_path_is_the_same_and_all_that_is_kept_is_in_the_two_stores(stores: Stores, tmp_path: Path) -> None:
    package, value = f"p{secrets.token_hex(4)}", secrets.randbelow(10**6)
    ada = Person(stores.site, "ada")
    workspace = ada.create("stores", "research", "tiny")
    ada.reaches(workspace, "RUNNING")
    install(ada, workspace, wheels.make(tmp_path, package, "1.0", value))

    job = run_in_the_environment(ada, workspace, package)
    assert ada.job_log(job).strip() == f"job sees {value}"

    ada.wished(workspace, desired="asleep")
    ada.reaches(workspace, "ASLEEP")
    assert stores.site.left(workspace) == []
    until(lambda: not kubectl.items("pods", "-n", stores.site.tenant), GONE_WITHIN_S, "the job's pod is gone too")
    ada.wished(workspace, desired="running")
    ada.reaches(workspace, "RUNNING")
    with ada.kernel(workspace) as kernel:
        assert kernel.run(f"import {package}; print({package}.VALUE)").strip() == str(value)

    records_are_in_the_database(stores, workspace, job)
    blobs_are_in_the_store(stores, job, value)
    nothing_is_kept_in_a_pod(stores)


def install(person: Person, workspace: str, wheel: Path) -> None:
    """Upload a wheel as JupyterLab does, and install it in a notebook."""
    body = {"type": "file", "format": "base64", "content": base64.b64encode(wheel.read_bytes()).decode()}
    url = f"{person.server_url(workspace)}api/contents/{wheel.name}"
    httpx.put(url, json=body, headers={"Authorization": f"token {person.token}"}, timeout=60).raise_for_status()
    with person.kernel(workspace) as kernel:
        assert "Successfully installed" in kernel.run(f"%pip install --no-index --no-deps /home/user/{wheel.name}")


def run_in_the_environment(person: Person, workspace: str, package: str) -> str:
    """Return the id of a job that a notebook submitted, with code, log and result; it has succeeded."""
    cell = (
        f"import torpor\ndef look():\n    import {package}\n    print('job sees', {package}.VALUE)\n    return {package}.VALUE\n"
        f"job = torpor.submit(look)\nimport {package}\nassert job.result(timeout=150) == {package}.VALUE\nprint(job.id)"
    )
    with person.kernel(workspace) as kernel:
        return kernel.run(cell, within_s=180).strip().splitlines()[-1]


def records_are_in_the_database(stores: Stores, workspace: str, job: str) -> None:
    assert stores.rows("SELECT phase FROM workspaces WHERE id = :id", id=workspace) == [{"phase": "RUNNING"}]
    assert stores.rows("SELECT phase FROM jobs WHERE id = :id", id=job) == [{"phase": "SUCCEEDED"}]
    held = stores.rows("SELECT subject_id FROM reservations WHERE held_until IS NULL")
    assert held == [{"subject_id": workspace}]


def blobs_are_in_the_store(stores: Stores, job: str, value: int) -> None:
    blobs = stores.blobs()
    log = [content for key, content in sorted(blobs.items()) if key.startswith(f"logs/{job}/")]
    assert b"".join(log).decode().strip() == f"job sees {value}"
    assert {key.partition("/")[0] for key in blobs} == {"bundles", "logs", "results"}
    assert [key for key in blobs if key.startswith("results/")] == [f"results/{job}/1"]
    assert [key for key in blobs if key.endswith(".part")] == []


def nothing_is_kept_in_a_pod(stores: Stores) -> None:
    """The server has no claim, neither api nor controller has a database of its own; there are two pods of the api."""
    claims = {claim["metadata"]["name"] for claim in kubectl.items("pvc", "-n", RELEASE.namespace)}
    assert claims == {f"{RELEASE.fullname}-hub"}
    pods = [
        str(pod["metadata"]["name"])
        for component in ("server", "controller")
        for pod in kubectl.items("pods", "-n", RELEASE.namespace, "-l", f"app.kubernetes.io/component={component}")
    ]
    assert len(pods) == 3
    for pod in pods:
        assert kubectl.run("exec", "-n", RELEASE.namespace, pod, "--", "python", "-c", SQLITE).strip() == "[]", pod


@pytest.mark.skipif(not KUBE.exists(), reason=f"the program that runs the test cluster is not there: {KUBE}")
def test_a_gpu_is_one_persons_until_their_workspace_sleeps(stores: Stores) -> None:
    ada, ben = Person(stores.site, "ada"), Person(stores.site, "ben")
    two_gpus_that_no_node_has_fail_with_what_is_free(stores, ben)
    give_gpus("torpor-0", 0)
    first = ada.create("with-a-gpu", "research", "gpu")
    runs_with_the_gpu(stores, ada, first)
    until(lambda: stores.rows("SELECT gpu_count AS n FROM pools") == [{"n": 1}], SAYS_WITHIN_S, "one GPU is lent")
    wanted = {"name": "gpu-too", "tenant": "research", "profile": "gpu", "desired": "running"}
    refused = ben.client.post("/workspaces", json=wanted)
    assert refused.status_code == 409, refused.text
    assert "lends 1 GPU at once and holds 1 GPU; this needs 1 GPU more" in refused.json()["detail"]
    assert "gpu-too" not in [workspace["name"] for workspace in ben.get("/workspaces")["items"]]

    ada.wished(first, desired="asleep")
    ada.reaches(first, "ASLEEP")
    assert nothing_is_left_of(stores, first)
    second = ben.create("gpu-too", "research", "gpu")
    runs_with_the_gpu(stores, ben, second)
    ben.wished(second, desired="stopped", discard=True)
    ben.reaches(second, "STOPPED")
    assert nothing_is_left_of(stores, second)


def two_gpus_that_no_node_has_fail_with_what_is_free(stores: Stores, person: Person) -> None:
    workspace = person.create("both-gpus", "research", "two-gpus")
    until(lambda: "2 GPUs free." in told(person, "both-gpus"), SAYS_WITHIN_S, "the stream of the start says why")
    failed = person.reaches(workspace, "FAILED")
    assert failed["reason"] == "NO_ROOM", failed
    # Beside a GPU, other tests may have left a node too little of the rest.
    assert re.search(r"2 GPUs free\. The most that one node has free is (.* and )?1 GPU\.$", failed["message"]), failed
    assert failed["message"] in told(person, "both-gpus")
    assert failed["next_step"] == "Take a smaller profile, or put a workspace to sleep and start again."
    assert nothing_is_left_of(stores, workspace)


def runs_with_the_gpu(stores: Stores, person: Person, workspace: str) -> None:
    person.reaches(workspace, "RUNNING")
    pod = kubectl.get("pod", workspace, "-n", stores.site.tenant)["spec"]
    assert (pod["nodeName"], pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) == ("torpor-1", "1")


def told(person: Person, server: str) -> str:
    """Return all that the stream of a start's progress has said so far, as its owner's browser reads it."""
    url = f"{person.site.url}hub/api/users/{person.name}/servers/{server}/progress"
    headers = {"Authorization": f"token {person.token}"}
    with httpx.stream("GET", url, headers=headers, timeout=SAYS_WITHIN_S) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    return "\n".join(str(json.loads(line).get("message", "")) for line in lines)


def nothing_is_left_of(stores: Stores, workspace: str) -> bool:
    """Whether a workspace has neither a pod nor anything reserved."""
    held = stores.rows("SELECT id FROM reservations WHERE subject_id = :id AND held_until IS NULL", id=workspace)
    return not held and not stores.site.left(workspace)
