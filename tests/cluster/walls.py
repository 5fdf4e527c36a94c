"""Who comes through which door of a release: visitors that stand in its pods and elsewhere, and everything that they try."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import doorman, kubectl

Json = dict[str, Any]
PROGRAM = Path(doorman.__file__).read_text()
PYTHON = "/opt/torpor/bin/python"
# What a user may open beside the server, such as a Spark driver's page.
PLANTED = 9999
METADATA = "169.254.169.254"
STANDS_WITHIN_S, LEAVES_WITHIN_S = 60, 15
OPEN = "test-open"


@dataclass(frozen=True)
class Pod:
    """Where a visitor stands. The container has the name of the pod's component, but for bare pods."""

    namespace: str
    name: str
    container: str

    @property
    def address(self) -> str:
        """The pod's own."""
        return str(kubectl.get("pod", self.name, "-n", self.namespace)["status"]["podIP"])


@dataclass(frozen=True)
class Door:
    """What is tried. ``owner`` is the visitor that stands behind it, who needs no door to itself."""

    protocol: str
    host: str
    port: int
    owner: str = ""


class Visitor:
    """The doorman's program in a pod, as the user that the pod's own program runs as."""

    def __init__(self, pod: Pod, *arguments: str) -> None:
        command = ["kubectl", "exec", "-i", "-n", pod.namespace, pod.name, "-c", pod.container, "--"]
        command += [PYTHON, "-I", "-c", PROGRAM, *arguments]
        self.pod = pod
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == "here"

    def try_doors(self, doors: Iterable[Door]) -> list[str]:
        """Return what came of each door."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([(door.protocol, door.host, door.port) for door in doors]) + "\n")
        self._process.stdin.flush()
        return list(self._read())

    def close(self) -> None:
        """Leave."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(LEAVES_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"nobody stands in {self.pod} any more"
        return json.loads(line)


# What came of each visitor at each door, and the visitors who come through each door.
Seen = Mapping[tuple[str, str], str]
Table = Mapping[str, Collection[str]]


@dataclass
class Walls:
    """Visitors and doors by name. Those who are ``planted`` only answer."""

    visitors: dict[str, Visitor] = field(default_factory=dict)
    planted: list[Visitor] = field(default_factory=list)
    doors: dict[str, Door] = field(default_factory=dict)

    def look(self) -> dict[tuple[str, str], str]:
        """Return what came of each visitor at each door of others."""

        def tried(name: str) -> dict[tuple[str, str], str]:
            doors = {door: place for door, place in self.doors.items() if place.owner != name}
            found = self.visitors[name].try_doors(doors.values())
            return {(name, door): came for door, came in zip(doors, found, strict=True)}

        with ThreadPoolExecutor(len(self.visitors)) as pool:
            looks = list(pool.map(tried, self.visitors))
        return {pair: came for look in looks for pair, came in look.items()}

    def until(self, holds: Callable[[Seen], Any], within_s: float = 60) -> Seen:
        """Look until it holds, or the time is over; return the last look."""
        deadline = time.monotonic() + within_s
        while not holds(seen := self.look()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return seen

    def close(self) -> None:
        """Send all visitors away."""
        for visitor in (*self.visitors.values(), *self.planted):
            visitor.close()


def leaks(seen: Seen, table: Table) -> list[str]:
    """Return who came through a door that is not theirs by the table, or even had their connection taken."""
    return _pairs(seen, lambda visitor, door, came: visitor not in table[door] and came != doorman.REFUSED)


def barred(seen: Seen, table: Table) -> list[str]:
    """Return who got no answer at a door that is theirs by the table."""
    return _pairs(seen, lambda visitor, door, came: visitor in table[door] and came != doorman.ANSWERED)


def shut(seen: Seen) -> list[str]:
    """Return who got no answer at all, at whatever door."""
    return _pairs(seen, lambda visitor, door, came: came != doorman.ANSWERED)


def _pairs(seen: Seen, wanted: Callable[[str, str, str], bool]) -> list[str]:
    return [
        f"{visitor} -> {door}: {came}" for (visitor, door), came in sorted(seen.items()) if wanted(visitor, door, came)
    ]


@contextmanager
def without_policies(namespaces: Iterable[str]) -> Iterator[None]:
    """Allow everything in these namespaces meanwhile: policies add up."""
    spec: Json = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}
    made = [_policy(OPEN, namespace, spec) for namespace in namespaces]
    kubectl.apply(*made)
    try:
        yield
    finally:
        kubectl.delete(*made)


