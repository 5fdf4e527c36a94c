"""Runners with what a contract test needs around them: the api's stand-in, gates for jobs, and looks at the truth."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.cluster.objects import quota_counts
from tests.support.job_api import JobApi
from torpor_hub.cluster import access, kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint
from torpor_hub.oci.layout import Layout
from torpor_hub.oci.registry import Registry
from torpor_hub.oci.registry_auth import Address
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan, home_object, namespace_object, tenant_objects
from torpor_hub.processes import layering, trees
from torpor_hub.runners.base import MARK, JobFact, JobRun, Runner
from torpor_hub.runners.kubernetes import KubernetesRunner
from torpor_hub.runners.process import ProcessRunner

T = TypeVar("T")
MIB, GIB = 1024**2, 1024**3
SHARE = Amount(4000, 8 * GIB)
# What a job runs to stand still until a test opens its gate; then it ends with the given exit code.
WAITS = (
    "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2]))).recv(1); sys.exit(int(sys.argv[3]))"
)


class Gate:
    """A door that a job waits at."""

    def __init__(self, host: str) -> None:
        self._listener = socket.create_server((host, 0))
        self.host, self.port = host, self._listener.getsockname()[1]

    def open(self) -> None:
        visitor, _ = self._listener.accept()
        visitor.sendall(b"1")
        visitor.close()

    def close(self) -> None:
        self._listener.close()


class World:
    """One runner, which can be replaced as by a restart of the server. ``patience_s`` is how long anything may take."""

    patience_s = 20.0
    python = sys.executable
    amount = Amount(1000, GIB)
    host = "127.0.0.1"
    runner: Runner

    def __init__(self) -> None:
        self.api = JobApi(self.host)
        # Processes are found by their attempts' names, also those of another run of these tests beside this one.
        self.mark = secrets.token_hex(4)
        self._gates: list[Gate] = []
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    @abstractmethod
    def restart(self) -> None:
        """Replace the runner by a new one."""

    @abstractmethod
    def program(self) -> str:
        """Return Python text that makes ``runner`` anew in another process."""

    @abstractmethod
    def folder(self, run: JobRun) -> Path:
        """Return the attempt's folder, as this machine sees it while its wrapper lives."""

    def close(self) -> None:
        """Leave nothing behind."""
        for gate in self._gates:
            gate.close()
        self.api.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(200)

    def gate(self) -> Gate:
        self._gates.append(Gate(self.host))
        return self._gates[-1]

    def attempt(
        self, *argv: str, job: str = "one", number: int = 1, environment: Checkpoint | None = None, **more: Any
    ) -> JobRun:
        fields: dict[str, Any] = {
            "job_id": f"job-{self.mark}-{job}",
            "attempt": number,
            "ranks": 1,
            "kind": "command",
            "tenant": "research",
            "user": "ada",
            "amount": self.amount,
            "environment": environment,
            "token": "torpor.token",
            "reader_token": "torpor.reader",
            "api_url": f"{self.api.url}api/v1",
            "variables": {"TORPOR_GRACE_S": "0.3"},
            "tenant_id": "ten-1",
            "user_id": "usr-1",
        }
        run = JobRun(**{**fields, **self.particulars(), **more})
        amount = {"cpu_milli": run.amount.cpu_milli, "memory_bytes": run.amount.memory_bytes, "gpu_count": 0}
        self.api.add(run.name, {"type": "command", "argv": list(argv)}, amount=amount)
        return run

    def particulars(self) -> dict[str, Any]:
        """Return what only this world's runs have."""
        return {}

    def start(self, run: JobRun) -> str:
        return self.run(self.runner.start(run))

    def end(self, run: JobRun, handle: str, grace_s: float = 3) -> None:
        self.run(self.runner.end(run.name, handle, grace_s=grace_s))

    def fact(self, run: JobRun) -> JobFact | None:
        return self.run(self.runner.facts()).get(run.name)

    def wait(self, run: JobRun, condition: Callable[[JobFact | None], bool]) -> JobFact:
        found: list[JobFact | None] = [None]

        def holds() -> bool:
            found[0] = self.fact(run)
            return condition(found[0])

        assert self.until(holds), f"still {found[0]}"
        assert found[0] is not None
        return found[0]

    def ended(self, run: JobRun) -> JobFact:
        return self.wait(run, lambda fact: fact is not None and fact.alive is False)

    def until(self, condition: Callable[[], Any]) -> bool:
        deadline = time.monotonic() + self.patience_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def heard(self, condition: Callable[[], Any]) -> bool:
        """Return whether ``condition`` came true; it is asked at each report of a wrapper."""
        return self.api.wait(condition, self.patience_s)

    def processes(self, run: JobRun) -> list[int]:
        """Return the attempt's processes, the wrapper first. A test cluster's nodes share this machine's kernel."""
        return [stat.pid for stat in sorted(trees.marked(MARK, run.name), key=lambda stat: stat.started)]

    def kill_wrapper(self, run: JobRun) -> None:
        os.kill(self.processes(run)[0], signal.SIGKILL)


