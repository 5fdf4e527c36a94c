"""Places with what a contract test needs around them: starting, saving, and looking at the truth."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import sys
import threading
import urllib.request
from abc import abstractmethod
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.cluster.objects import quota_counts
from tests.processes.workspace_runs import free_port, running, until
from torpor_hub.cluster import access, kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.domain import ids
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint, Fact, WorkspaceRun
from torpor_hub.oci import images
from torpor_hub.oci.layers import write_layer
from torpor_hub.oci.layout import Layout
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address
from torpor_hub.places.base import Place, Preparation
from torpor_hub.places.kubernetes import KubernetesPlace
from torpor_hub.places.process import ProcessPlace
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan, home_object, namespace_object, tenant_objects
from torpor_hub.podspecs.workspace import workspace_pod
from torpor_hub.processes import identity, launch, layering, trees

T = TypeVar("T")
GIB = 1024**3
POOL = Amount(4000, 8 * GIB)
PLATFORM = layering.here()
# The server of every place: it answers, starts a process of its own, and ends as it is told.
SERVER = """
import http.server, os, pathlib, signal, subprocess, sys
def end(number, frame):
    pathlib.Path("ended-politely").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
subprocess.Popen([sys.executable, "-c", "import time, sys; time.sleep(float(sys.argv[1]))", sys.argv[2]], start_new_session=True)
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/end/"):
            os._exit(int(self.path.removeprefix("/end/")))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[3], int(sys.argv[1])), Answers)
