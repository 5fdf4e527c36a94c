"""Agents on every node of the test cluster, as a DaemonSet with no more rights than they need, and an api that they ask."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster import kubectl

# Where the test cluster's nodes have what a node of one's own has in /run/containerd and /var/lib/containerd.
TASKS, SNAPSHOTS, CGROUPS = "/run/torpor-kube", "/var/lib/torpor-kube/nodes", "/sys/fs/cgroup"
# Shared by all installations on a node, the chart's among them.
LEASES = "/run/torpor"
PATIENCE_S = 240.0
GRACE_S = 60

T = TypeVar("T")


@dataclass
class Api:
    """The api's side of captures: hands out each claim once to its node's agent, and keeps what is reported.

    ``cancels`` are operations whose heartbeats are told to give up; ``thaw`` is the answer to an agent that ends.
    """

    url: str
    given: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    thaw: bool = True
    asked_to_thaw: list[str] = field(default_factory=list)
    cancels: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def give(self, claim: dict[str, Any]) -> None:
        """Have the agent of the claim's node work on it."""
        with self.changed:
            self.given.append(claim)
            self.waiting.append(claim)
            self.changed.notify_all()

    def take(self, node: str, wait_s: float) -> dict[str, Any] | None:
        def mine() -> dict[str, Any] | None:
            return next((claim for claim in self.waiting if claim["node"] == node), None)

        with self.changed:
            self.changed.wait_for(lambda: mine() is not None, timeout=wait_s)
            claim = mine()
            if claim is not None:
                self.waiting.remove(claim)
            return claim

    def await_end(self, operation: str, within_s: float = 300.0) -> dict[str, Any]:
        """Return the result of a capture."""
        with self.changed:
            ended = self.changed.wait_for(lambda: operation in self.results or operation in self.failures, within_s)
        assert ended, f"{operation} did not end: {self.steps.get(operation)}"
        assert operation in self.results, self.failures[operation]
        return self.results[operation]

    def await_failure(self, operation: str, within_s: float = 120.0) -> dict[str, Any]:
        """Return why a capture failed."""
        with self.changed:
            assert self.changed.wait_for(lambda: operation in self.failures, within_s), self.steps.get(operation)
        return self.failures[operation]

    def await_step(self, operation: str, step: str, within_s: float = 120.0) -> None:
        """Return when an agent says that it is at ``step``."""

        def reached() -> bool:
            return any(said == step for _, said in self.steps.get(operation, []))

        with self.changed:
            assert self.changed.wait_for(reached, within_s), self.steps.get(operation)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        parts = path.strip("/").split("/")
        if parts[-1] == "component-tokens":
            return (200, {"token": "t"}) if body["component"] == "agent" and len(body["proof"]) > 100 else (401, {})
        if parts[-1] == "capture-claims" and method == "POST":
            claim = self.take(body["node"], min(body["wait_s"], 5.0))
            return (200, claim) if claim is not None else (204, None)
        operation, kind = parts[-2:]
        with self.changed:
            try:
                return 200, self._report(operation, kind, body)
            finally:
                self.changed.notify_all()

    def _report(self, operation: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        if kind == "progress":
            self.steps.setdefault(operation, []).append((time.monotonic(), body["step"]))
            return {"cancel": operation in self.cancels}
        if kind == "thawed":
            self.asked_to_thaw.append(operation)
            return {"thaw": self.thaw}
        self.ends[operation] = time.monotonic()
        (self.results if kind == "result" else self.failures)[operation] = body
        return {"stay_frozen": operation.startswith("sleep")}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of agents that went away while they waited."""


@contextlib.contextmanager
def serving(host: str) -> Iterator[Api]:
    """An api on this machine's address towards the nodes."""
    api: Api

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = api.answer(self.command, self.path, body)
            content = b"" if answer is None else json.dumps(answer).encode()
            with contextlib.suppress(OSError):
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_PUT = do_POST  # noqa: N815 - the name that the base class calls

    server = _Server((host, 0), Handler)
    api = Api(f"http://{host}:{server.server_port}/api/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Agents:
    """The DaemonSet of one test, in a namespace of its own."""

    namespace: str
    image: str
    api: Api

    def install(self) -> None:
        """Start an agent on every node and wait for them."""
        kubectl.apply(_daemon_set(self.namespace, self.image, self.api.url))
        kubectl.run(
            "rollout",
            "status",
            "daemonset/agent",
            "-n",
            self.namespace,
            f"--timeout={PATIENCE_S:.0f}s",
            within_s=PATIENCE_S,
        )

    def remove(self) -> None:
        """Delete the DaemonSet and wait until its pods are gone."""
        kubectl.run("delete", "daemonset", "agent", "-n", self.namespace, "--cascade=foreground", within_s=GRACE_S + 60)
        until(lambda: not kubectl.items("pods", "-n", self.namespace), "the agents' pods stay", GRACE_S + 30)

    def on(self, node: str) -> str:
        """Return the pod on a node."""
        return next(
            pod["metadata"]["name"]
            for pod in kubectl.items("pods", "-n", self.namespace)
            if pod["spec"]["nodeName"] == node and "deletionTimestamp" not in pod["metadata"]
        )

    def log(self, node: str, container: str = "agent") -> str:
        """Return what a container of the agent on a node said."""
        return kubectl.run("logs", "-n", self.namespace, self.on(node), "-c", container)


@contextlib.contextmanager
def installed(image: str, api: Api) -> Iterator[Agents]:
    """Agents on every node, asking ``api``."""
    namespace = f"hr-agents-{secrets.token_hex(3)}"
    kubectl.apply(_namespace(namespace, "privileged"))
    agents = Agents(namespace, image, api)
    try:
        agents.install()
        yield agents
    finally:
        kubectl.run("delete", "namespace", namespace, "--wait=false")


@contextlib.contextmanager
def tenant() -> Iterator[str]:
    """A namespace as tenants have it."""
    namespace = f"hr-tenant-{secrets.token_hex(3)}"
    kubectl.apply(_namespace(namespace, "restricted"))
    try:
        yield namespace
    finally:
        kubectl.run("delete", "namespace", namespace, "--wait=false")


def await_running(namespace: str, pod: str) -> dict[str, Any]:
    """Return the pod once its container runs."""

    def state() -> dict[str, Any] | None:
        found = kubectl.get("pod", pod, "-n", namespace)
        statuses = found["status"].get("containerStatuses") or [{}]
        return found if "running" in statuses[0].get("state", {}) else None

    try:
        return until(state, f"{pod} does not run", PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(kubectl.run("describe", "pod", pod, "-n", namespace)[-2000:]) from error


def container_of(pod: dict[str, Any]) -> str:
    """Return the id of a pod's container, as the API server has it."""
    return str(pod["status"]["containerStatuses"][0]["containerID"])


def freezer_state(container: str) -> str:
    """Return what the kernel says of a container, read on this machine."""
    plain = container.rpartition("/")[2]
    for folder, names, _files in os.walk(f"{CGROUPS}/freezer"):
        if plain in names:
            return (Path(folder) / plain / "freezer.state").read_text().strip()
    return "GONE"


def until(look: Callable[[], T], what: str, within_s: float) -> T:
    """Return what ``look`` sees as soon as it sees anything."""
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return seen


def _namespace(name: str, level: str) -> dict[str, Any]:
    labels = {"pod-security.kubernetes.io/enforce": level}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _daemon_set(namespace: str, image: str, url: str) -> dict[str, Any]:
    agent = _container("agent", image, ["torpor-agent", "--api-url", url, "--proof", "/proof/token"])
    agent["securityContext"]["capabilities"]["add"] = ["DAC_READ_SEARCH", "SYS_ADMIN"]
    agent["volumeMounts"] += [
        {"name": "proof", "mountPath": "/proof", "readOnly": True},
        {"name": "tasks", "mountPath": TASKS, "readOnly": True, "mountPropagation": "HostToContainer"},
        {"name": "snapshots", "mountPath": SNAPSHOTS, "readOnly": True},
    ]
    thaw = _container("thaw", image, ["torpor-thaw"])
    folders = {"tasks": TASKS, "snapshots": SNAPSHOTS, "cgroups": CGROUPS}
    volumes: list[dict[str, Any]] = [{"name": name, "hostPath": {"path": path}} for name, path in folders.items()]
    volumes.append({"name": "leases", "hostPath": {"path": LEASES, "type": "DirectoryOrCreate"}})
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "torpor"}}
    volumes.append({"name": "proof", "projected": {"sources": [token]}})
    spec = {"containers": [agent, thaw], "volumes": volumes, "terminationGracePeriodSeconds": GRACE_S}
    labels = {"app": "agent"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def _container(name: str, image: str, command: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "command": [*command, "--leases", "/leases/$(TORPOR_NODE)", "--cgroups", "/host/cgroup"],
        "env": [
            {"name": "TORPOR_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "TORPOR_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "leases", "mountPath": "/leases"}, {"name": "cgroups", "mountPath": "/host/cgroup"}],
    }
