"""Faults of a cluster, one at a time, with people at work in it: what goes on meanwhile, what is said, and what is left."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import cluster_oracles, cluster_people, kubectl, node_agents
from tests.cluster.cluster_oracles import PodHistory
from tests.cluster.cluster_people import TENANTS, Resident, Town
from tests.cluster.cluster_storm import Death, delete_pod, kill_container
from tests.cluster.release import REGISTRY, ROOT, Release
from tests.faults.workload import BROKEN
from tests.support.kernels import CellFailed, Kernel
from tests.support.people import Person
from tests.support.platform import until
from torpor_hub.cluster.access import Access

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(600)]
Json = dict[str, Any]
Record = Callable[[str, object], None]
KUBE = Path(os.environ.get("TORPOR_KUBE", ROOT.parent / "shared" / "kube" / "kube"))
RELEASE = Release("single", "hf1")
OTHER_NODE = "torpor-1"
OUTAGE_S = 60
# After this time the node's lease has run out, and nobody believes any more that it runs.
UNREACHABLE_WITHIN_S, CONVERGES_WITHIN_S, THAWS_WITHIN_S = 90, 60, 20
# A workspace's pod has no controller but the platform: `--force` does not spare its disruption budget.
DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--force")
# After an outage the cluster's own controllers, its scheduler and its nodes come back one after another.
JOB_WITHIN_S = 180
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


@pytest.fixture(scope="module")
def release_at_work(reach: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if not os.environ.get(REGISTRY) or not KUBE.exists():
        pytest.skip(
            f"needs the test cluster, and the program that runs it: {REGISTRY} is not set, or {KUBE} is not there"
        )
    with cluster_people.built(RELEASE, limits=cluster_people.LIMITS) as town:
        history = PodHistory(town.namespaces())
        history.start()
        try:
            yield Scene(town, history, tmp_path_factory.mktemp("single"))
        finally:
            history.close()


@pytest.fixture
def scene(release_at_work: Scene) -> Iterator[Scene]:
    yield release_at_work
    release_at_work.town.door.be("open")


@pytest.mark.slow
@pytest.mark.parametrize(("begin", "end"), [("api-pause", "api-resume"), ("api-stop", "api-start")])
def test_workspaces_outlast_an_api_server_that_hangs_or_is_down(
    scene: Scene, begin: str, end: str, record_property: Record
) -> None:
    desks = [scene.at_work(user) for user in TENANTS]
    kube(begin)
    try:
        time.sleep(OUTAGE_S)
        assert all(desk.remembers() for desk in desks), "kernels go on without the API server"
    finally:
        kube(end)
    until(lambda: all(desk.phase == "RUNNING" for desk in desks), CONVERGES_WITHIN_S, "all run again")
    person = desks[0].resident.person
    began = time.monotonic()
    job = person.submit(desks[0].resident.workspace, ["echo", "again"])
    assert person.ended(job, within_s=JOB_WITHIN_S)["phase"] == "SUCCEEDED", person.job(job)
    waited_s = round(time.monotonic() - began, 1)
    record_property("first_job_after_the_outage_s", waited_s)
    print(f"the first job after the outage: {waited_s} s")
    assert [str(scene.pod(user)["metadata"]["uid"]) for user in TENANTS] == [desk.uid for desk in desks]
    assert all(desk.remembers() for desk in desks)
    scene.nothing_is_wrong()


def test_a_hub_without_its_database_adopts_the_running_pod_when_its_owner_signs_in(scene: Scene) -> None:
    desk = scene.at_work("ada")
    (hub,) = scene.town.programs("hub")
    files = list(kubectl.volume(RELEASE.namespace, f"{RELEASE.fullname}-hub").glob("jupyterhub.sqlite*"))
    assert files
    for file in files:
        file.unlink()
    kill_container(hub["status"]["containerStatuses"][0]["containerID"])
    until(lambda: is_refused(desk.resident.person), CONVERGES_WITHIN_S, "the hub knows nobody")
    person = desk.resident.person = until(lambda: signed_in(scene.town, "ada"), CONVERGES_WITHIN_S, "ada signs in")
    until(desk.remembers, CONVERGES_WITHIN_S, "the same kernel with its variable")
    assert person.status(desk.resident.workspace)["phase"] == "RUNNING"
    assert scene.pod("ada")["metadata"]["uid"] == desk.uid
    for user, resident in scene.people.items():
        resident.person = Person(scene.town, user)  # nobody's token outlasts the database
    scene.nothing_is_wrong()


def test_what_a_deleted_pod_had_not_saved_is_lost_and_its_page_says_since_when(scene: Scene) -> None:
    desk = scene.at_work("ada")
    resident, person = desk.resident, desk.resident.person
    resident.install()
    person.wished(resident.workspace, desired="asleep")
    saved = person.reaches(resident.workspace, "ASLEEP")["checkpoint"]
    desk = scene.at_work("ada")
    kept = set(resident.installed)
    resident.install()
    scene.dies(desk)
    delete_pod(scene.pod("ada"))
    status = person.reaches(resident.workspace, "STOPPED", within_s=CONVERGES_WITHIN_S)
    since = re.search(r"since (\d{4}-\d\d-\d\d \d\d:\d\d) UTC is lost", status["lost"])
    assert since, status
    assert str(saved["created_at"]).startswith(since[1].replace(" ", "T"))
    assert status["lost"] in person.page(f"workspaces/{resident.workspace}")
    person.wished(resident.workspace, desired="running")
    assert status["lost"] in person.reaches(resident.workspace, "RUNNING")["notice"]
    assert resident.present().keys() == kept
    resident.installed = {name: value for name, value in resident.installed.items() if name in kept}
    scene.nothing_is_wrong()


def test_a_container_that_is_frozen_goes_on_when_the_agents_are_deleted(scene: Scene) -> None:
    desk = scene.at_work("ada")
    desk.resident.install()
    container = node_agents.container_of(scene.pod("ada"))
    agents = kubectl.get("daemonset", f"{RELEASE.fullname}-agent", "-n", RELEASE.agents)
    frozen_by_a_sleep_that_hangs(scene, desk)
    assert node_agents.freezer_state(container) == "FROZEN"
    kubectl.run("delete", "daemonset", f"{RELEASE.fullname}-agent", "-n", RELEASE.agents, "--wait=false")
    until(lambda: node_agents.freezer_state(container) == "THAWED", THAWS_WITHIN_S, "the container is thawed")
    assert desk.remembers()
    scene.town.door.be("open")
    until(lambda: not kubectl.items("pods", "-n", RELEASE.agents), CONVERGES_WITHIN_S, "the agents are gone")
    assert desk.remembers()
    kubectl.apply(anew(agents))
    desk.resident.person.reaches(desk.resident.workspace, "ASLEEP", within_s=CONVERGES_WITHIN_S)
    scene.at_work("ada")
    assert desk.resident.present() == desk.resident.installed
    scene.nothing_is_wrong()


def test_a_node_is_drained_once_its_workspaces_sleep_and_they_wake_elsewhere(scene: Scene) -> None:
    desks = [scene.at_work(user, OTHER_NODE) for user in TENANTS]
    try:
        with pytest.raises(AssertionError, match=r"disruption budget|global timeout"):
            kubectl.run("drain", OTHER_NODE, *DRAIN, "--timeout=5s")
        assert all(desk.remembers() for desk in desks), "what is not saved is not evicted"
        kubectl.run("label", "node", OTHER_NODE, "torpor/drain=true", "--overwrite")
        for desk in desks:
            desk.resident.person.reaches(desk.resident.workspace, "ASLEEP", within_s=CONVERGES_WITHIN_S)
        kubectl.run("drain", OTHER_NODE, *DRAIN, "--timeout=60s")
        for user in TENANTS:
            scene.at_work(user)
            assert scene.pod(user)["spec"]["nodeName"] != OTHER_NODE
    finally:
        kubectl.run("label", "node", OTHER_NODE, "torpor/drain-")
        kubectl.run("uncordon", OTHER_NODE)
    scene.nothing_is_wrong()


def test_after_a_power_cut_during_a_sleep_all_comes_back_but_what_was_not_saved(scene: Scene) -> None:
    desks = [scene.at_work(user, OTHER_NODE) for user in TENANTS]
    saved = {desk.resident.person.name: set(desk.resident.installed) for desk in desks}
    desks[0].resident.install()
    frozen_by_a_sleep_that_hangs(scene, desks[0])
    power_cut(scene, desks)
    for desk in desks:
        resident = desk.resident
        status = resident.person.reaches(resident.workspace, "STOPPED", within_s=CONVERGES_WITHIN_S)
        assert "lost" in status["lost"], status
        scene.at_work(resident.person.name)
        assert resident.present().keys() == saved[resident.person.name]
        resident.installed = {name: resident.installed[name] for name in saved[resident.person.name]}
    scene.nothing_is_wrong()


@pytest.mark.soak
def test_after_a_power_cut_during_a_start_the_next_start_works(scene: Scene) -> None:
    desk = scene.at_work("ada")
    resident, person = desk.resident, desk.resident.person
    person.wished(resident.workspace, desired="asleep")
    person.reaches(resident.workspace, "ASLEEP")
    with only_on(OTHER_NODE):
        person.wished(resident.workspace, desired="running")
        until(lambda: scene.town.site.left(resident.workspace), CONVERGES_WITHIN_S, "the pod is made")
        begun = Desk(resident, str(scene.pod("ada")["metadata"]["uid"]), "")
        power_cut(scene, [begun])
    until(lambda: begun.phase in (*AT_REST, "RUNNING"), CONVERGES_WITHIN_S, "the start has ended")
    scene.at_work("ada")
    assert resident.present() == resident.installed
    scene.nothing_is_wrong()


def power_cut(scene: Scene, desks: list[Desk]) -> None:
    """Cut the power of the other node, see what is said meanwhile, and bring it back."""
    for desk in desks:
        scene.dies(desk)
    number = OTHER_NODE.rpartition("-")[2]
    kube("stop-node", number)
    try:
        no_process_outlives(number)
        scene.town.door.be("open")
        until(
            lambda: all(desk.phase == "UNREACHABLE" for desk in desks),
            UNREACHABLE_WITHIN_S,
            f"its workspaces are unreachable: {[desk.phase for desk in desks]}",
        )
        assert {desk.resident.workspace for desk in desks} <= set(scene.town.held()), "nobody knows that they ended"
    finally:
        kube("start-node", number)
    kubectl.run("wait", f"node/{OTHER_NODE}", "--for=condition=Ready", "--timeout=60s")


def no_process_outlives(number: str) -> None:
    """Let the kernel end what was frozen when it was killed: on a machine without power nothing waits."""
    for file in (cluster_oracles.FREEZERS / number).rglob("freezer.state"):
        with contextlib.suppress(OSError):
            file.write_text("THAWED")


def frozen_by_a_sleep_that_hangs(scene: Scene, desk: Desk) -> None:
    """Begin a sleep, and return while the container is frozen and the registry does not answer."""
    scene.town.door.be("hanging")
    desk.resident.person.wished(desk.resident.workspace, desired="asleep")
    assert scene.town.door.held.wait(CONVERGES_WITHIN_S), "the agent has come to the registry"


def is_refused(person: Person) -> bool:
    """Whether the hub runs, and does not know the person's token."""
    answer = httpx.get(f"{person.site.url}hub/api/user", headers={"Authorization": f"token {person.token}"}, timeout=10)
    return answer.status_code == 403


def signed_in(town: Town, user: str) -> Person | None:
    """Return the person with a new token, once the hub gives one."""
    with contextlib.suppress(*BROKEN):
        return Person(town, user)
    return None


def anew(thing: Json) -> Json:
    """Return an object as somebody would make it again."""
    meta = thing["metadata"]
    kept = {name: meta[name] for name in ("name", "namespace", "labels", "annotations") if name in meta}
    return {name: thing[name] for name in ("apiVersion", "kind", "spec")} | {"metadata": kept}


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