class ProcessWorld(World):
    """Local processes, and the state folder."""

    def __init__(self, state: Path) -> None:
        super().__init__()
        self.state = state
        self.layout = Layout(state / "images")
        self.restart()

    def restart(self) -> None:
        self.runner = ProcessRunner(self.state, self.layout, layering.here())

    def program(self) -> str:
        return f"""
from pathlib import Path
from tests.contract import runner_worlds
globals().update(vars(runner_worlds))
state = Path({str(self.state)!r})
runner = ProcessRunner(state, Layout(state / "images"), layering.here())
"""

    def folder(self, run: JobRun) -> Path:
        return self.state / "jobs" / run.name

    def close(self) -> None:
        for name, fact in self.run(self.runner.facts()).items():
            self.run(self.runner.end(name, fact.handle, grace_s=0))
        super().close()


class PodWorld(World):
    """The test cluster, with one tenant and one member."""

    patience_s = 90.0
    python = "python"
    amount = Amount(100, 256 * MIB)
    repository = "torpor/workspace"

    def __init__(self, state: Path) -> None:
        del state
        self.registry_host = os.environ.get("TORPOR_KUBE_REGISTRY", "")
        self.host = os.environ.get("TORPOR_KUBE_HOST", "")
        if not os.environ.get(access.CONFIG) or not self.registry_host or not self.host:
            pytest.skip(f"needs the test cluster: {access.CONFIG} and TORPOR_KUBE_… are not set")
        super().__init__()
        self.shape = ClusterShape(
            "torpor", namespace_prefix=f"hr-{secrets.token_hex(3)}-", registry_host=self.registry_host
        )
        self.namespace = f"{self.shape.namespace_prefix}research"
        self.cluster = Cluster(access.find())
        self.restart()
        self.run(self._make_tenant())

    def restart(self) -> None:
        self.runner = KubernetesRunner(self.cluster, self.shape, lambda: ["research"], patience_s=60)

    def program(self) -> str:
        return f"""
from tests.contract import runner_worlds
globals().update(vars(runner_worlds))
shape = ClusterShape("torpor", namespace_prefix={self.shape.namespace_prefix!r}, registry_host={self.registry_host!r})
runner = KubernetesRunner(Cluster(access.find()), shape, lambda: ["research"], patience_s=60)
"""

    def folder(self, run: JobRun) -> Path:
        return Path(f"/proc/{self.processes(run)[0]}/root{self.shape.scratch_dir}")

    def particulars(self) -> dict[str, Any]:
        return {"image": self.image(self.repository)}

    def image(self, repository: str) -> str:
        registry = Registry(Address(self.registry_host, insecure=True))
        digest = registry.resolve(repository, "dev")
        registry.close()
        return f"{self.registry_host}/{repository}@{digest}"

    def objects(self, kind: kinds.Kind) -> list[dict[str, Any]]:
        """Return all objects of a kind in the tenant's namespace."""
        return list(self.run(self.cluster.list(kind, self.namespace)).items)

    def pod(self, run: JobRun) -> dict[str, Any]:
        return next(pod for pod in self.objects(kinds.POD) if pod["metadata"]["labels"]["torpor/attempt"] == run.name)

    def close(self) -> None:
        self.run(self._close())
        super().close()

    async def _make_tenant(self) -> None:
        plan = TenantPlan("ten-1", "research", SHARE, ("usr-1",))
        await self.cluster.create(namespace_object(plan, self.shape))
        for thing in tenant_objects(plan, self.shape):
            # The api's stand-in is on this machine, which is no part of the platform.
            if thing["kind"] not in ("NetworkPolicy", "RoleBinding"):
                await self.cluster.apply(thing)
        await self.cluster.create(home_object(plan, "usr-1", self.shape))
        await quota_counts(self.cluster, self.namespace)

    async def _close(self) -> None:
        await self.cluster.delete(kinds.NAMESPACE, self.namespace)
        await self.cluster.aclose()
