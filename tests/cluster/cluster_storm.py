"""Faults of a cluster in an order and at moments drawn from a seed: programs killed, pods deleted, a registry that fails."""

from __future__ import annotations

import contextlib
import json
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
from tests.cluster.registry_door import Mode
from tests.faults.storm import under_way
from tests.faults.workload import AT_REST, AWAKE, BROKEN
from tests.support.platform import until

Json = dict[str, Any]
PROGRAMS = ("hub", "proxy", "server", "importer", "agent")
PODS = ("workspace", "job")
REGISTRY: dict[str, Mode] = {"registry gone": "gone", "registry full": "full", "registry lying": "lying"}
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
REGISTRY_S, ASKED_WITHIN_S, HELP_EVERY_S = (3.0, 8.0), 60.0, 10.0
# So often a fault is drawn that hits nobody: a storm that cannot strike has failed.
DRAWS = 5
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
        """Strike ``count`` times, each time somebody; each time the platform stands up again before the next."""
        for kind in plan(count, self.draw):
            self._strike(kind)
        self.ended_at = time.monotonic()

    def table(self) -> str:
        """Return all faults as a table."""
        lines = [f"{n:>3}  {f.at_s:>6.1f} s  {f.kind:<15} {f.how:<44} {f.step}" for n, f in enumerate(self.faults, 1)]
        return "\n".join([*lines, f"hit nobody, and drawn again: {', '.join(self.missed) or 'none'}"])

    def _strike(self, kind: str) -> None:
        """Strike until somebody is hit.

        Raises:
            AssertionError: when nobody is, as often as it is drawn.
        """
        strike = (
            self._strike_program if kind in PROGRAMS else self._strike_pod if kind in PODS else self._strike_registry
        )
        for _ in range(DRAWS):
            time.sleep(self.draw.random() * MOMENT_S)
            self._await_moment(kind)
            if strike(kind):
                return
            self.missed.append(kind)
        raise AssertionError(f"{kind} hit nobody, {DRAWS} times")

    def _await_moment(self, kind: str) -> None:
        _within(lambda: any(moment in under_way(self.town) for moment in MOMENTS[kind]), MOMENT_WITHIN_S)
        time.sleep(self.draw.random() * 0.3)

    def _note(self, kind: str, how: str, step: str) -> None:
        self.faults.append(Fault(time.monotonic() - self.started, kind, how, step))

    def _strike_program(self, component: str) -> bool:
        pods = [pod for pod in self.town.programs(component) if _is_ready(pod)]
        pod = self.draw.choice(sorted(pods, key=lambda each: str(each["metadata"]["name"])))
        status = next(each for each in pod["status"]["containerStatuses"] if each["name"] == component)
        step = under_way(self.town)
        if self.draw.random() < 0.5 and status["restartCount"] < RESTARTS:
            how, was_hit = "process killed", kill_container(status["containerID"])
        else:
            how, was_hit = "pod deleted", delete_pod(pod)
        if was_hit:
            self._note(component, how, step)
            old = str(status["containerID"])
            until(lambda: self._is_back(component, len(pods), old), BACK_WITHIN_S, f"the {component} is back")
        return was_hit

    def _is_back(self, component: str, count: int, old: str) -> bool:
        ready = [pod for pod in self.town.programs(component) if _is_ready(pod)]
        there = {str(each.get("containerID")) for pod in ready for each in pod["status"]["containerStatuses"]}
        return len(ready) >= count and old not in there

    def _strike_pod(self, component: str) -> bool:
        found: list[Json] = []

        def look() -> bool:
            found[:] = [pod for pod in self._users_pods(component) if _runs(pod)]
            return bool(found)

        if not _within(look, HELPED_AFTER_S):
            self._help(component)
        if not _within(look, VICTIM_WITHIN_S):
            return False
        pod = self.draw.choice(sorted(found, key=lambda each: str(each["metadata"]["name"])))
        deaths = [self._death(pod)] if component == "workspace" else []
        step, grace_s = under_way(self.town), self.draw.choice((0, 1))
        if not delete_pod(pod, grace_s):
            return False
        self.deaths += deaths
        self._note(component, f"pod {pod['metadata']['name']} deleted", step)
        return True

    def _help(self, kind: str) -> None:
        """Have everybody begin what a fault of this kind can hit."""
        for life in self.lives:
            with contextlib.suppress(*BROKEN):
                phase = life.person.status(life.workspace)["phase"]
                if kind == "job":
                    life.submit_long()
                elif kind in REGISTRY and phase in AWAKE:
                    life.sleep()
                elif phase in AT_REST:
                    life.wake()

    def _users_pods(self, component: str) -> Iterator[Json]:
        for namespace in self.town.namespaces():
            yield from kubectl.items("pods", "-n", namespace, "-l", f"app.kubernetes.io/component={component}")

    def _death(self, pod: Json) -> Death:
        key = str(pod["metadata"]["labels"]["torpor/workspace"])
        saved = self.town.rows("SELECT checkpoint_id FROM workspaces WHERE id = ?", key)[0]["checkpoint_id"]
        return Death(key, str(pod["metadata"]["uid"]), saved, time.time())

    def _strike_registry(self, kind: str) -> bool:
        """Let the registry fail for a while, and until somebody has asked it: one that nobody asks fails nobody."""
        door, for_s, began = self.town.door, self.draw.uniform(*REGISTRY_S), time.monotonic()
        before = door.faults
        door.be(REGISTRY[kind])
        try:
            if not self._is_asked(before):
                return False
            step, asked_s = under_way(self.town), time.monotonic() - began
            time.sleep(max(0.0, for_s - asked_s))
            self._note(kind, f"for {max(for_s, asked_s):.0f} s, asked after {asked_s:.1f} s", step)
        finally:
            door.be("open")
        return True

    def _is_asked(self, before: int) -> bool:
        def asked() -> bool:
            return self.town.door.faults > before

        deadline = time.monotonic() + ASKED_WITHIN_S
        found = _within(asked, HELPED_AFTER_S)
        while not found and time.monotonic() < deadline:
            self._help("registry gone")
            found = _within(asked, HELP_EVERY_S)
        return found


def plan(count: int, draw: random.Random) -> list[str]:
    """Return what happens, in order: no kind again before all others have been drawn."""
    chosen: list[str] = []
    while len(chosen) < count:
        chosen += draw.sample(KINDS, len(KINDS))
    return chosen[:count]


def delete_pod(pod: Json, grace_s: int = 0) -> bool:
    """Delete exactly this pod, as somebody does who has nothing to do with the platform; return whether it was still there."""
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": grace_s,
        "preconditions": {"uid": meta["uid"]},
    }
    try:
        kubectl.run("delete", "--raw", path, "-f", "-", stdin=json.dumps(options))
    except AssertionError as error:
        if "(NotFound)" in str(error) or "(Conflict)" in str(error):
            return False
        raise
    return True


def kill_container(container: str) -> bool:
    """Kill all processes of a container; return whether it had any."""
    name, killed = container.rpartition("/")[2], 0
    for file in CGROUPS.rglob(f"{name}/cgroup.procs"):
        for pid in file.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
                killed += 1
    return killed > 0


def _runs(pod: Json) -> bool:
    return pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


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
