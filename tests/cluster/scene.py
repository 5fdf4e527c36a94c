"""A release with two people at work in it, for faults one at a time: what they rely on is known before, and counted after."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import cluster_oracles, cluster_people, kubectl
from tests.cluster.cluster_oracles import PodHistory
from tests.cluster.cluster_people import TENANTS, Resident, Town
from tests.cluster.cluster_storm import Death
from tests.cluster.release import ROOT, Release
from tests.faults.workload import BROKEN
from tests.support.kernels import CellFailed, Kernel
from tests.support.people import Person

Json = dict[str, Any]
KUBE = Path(os.environ.get("TORPOR_KUBE", ROOT.parent / "shared" / "kube" / "kube"))
CONVERGES_WITHIN_S = 60
AT_REST = ("ASLEEP", "STOPPED", "FAILED", "NEW")


@dataclass
class Scene:
    """A release with one workspace of each of two people, its pods followed. ``deaths`` are those that a test causes."""

    town: Town
    history: PodHistory
    folder: Path
    people: dict[str, Resident] = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)

    def resident(self, user: str) -> Resident:
        """Return a person, who has a workspace."""
        if user not in self.people:
            made = Resident(Person(self.town, user), TENANTS[user], "", random.Random(user), self.folder)
            made.workspace = made.person.create(f"of-{user}", made.tenant)
            self.people[user] = made
        return self.people[user]

    def at_work(self, user: str, node: str = "") -> Desk:
        """Return a person's workspace, which runs, on this node where one is named, with a kernel that remembers."""
        resident = self.resident(user)
        person, key = resident.person, resident.workspace
        cluster_oracles.settles(self.town, CONVERGES_WITHIN_S)
        if person.status(key)["phase"] == "RUNNING" and node not in ("", self.town.pod(user, key)["spec"]["nodeName"]):
            person.wished(key, desired="asleep")
            person.reaches(key, "ASLEEP")
        if person.status(key)["phase"] in AT_REST:
            with only_on(node):
                person.wished(key, desired="running")
                person.reaches(key, "RUNNING")
        person.reaches(key, "RUNNING")
        with person.kernel(key) as kernel:
            kernel.run("kept = 41")
            return Desk(resident, str(self.pod(user)["metadata"]["uid"]), kernel.id)

    def pod(self, user: str) -> Json:
        """Return the pod of a person's workspace."""
        return self.town.pod(user, self.people[user].workspace)

    def hangs_while_frozen(self, desk: Desk) -> None:
        """Begin a sleep, and return while the container is frozen and the registry does not answer."""
        self.town.door.be("hanging")
        desk.resident.person.wished(desk.resident.workspace, desired="asleep")
        assert self.town.door.held.wait(CONVERGES_WITHIN_S), "the agent has come to the registry"

    def dies(self, desk: Desk) -> None:
        """Note that this pod's end is the test's doing."""
        self.deaths.append(Death(desk.resident.workspace, desk.uid, None, time.time()))

    def nothing_is_wrong(self) -> None:
        """Wait until all is at rest, and count."""
        cluster_oracles.nothing_is_wrong(self.town, self.history, self.deaths, CONVERGES_WITHIN_S)


@dataclass
class Desk:
    """A workspace that runs, as it was at the beginning of a test: its pod, and a kernel that remembers something."""

    resident: Resident
    uid: str
    kernel: str

    @property
    def phase(self) -> str:
        return str(self.resident.person.status(self.resident.workspace)["phase"])

    def remembers(self) -> bool:
        """Whether the same kernel still knows what it knew."""
        person = self.resident.person
        try:
            with Kernel(person.server_url(self.resident.workspace), person.token, self.kernel) as kernel:
                return kernel.run("print(kept)", within_s=10) == "41\n"
        except (*BROKEN, CellFailed):
            return False


@contextlib.contextmanager
def played(release: Release, folder: Path) -> Iterator[Scene]:
    """Give this release, installed, with nobody at work in it yet."""
    with cluster_people.built(release, limits=cluster_people.LIMITS) as town:
        history = PodHistory(town.namespaces())
        history.start()
        try:
            yield Scene(town, history, folder)
        finally:
            history.close()


@contextlib.contextmanager
def only_on(node: str) -> Iterator[None]:
    """Let new pods onto this node alone; onto all where none is named."""
    others = [item["metadata"]["name"] for item in kubectl.items("nodes") if node and item["metadata"]["name"] != node]
    for each in others:
        kubectl.run("cordon", each)
    try:
        yield
    finally:
        for each in others:
            kubectl.run("uncordon", each)


def kube(*command: str) -> None:
    """Do something to the test cluster itself."""
    ended = subprocess.run([str(KUBE), *command], capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr[-1000:]
