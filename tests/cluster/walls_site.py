"""A release with people at work in it, doors to everything that they must not reach, and visitors who try them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import kubectl, walls
from tests.cluster.release import CHART, Release, installed
from tests.cluster.site import ClusterSite
from tests.cluster.walls import Door, Pod, Visitor, Walls
from tests.support.platform import until

Json = dict[str, Any]
RELEASE = Release("walls", "hw")
TENANTS = ("hw-research", "hw-operations")
# All namespaces with walls of the release's, and one that it knows nothing of.
OURS, ELSEWHERE = (RELEASE.namespace, RELEASE.agents, *TENANTS), f"{RELEASE.prefix}elsewhere"
MIB = 1024**2
API_PORT, SERVER_PORT = 8090, 8888
RUNS_WITHIN_S = 150
SIZE = {"cpu_milli": 100, "memory_bytes": 512 * MIB, "gpu_count": 0}
SEED = {
    "tenants": [{"name": "research", "title": "Research"}, {"name": "operations", "title": "Operations"}],
    "users": [
        {"name": "ada", "tenants": {"research": "member"}},
        {"name": "ben", "tenants": {"operations": "member"}},
        {"name": "root", "admin": True, "tenants": {"research": "admin"}},
    ],
    "profiles": [{"name": "tiny", "title": "Tiny", "default": True, "kinds": ["command"], **SIZE}],
}
WORKSPACES = {
    "the workspace": ("ada", "research"),
    "the neighbour": ("ada", "research"),
    "the stranger": ("ben", "operations"),
}
# What a job does before all else: it tries a door, says what came of it, and stays.
FIRST_ACT = """
import socket, sys, time
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
    print("reached", flush=True)
except OSError as error:
    print("refused", error, flush=True)
time.sleep(3600)
"""
PLATFORM = ("the hub", "the proxy", "the importer", "the agent")
USERS_CODE = (*WORKSPACES, "the job")
ANYWHERE = ("the hub", "an outsider")
# The visitors who come through each door while the policies are there. Whoever is not named is refused.
TABLE: Mapping[str, tuple[str, ...]] = {
    "names": (*USERS_CODE, *PLATFORM, "an outsider"),
    "the api": (*USERS_CODE, *PLATFORM),
    "the hub": (*WORKSPACES, "the proxy"),
    "the proxy": ANYWHERE,
    "the proxy's own api": ("the hub",),
    **{f"the server of {name}": ("the hub", "the proxy") for name in WORKSPACES},
    **{f"a port of {name}": () for name in (*USERS_CODE, *PLATFORM)},
    "the API server by its service": ANYWHERE,
    "the API server by its node": ANYWHERE,
    "the kubelet of torpor-0": ANYWHERE,
    "the kubelet of torpor-1": ANYWHERE,
    "the metadata of the machine": ANYWHERE,
    "the registry": (*ANYWHERE, "the agent"),
    # The one private place that the release's values open to the importer, beside what they open by default.
    "a store of data": (*ANYWHERE, "the importer"),
    "the database": ANYWHERE,
    "the database, by UDP": ANYWHERE,
}


@dataclass
class World:
    """The release, who walks in it, and the ids of what ada and ben have started there."""

    site: ClusterSite
    walls: Walls
    workspaces: dict[str, str]
    job: str
    data: Path

    def pod(self, name: str) -> Pod:
        """Return where a visitor stands."""
        return self.walls.visitors[name].pod


@contextmanager
def built(data: Path) -> Iterator[World]:
    """Give the release with everybody in place; its own data are in the folder ``data`` of this machine."""
    began = time.monotonic()
    with ExitStack() as stack:
        doors = walls.of_this_machine()
        site = stack.enter_context(installed(release=RELEASE, **_values(data, doors["a store of data"])))
        made = Walls()
        stack.callback(made.close)
        doors |= walls.of_the_cluster() | _of_the_platform()
        with ThreadPoolExecutor() as pool:
            planted = pool.submit(_plant, site, made)
            job = pool.submit(_submit, site, "python", "-c", FIRST_ACT, *_host_and_port(doors["the database"]))
            workspaces = _start_workspaces(site)
            job_id = job.result()
        pods = {name: Pod(_namespace(name), key, "workspace") for name, key in workspaces.items()} | _others()
        pods["an outsider"] = planted.result()
        made.doors |= doors | _of_pods(pods)
        _enter(made, pods)
        print(f"walls: everybody stands after {time.monotonic() - began:.0f} s")
        yield World(site, made, workspaces, job_id, data)


def server_stand_in(image: str) -> Pod:
    """Return a pod in the place of the server, which stands still: it answers at its port, behind its service and its policy."""
    labels = {"app.kubernetes.io/name": "torpor", "app.kubernetes.io/instance": RELEASE.name}
    labels["app.kubernetes.io/component"] = "server"
    pod = walls.bare(RELEASE.namespace, "stand-in", image, "torpor-0", labels)
    pod["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": API_PORT}]
    return walls.stand([pod])[0]


def platform_image() -> str:
    """Return the image of the platform's pods, by digest."""
    found = kubectl.get("deployment", f"{RELEASE.fullname}-server", "-n", RELEASE.namespace)
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


