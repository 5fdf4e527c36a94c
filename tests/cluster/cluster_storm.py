"""Faults of a cluster in an order and at moments drawn from a seed: programs killed, pods deleted, a registry that fails."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import kubectl
from tests.cluster.cluster_people import Resident, Town
from tests.faults.storm import under_way
from tests.faults.workload import BROKEN
from tests.support.platform import until

Json = dict[str, Any]
PROGRAMS = ("hub", "proxy", "server", "importer", "agent")
PODS = ("workspace", "job")
REGISTRY = ("registry gone", "registry full", "registry lying")
KINDS = (*PROGRAMS, *PODS, *REGISTRY)
CGROUPS = Path("/sys/fs/cgroup/pids/torpor-kube")
# What makes a fault worth most: it comes while this is going on, if that comes soon.
MOMENTS = {
    "hub": ("start/", "ws/WAKING"),
    "proxy": ("start/", "ws/WAKING"),
    "server": ("sleep/", "start/", "job/"),
    "importer": ("import/",),
    "agent": ("sleep/", "checkpoint/"),
    "workspace": ("ws/RUNNING", "sleep/", "start/LAUNCH"),
    "job": ("job/RUNNING",),
    **dict.fromkeys(REGISTRY, ("sleep/", "checkpoint/")),
}
MOMENT_S, MOMENT_WITHIN_S = 2.0, 8.0
HELPED_AFTER_S, VICTIM_WITHIN_S, BACK_WITHIN_S = 3.0, 45.0, 90.0
REGISTRY_S = (3.0, 8.0)
# A container that was killed often waits long for its next start; a new pod does not.
RESTARTS = 2


@dataclass(frozen=True)
class Fault:
    """One fault: when, what, how, and what was under way."""

    at_s: float
    kind: str
    how: str
    step: str


@dataclass(frozen=True)
class Death:
    """A workspace's pod deleted behind the back, and what was saved of it then."""

    workspace: str
    uid: str
    checkpoint: str | None
    at: float


@dataclass
class Storm:
    """A run of faults over a release under load. ``ended_at`` is when the last was lifted."""

    town: Town
    lives: list[Resident]
    draw: random.Random
    faults: list[Fault] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    ended_at: float = 0.0

    def blow(self, count: int) -> None:
        """Strike ``count`` times; each time the platform stands up again before the next."""
        for kind in plan(count, self.draw):
            time.sleep(self.draw.random() * MOMENT_S)
            self._await_moment(kind)
            if kind in PROGRAMS:
                self._strike_program(kind)
            elif kind in PODS:
                self._strike_pod(kind)
            else:
                self._strike_registry(kind)
        self.ended_at = time.monotonic()

    def table(self) -> str:
        """Return all faults as a table."""
        lines = [f"{n:>3}  {f.at_s:>6.1f} s  {f.kind:<15} {f.how:<44} {f.step}" for n, f in enumerate(self.faults, 1)]
        return "\n".join([*lines, f"not found in time: {', '.join(self.missed) or 'none'}"])

    def _await_moment(self, kind: str) -> None:
        _within(lambda: any(moment in under_way(self.town) for moment in MOMENTS[kind]), MOMENT_WITHIN_S)
        time.sleep(self.draw.random() * 0.3)

    def _note(self, kind: str, how: str) -> None:
        self.faults.append(Fault(time.monotonic() - self.started, kind, how, under_way(self.town)))

    def _strike_program(self, component: str) -> None:
        pods = [pod for pod in self.town.programs(component) if _is_ready(pod)]
        pod = self.draw.choice(sorted(pods, key=lambda each: str(each["metadata"]["name"])))
        status = next(each for each in pod["status"]["containerStatuses"] if each["name"] == component)
        if self.draw.random() < 0.5 and status["restartCount"] < RESTARTS:
            self._note(component, "process killed")
            kill_container(status["containerID"])
        else:
            self._note(component, "pod deleted")
            delete_pod(pod)
        old = str(status["containerID"])
        until(lambda: self._is_back(component, len(pods), old), BACK_WITHIN_S, f"the {component} is back")

    def _is_back(self, component: str, count: int, old: str) -> bool:
        ready = [pod for pod in self.town.programs(component) if _is_ready(pod)]
        there = {str(each.get("containerID")) for pod in ready for each in pod["status"]["containerStatuses"]}
        return len(ready) >= count and old not in there

    def _strike_pod(self, component: str) -> None:
        found: list[Json] = []

        def look() -> bool:
            found[:] = [pod for pod in self._users_pods(component) if pod["status"].get("phase") == "Running"]
            return bool(found)

        if not _within(look, HELPED_AFTER_S):
            self._help(component)
        if not _within(look, VICTIM_WITHIN_S):
            self.missed.append(component)
            return
        pod = self.draw.choice(sorted(found, key=lambda each: str(each["metadata"]["name"])))
        if component == "workspace":
            self._note_death(pod)
        self._note(component, f"pod {pod['metadata']['name']} deleted")
        delete_pod(pod, grace_s=self.draw.choice((0, 1)))

    def _help(self, component: str) -> None:
        """Have everybody begin what a victim can be found among."""
        for life in self.lives:
            with contextlib.suppress(*BROKEN):
                if component == "job":
                    life.submit_long()
                else:
                    life.wake()

    def _users_pods(self, component: str) -> Iterator[Json]:
        for namespace in self.town.namespaces():
            yield from kubectl.items("pods", "-n", namespace, "-l", f"app.kubernetes.io/component={component}")

    def _note_death(self, pod: Json) -> None:
        key = str(pod["metadata"]["labels"]["torpor/workspace"])
        saved = self.town.rows("SELECT checkpoint_id FROM workspaces WHERE id = ?", key)[0]["checkpoint_id"]
        self.deaths.append(Death(key, str(pod["metadata"]["uid"]), saved, time.time()))

    def _strike_registry(self, kind: str) -> None:
        door, for_s = self.town.door, self.draw.uniform(*REGISTRY_S)
        self._note(kind, f"for {for_s:.0f} s")
        before = door.faults
        door.be("gone" if kind.endswith("gone") else "full" if kind.endswith("full") else "lying")
        time.sleep(for_s)
        # A full or lying registry that nobody asks is none.
        if not kind.endswith("gone"):
            _within(lambda: door.faults > before, MOMENT_WITHIN_S)
        door.be("open")


def plan(count: int, draw: random.Random) -> list[str]:
    """Return what happens, in order: no kind again before all others have been drawn."""
    chosen: list[str] = []
    while len(chosen) < count:
        chosen += draw.sample(KINDS, len(KINDS))
    return chosen[:count]


def delete_pod(pod: Json, grace_s: int = 0) -> None:
    """Delete exactly this pod, as somebody does who has nothing to do with the platform."""
    meta = pod["metadata"]
    how = ("--grace-period=0", "--force") if grace_s == 0 else (f"--grace-period={grace_s}",)
    kubectl.run("delete", "pod", meta["name"], "-n", meta["namespace"], "--wait=false", "--ignore-not-found", *how)


def kill_container(container: str) -> None:
    """Kill all processes of a container."""
    name = container.rpartition("/")[2]
    for file in CGROUPS.rglob(f"{name}/cgroup.procs"):
        for pid in file.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _is_ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _within(look: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
