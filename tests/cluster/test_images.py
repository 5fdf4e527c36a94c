"""The images as they are built: whole from inside, the same when built again, and at home in a restricted pod."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from images import plan
from tests.cluster import kubectl
from torpor_hub.cluster.access import Access

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
NODE = "torpor-1"
PATIENCE_S = 180
PORT = 8888
ENTRY = ["/opt/torpor/bin/python", "-I", "-m", "torpor_hub.programs.workspace"]
EMPTY = ("/opt/workspace/runtime", "/opt/workspace/logs", "/tmp", "/home/user")


def build(file: Path, *arguments: str) -> dict[str, Any]:
    """Return what ``images/build.py`` says that it built and pushed."""
    registry = ["--registry", f"{os.environ['TORPOR_KUBE_REGISTRY']}/torpor", "--insecure", "--tag", "test"]
    command = [sys.executable, "images/build.py", *registry, "--json", str(file), *arguments]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout[-4000:]
    return dict(json.loads(file.read_text()))


@pytest.fixture(scope="module")
def built(reach: Access, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All images, each after its own checks from inside."""
    return build(tmp_path_factory.mktemp("images") / "images.json", "--verify")


@pytest.fixture
def namespace(reach: Access) -> Iterator[str]:
    """A namespace that takes only what Pod Security calls restricted."""
    name = f"hi-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    kubectl.run("delete", "namespace", name, "--wait=false")


@pytest.fixture
def hub() -> Iterator[str]:
    """What a server asks of its hub when it starts; returns the address of its API."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"version": "6.1.1"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that the base class calls

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    host = os.environ["TORPOR_KUBE_HOST"]
    server = ThreadingHTTPServer((host, 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{host}:{server.server_address[1]}/hub/api"
    server.shutdown()
    server.server_close()


def test_what_is_built_again_is_the_same_and_costs_seconds(built: dict[str, Any], tmp_path: Path) -> None:
    again = build(tmp_path / "again.json")
    assert set(again) == set(plan.IMAGES)
    assert all(image["cached"] for image in again.values())
    assert {name: image["digest"] for name, image in again.items()} == {
        name: image["digest"] for name, image in built.items()
    }


@pytest.mark.parametrize("name", ["workspace", "workspace-spark"])
def test_a_restricted_pod_serves_jupyterlab_and_leaves_no_zombies(
    name: str, built: dict[str, Any], namespace: str, hub: str
) -> None:
    kubectl.apply(workspace_pod(namespace, reference(built[name]), hub))
    address = until(lambda: kubectl.get("pod", "lab", "-n", namespace)["status"].get("podIP"))
    until(lambda: answers(f"http://{address}:{PORT}/user/ada/api"))
    assert within(namespace, "cat", "/proc/1/comm") == "tini"
    within(namespace, "sh", "-c", "(sleep 0.1 &)")
    until(lambda: "sleep" not in within(namespace, "ps", "-eo", "comm"))
    assert within(namespace, "id", "-u") == "1000"
    assert (
        within(namespace, "sh", "-c", "touch /opt/torpor/x || touch /opt/workspace/bin/x || echo refused") == "refused"
    )
    assert within(namespace, "sh", "-c", "touch /opt/workspace/env/x && pip --version").startswith("pip ")


def test_a_server_opens_over_a_home_that_cannot_be_written_and_says_so(
    built: dict[str, Any], namespace: str, hub: str
) -> None:
    pod = workspace_pod(namespace, reference(built["workspace"]), hub)
    home = next(mount for mount in pod["spec"]["containers"][0]["volumeMounts"] if mount["mountPath"] == "/home/user")
    home["readOnly"] = True
    kubectl.apply(pod)
    address = until(lambda: kubectl.get("pod", "lab", "-n", namespace)["status"].get("podIP"))
    until(lambda: answers(f"http://{address}:{PORT}/user/ada/api"))
    assert "/home/user cannot be written (Read-only file system)" in kubectl.run("logs", "-n", namespace, "lab")


def reference(image: dict[str, Any]) -> str:
    return f"{image['reference'].rpartition(':')[0]}@{image['digest']}"


def workspace_pod(namespace: str, image: str, hub: str) -> dict[str, Any]:
    pod = kubectl.bare_pod(namespace, "lab", image, NODE)
    container = pod["spec"]["containers"][0]
    variables = {
        "JUPYTERHUB_API_URL": hub,
        "JUPYTERHUB_API_TOKEN": "token",
        "JUPYTERHUB_USER": "ada",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ada",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/",
        "JUPYTERHUB_SERVICE_URL": f"http://0.0.0.0:{PORT}/user/ada/",
    }
    container |= {
        "command": ENTRY,
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        "env": [{"name": variable, "value": value} for variable, value in variables.items()],
        "volumeMounts": [{"name": f"empty-{number}", "mountPath": path} for number, path in enumerate(EMPTY)],
    }
    pod["spec"]["volumes"] = [{"name": f"empty-{number}", "emptyDir": {}} for number, _ in enumerate(EMPTY)]
    pod["spec"]["securityContext"] = {"fsGroup": 1000}
    return pod


def within(namespace: str, *command: str) -> str:
    """Return what a command prints in the pod's container."""
    return kubectl.run("exec", "-n", namespace, "lab", "--", *command).strip()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)
    return found