def _values(data: Path, store: Door) -> Json:
    """Return what is different from the usual release: little room, data of the platform's own, and a store of data."""
    usual = yaml.safe_load((CHART / "values.yaml").read_text())["importer"]["egress"]
    towards = {"to": [{"ipBlock": {"cidr": f"{store.host}/32"}}], "ports": [{"port": store.port}]}
    small = {"nodeSelector": {"kubernetes.io/hostname": "torpor-0"}, "resources": {"requests": {"cpu": "10m"}}}
    return {
        "seed": SEED,
        "homes": {"accessMode": "ReadWriteMany", "sizeBytes": 1024 * MIB},
        "data": {"flights": False, "source": {"hostPath": {"path": str(data)}}},
        **dict.fromkeys(("server", "hub", "proxy"), small),
        "importer": {**small, "egress": [*usual, towards]},
    }


def _start_workspaces(site: ClusterSite) -> dict[str, str]:
    """Return the ids of the workspaces, which run."""
    people = {user: site.client(user) for user, _ in WORKSPACES.values()}
    made = {}
    for number, (name, (user, tenant)) in enumerate(WORKSPACES.items()):
        body = {"name": f"walls-{number}", "tenant": tenant, "profile": "tiny", "desired": "running"}
        answer = people[user].post("/workspaces", json=body)
        assert answer.status_code == 201, answer.text
        made[name] = str(answer.json()["id"])

    def run() -> bool:
        rows = [people[user].get(f"/workspaces/{made[name]}").json() for name, (user, _) in WORKSPACES.items()]
        assert not [row for row in rows if row["status"]["phase"] == "FAILED"], [row["status"] for row in rows]
        return all(row["status"]["phase"] == "RUNNING" for row in rows)

    until(run, RUNS_WITHIN_S, "all workspaces run")
    return made


def _submit(site: ClusterSite, *argv: str) -> str:
    """Return the id of a job of ada's, which runs."""
    ada = site.client("ada")
    spec = {
        "kind": "command",
        "name": "walls",
        "tenant": "research",
        "code": {"type": "command", "argv": argv},
        "amount": SIZE,
    }
    answer = ada.post("/jobs", data={"spec": json.dumps(spec)})
    assert answer.status_code == 201, answer.text
    job = str(answer.json()["id"])
    until(lambda: ada.get(f"/jobs/{job}").json()["status"]["phase"] == "RUNNING", RUNS_WITHIN_S, "the job runs")
    return job


def _plant(site: ClusterSite, made: Walls) -> Pod:
    """Plant what answers at the address of clouds' metadata on every node; return a pod that no policy knows."""
    image = platform_image()
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ELSEWHERE}})
    bare = [walls.on_the_node(walls.bare(ELSEWHERE, f"metadata-{node}", image, node)) for node in site.nodes()]
    outsider, *on_nodes = walls.stand([walls.bare(ELSEWHERE, "outsider", image, site.nodes()[0]), *bare])
    made.planted += [Visitor(pod, "80", walls.METADATA) for pod in on_nodes]
    return outsider


def _others() -> dict[str, Pod]:
    """Return the pods of the platform and of the job, each the first of its kind."""
    components = {name: name.removeprefix("the ") for name in PLATFORM}
    spaces = {name: RELEASE.agents if name == "the agent" else RELEASE.namespace for name in PLATFORM}
    found = {name: walls.find(spaces[name], component)[0] for name, component in components.items()}
    return {**found, "the job": walls.find(_namespace("the job"), "job")[0]}


def _namespace(name: str) -> str:
    _, tenant = WORKSPACES.get(name, WORKSPACES["the workspace"])
    return f"{RELEASE.prefix}{tenant}"


def _of_the_platform() -> dict[str, Door]:
    def service(name: str, port: int, owner: str = "") -> Door:
        return walls.service(RELEASE.namespace, f"{RELEASE.fullname}-{name}", port, owner)

    return {
        "names": Door("name", f"{RELEASE.fullname}-server.{RELEASE.namespace}.svc", 0),
        "the api": service("server", API_PORT),
        "the hub": service("hub", 8081, "the hub"),
        "the proxy": service("proxy", 80, "the proxy"),
        "the proxy's own api": service("proxy-api", 8001, "the proxy"),
        "the metadata of the machine": Door("tcp", walls.METADATA, 80),
    }


def _of_pods(pods: Mapping[str, Pod]) -> dict[str, Door]:
    addresses = {name: pods[name].address for name in (*USERS_CODE, *PLATFORM)}
    servers = {f"the server of {name}": Door("tcp", addresses[name], SERVER_PORT, name) for name in WORKSPACES}
    planted = {f"a port of {name}": Door("tcp", address, walls.PLANTED, name) for name, address in addresses.items()}
    return servers | planted


def _enter(made: Walls, pods: Mapping[str, Pod]) -> None:
    with ThreadPoolExecutor(len(pods)) as pool:
        entered = pool.map(lambda pod: Visitor(pod, str(walls.PLANTED)), pods.values())
        made.visitors |= dict(zip(pods, entered, strict=True))


def _host_and_port(door: Door) -> tuple[str, str]:
    return door.host, str(door.port)
