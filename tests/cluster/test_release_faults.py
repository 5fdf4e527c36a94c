"""Faults of one release, one at a time, with people at work in it: what goes on meanwhile, what is said, and what is left."""

from __future__ import annotations

import contextlib
import html
import re
from typing import Any

import httpx
import pytest

from tests.cluster import kubectl, node_agents
from tests.cluster.cluster_people import Town
from tests.cluster.cluster_storm import delete_pod, kill_container
from tests.cluster.registry_door import Mode
from tests.cluster.release import Release
from tests.cluster.scene import CONVERGES_WITHIN_S, Scene
from tests.faults.workload import BROKEN
from tests.support.people import Person
from tests.support.platform import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
Json = dict[str, Any]
RELEASE = Release("mishaps", "hf2")
# Until the cluster has begun to end the agents, too: that is what takes long on a busy machine.
THAWS_WITHIN_S = 45


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
    scene.hangs_while_frozen(desk)
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


@pytest.mark.parametrize(
    ("mode", "reason", "why"),
    [
        ("full", "REGISTRY_FULL", "has no space left"),
        # Of what it should have kept it has nothing, or of what it had before something else.
        ("lying", "NOT_READ_BACK", "There is no image|reads back with another digest"),
    ],
)
def test_a_sleep_that_the_registry_fails_leaves_everything_running_and_says_why(
    scene: Scene, mode: Mode, reason: str, why: str
) -> None:
    desk, door = scene.at_work("ada"), scene.town.door
    resident, person = desk.resident, desk.resident.person
    resident.install()
    before, asked = person.status(resident.workspace), door.faults
    door.be(mode)
    person.wished(resident.workspace, desired="asleep")
    until(lambda: "failed" in person.status(resident.workspace)["message"], CONVERGES_WITHIN_S, "the sleep fails")
    after = person.reaches(resident.workspace, "RUNNING")
    assert door.faults > asked
    assert after["reason"] == reason
    assert re.search(why, after["message"]), after
    assert after["message"] in html.unescape(person.page(f"workspaces/{resident.workspace}"))
    assert after["checkpoint"] == before["checkpoint"]
    assert scene.pod("ada")["metadata"]["uid"] == desk.uid
    assert desk.remembers(), "the same kernel with its variable"
    door.be("open")
    person.wished(resident.workspace, desired="asleep")
    saved = person.reaches(resident.workspace, "ASLEEP", within_s=CONVERGES_WITHIN_S)
    assert saved["checkpoint"] != before["checkpoint"]
    scene.at_work("ada")
    assert resident.present() == resident.installed
    scene.nothing_is_wrong()


def is_refused(person: Person) -> bool:
    """Whether the hub runs, and does not know the person's token."""
    headers = {"Authorization": f"token {person.token}"}
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{person.site.url}hub/api/user", headers=headers, timeout=10).status_code == 403
    return False


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