print("ready to answer", flush=True)
server.serve_forever()
"""


class World:
    """One place and one workspace in it. ``patience_s`` is how long anything in it may take."""

    patience_s = 10.0
    place: Place

    def __init__(self) -> None:
        self.workspace_id = ids.new("ws")
        self.token = f"{1000000 + os.getpid()}.{int.from_bytes(os.urandom(3), 'big')}"
        self.grants: dict[str, str] = {}

    @abstractmethod
    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` returns."""

    @abstractmethod
    def start(self) -> str:
        """Start the server as the hub does and return its handle."""

    @abstractmethod
    def is_there(self, handle: str) -> bool:
        """Return whether anything of that start exists, as the place's own tools say."""

    @abstractmethod
    def end_with(self, code: int) -> None:
        """Have the server end by itself."""

    @abstractmethod
    def save(self) -> Checkpoint:
        """Save an environment as the capture does and return the checkpoint."""

    @abstractmethod
    def lose_layer(self, checkpoint: Checkpoint) -> None:
        """Remove a part of the checkpoint behind everybody's back."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""

    def prepare(self, checkpoint: Checkpoint | None = None, *, fresh: bool = False) -> None:
        preparation = Preparation(
            self.workspace_id, "research", "ada", "ten-1", "usr-1", checkpoint=checkpoint, fresh=fresh
        )
        self.run(self.place.prepare(preparation))

    def fact(self) -> Fact | None:
        return self.run(self.place.facts()).get(self.workspace_id)

    def find(self) -> Fact | None:
        return self.run(self.place.find(self.workspace_id))

    def answering(self) -> bool:
        fact = self.fact()
        return fact is not None and fact.answering is True

    def until(self, condition: Any) -> bool:
        return until(condition, self.patience_s)

    def remove(self, handle: str, grace_s: float = 2.0) -> None:
        self.run(self.place.remove(self.workspace_id, handle, grace_s=grace_s))

    def granted(self, root_dir: str, home_dir: str, image: str = "") -> WorkspaceRun:
        return WorkspaceRun(
            workspace_id=self.workspace_id,
            grant_id=ids.new("gr"),
            name="analysis",
            tenant="research",
            user="ada",
            profile="small",
            amount=Amount(100, 256 * 1024**2),
            root_dir=root_dir,
            home_dir=home_dir,
            tenant_id="ten-1",
            user_id="usr-1",
            image=image,
        )


class ProcessWorld(World):
    """Local processes, and the state folder."""

    def __init__(self, state: Path) -> None:
        super().__init__()
        self.state = state
        self.layout = Layout(state / "images")
        self.place = ProcessPlace(state, self.layout, PLATFORM, POOL)
        self.port = free_port()

    @property
    def root(self) -> Path:
        return self.state / "workspaces" / self.workspace_id

    @property
    def env(self) -> Path:
        return self.root / "env"

    @property
    def home(self) -> Path:
        return self.state / "homes" / "research" / "ada"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(work)

    def start(self) -> str:
        run = self.granted(str(self.root), str(self.home))
        command = [sys.executable, "-c", SERVER, str(self.port), self.token, "127.0.0.1"]
        log = self.root / launch.LOG_FILE
        handle = launch.launch(run, command, {"PATH": "/usr/bin:/bin"}, self.port, log=log).handle()
        self.grants[handle] = run.grant_id
        return handle

    def processes(self) -> list[int]:
        return running(self.token)

    def is_there(self, handle: str) -> bool:
        return bool(self.processes())

    def end_with(self, code: int) -> None:
        _ask(f"http://127.0.0.1:{self.port}/end/{code}")

    def save(self) -> Checkpoint:
        repository = f"torpor/workspaces/research/{self.workspace_id}"
        with self.layout.blob_writer(repository) as blob:
            layer = write_layer(self.env, blob.write)
            blob.publish(layer.record.digest)
        config = images.image_config([layer.record], created="2026-01-01T00:00:00Z", architecture="amd64")
        self.layout.put_blob(repository, config)
        digest = self.layout.put_manifest(repository, "latest", images.image_manifest(config, [layer.record], {}))
        return Checkpoint(ids.new("ckp"), repository, digest, PLATFORM.version, "0.1.0")

    def lose_layer(self, checkpoint: Checkpoint) -> None:
        self.layer_file(checkpoint).unlink()

    def layer_file(self, checkpoint: Checkpoint) -> Path:
        layer = self.layout.read_image(checkpoint.repository, checkpoint.digest).layers[0]
        return self.state / "images/blobs/sha256" / layer.digest.removeprefix("sha256:")

    def contents(self) -> str:
        """Return a digest over everything in the environment: names, modes, times, content, link targets."""
        lines = []
        for path in sorted([self.env, *self.env.rglob("*")]):
            status = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            lines.append(repr((str(path), status.st_mode, status.st_mtime_ns, status.st_nlink, content)))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def close(self) -> None:
        for handle, grant_id in self.grants.items():
            trees.end_tree(identity.parse(handle), mark=(launch.GRANT_MARK, grant_id))


class PodWorld(World):
    """The test cluster, with one tenant and one member; the test's own client looks at the truth."""

    patience_s = 90.0
    program = "torpor/agent"

    def __init__(self, state: Path) -> None:
        super().__init__()
        self.host = os.environ.get("TORPOR_KUBE_REGISTRY", "")
        if not os.environ.get(access.CONFIG) or not self.host:
            pytest.skip(f"needs the test cluster: {access.CONFIG} and TORPOR_KUBE_REGISTRY are not set")
        self.shape = ClusterShape("torpor", namespace_prefix=f"hp-{secrets.token_hex(3)}-", registry_host=self.host)
        self.namespace = f"{self.shape.namespace_prefix}research"
        self.registry = Registry(Address(self.host, insecure=True))
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.cluster = Cluster(access.find())
        self.place = self.run(self._compose())
        self.run(self._make_tenant())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(200)

    def start(self) -> str:
        image = f"{self.host}/{self.program}@{self.registry.resolve(self.program, 'dev')}"
        run = self.granted("/opt/workspace", "/home/user", image)
        program = ["/opt/torpor/bin/python", "-c", SERVER]
        arguments = [str(self.shape.workspace_port), self.token, "0.0.0.0"]
        pod = workspace_pod(run, self.shape, args=arguments, environment={}, base_url="/", command=program)
        handle = str(self.run(self.cluster.create(pod))["metadata"]["uid"])
        self.grants[handle] = run.grant_id
        return handle

    def pod(self) -> dict[str, Any]:
        return self.run(self.cluster.get(kinds.POD, self.workspace_id, self.namespace))

    def is_there(self, handle: str) -> bool:
        pods = self.run(self.cluster.list(kinds.POD, self.namespace)).items
        return any(pod["metadata"]["uid"] == handle for pod in pods)

    def end_with(self, code: int) -> None:
        _ask(f"http://{self.pod()['status']['podIP']}:{self.shape.workspace_port}/end/{code}")

    def save(self) -> Checkpoint:
        repository = f"{self.shape.namespace_prefix}test/{self.workspace_id}"
        layer = json.dumps({"layer": self.token}).encode()
        record = images.LayerRecord(self.registry.put_blob(repository, layer), images.digest_of(layer), len(layer), 1)
        config = images.image_config([record], created="2026-01-01T00:00:00Z", architecture="amd64")
        self.registry.put_blob(repository, config)
        digest = self.registry.put_manifest(repository, "latest", images.image_manifest(config, [record], {}))
        return Checkpoint(ids.new("ckp"), repository, digest, PLATFORM.version, "0.1.0")

    def lose_layer(self, checkpoint: Checkpoint) -> None:
        layer = self.registry.read_image(checkpoint.repository, checkpoint.digest).layers[0]
        url = f"http://{self.host}/v2/{checkpoint.repository}/blobs/{layer.digest}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()

    def close(self) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.registry.close()

    async def _compose(self) -> KubernetesPlace:
        return KubernetesPlace(self.cluster, self.shape, self.registry, lambda: ["research"])

    async def _make_tenant(self) -> None:
        plan = TenantPlan("ten-1", "research", POOL, ("usr-1",))
        await self.cluster.create(namespace_object(plan, self.shape))
        for thing in tenant_objects(plan, self.shape):
            # This machine is no part of the platform, and its tests look into the pods.
            if thing["kind"] not in ("NetworkPolicy", "RoleBinding"):
                await self.cluster.apply(thing)
        await self.cluster.create(home_object(plan, "usr-1", self.shape))
        await quota_counts(self.cluster, self.namespace)

    async def _close(self) -> None:
        assert isinstance(self.place, KubernetesPlace)
        await self.place.aclose()
        await self.cluster.delete(kinds.NAMESPACE, self.namespace)
        await self.cluster.aclose()


def _ask(url: str) -> None:
    """Send a request whose answer never comes."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except OSError:
        return