@contextmanager
def without(namespace: str, policy: str) -> Iterator[None]:
    """Take a policy away meanwhile."""
    kept = kubectl.get("networkpolicy", policy, "-n", namespace)
    kubectl.delete(kept)
    try:
        yield
    finally:
        kubectl.apply(_policy(policy, namespace, kept["spec"], kept["metadata"]["labels"]))


def bare(namespace: str, name: str, image: str, node: str, labels: Mapping[str, str] | None = None) -> Json:
    """Return a pod that needs next to nothing."""
    pod = kubectl.bare_pod(namespace, name, image, node)
    room = {"cpu": "10m", "memory": "128Mi"}
    pod["spec"]["containers"][0]["resources"] = {"requests": room, "limits": {"memory": room["memory"]}}
    pod["metadata"]["labels"] = dict(labels or {})
    return pod


def on_the_node(pod: Json) -> Json:
    """Return the pod with the node's own network, which it may change."""
    pod["spec"]["hostNetwork"] = True
    security = {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE"]}}
    pod["spec"]["containers"][0]["securityContext"] = security
    return pod


def stand(pods: Iterable[Json]) -> list[Pod]:
    """Make the pods and return where visitors can stand once they run."""
    made = list(pods)
    kubectl.apply(*made)
    found = [Pod(pod["metadata"]["namespace"], pod["metadata"]["name"], "bare") for pod in made]
    for pod in found:
        wanted = ("--for=condition=Ready", f"--timeout={STANDS_WITHIN_S}s")
        kubectl.run("wait", f"pod/{pod.name}", "-n", pod.namespace, *wanted)
    return found


def find(namespace: str, component: str, **labels: str) -> list[Pod]:
    """Return the running pods of a component."""
    wanted = {"app.kubernetes.io/component": component, **labels}
    selector = ",".join(f"{key}={value}" for key, value in wanted.items())
    found = kubectl.items("pods", "-n", namespace, "-l", selector, "--field-selector", "status.phase=Running")
    return [Pod(namespace, str(pod["metadata"]["name"]), component) for pod in found]


def service(namespace: str, name: str, port: int, owner: str = "") -> Door:
    """Return the door that a service is."""
    return Door("tcp", str(kubectl.get("service", name, "-n", namespace)["spec"]["clusterIP"]), port, owner)


def of_the_cluster() -> dict[str, Door]:
    """Return the doors of the control plane and of the nodes."""
    api = kubectl.get("endpoints", "kubernetes", "-n", "default")["subsets"][0]
    address, port = api["addresses"][0]["ip"], api["ports"][0]["port"]
    doors = {
        "the API server by its service": service("default", "kubernetes", 443),
        "the API server by its node": Door("tcp", address, port),
    }
    for node in kubectl.items("nodes"):
        (internal,) = [each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"]
        doors[f"the kubelet of {node['metadata']['name']}"] = Door("tcp", internal, 10250)
    return doors


def of_this_machine() -> dict[str, Door]:
    """Return the doors outside of the cluster; what stands for a store of data and for a database answers from now on."""
    host, _, port = os.environ["TORPOR_KUBE_REGISTRY"].partition(":")
    machine = os.environ["TORPOR_KUBE_HOST"]
    data, database = doorman.answer(0, machine), doorman.answer(0, machine)
    return {
        "a store of data": Door("tcp", machine, data),
        "the registry": Door("tcp", host, int(port)),
        "the database": Door("tcp", machine, database),
        "the database, by UDP": Door("udp", machine, database),
    }


def _policy(name: str, namespace: str, spec: Json, labels: Json | None = None) -> Json:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
