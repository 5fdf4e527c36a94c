"""Outages of what a cluster stands on, one at a time, with people at work in a release: its API server, and one of its nodes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from tests.cluster import cluster_oracles, kubectl
from tests.cluster.cluster_people import TENANTS
from tests.cluster.release import Release
from tests.cluster.scene import AT_REST, CONVERGES_WITHIN_S, KUBE, Desk, Scene, kube, only_on
from tests.support.platform import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not KUBE.exists(), reason=f"needs the program that runs the test cluster: {KUBE} is not there"),
]
Record = Callable[[str, object], None]
RELEASE = Release("outages", "hf1")
OTHER_NODE = "torpor-1"
OUTAGE_S = 60
# After this time the node's lease has run out, and nobody believes any more that it runs.
UNREACHABLE_WITHIN_S = 90
# A workspace's pod has no controller but the platform: `--force` does not spare its disruption budget.
DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--force")
# After an outage the cluster's own controllers, its scheduler and its nodes come back one after another.
JOB_WITHIN_S = 180


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
    scene.hangs_while_frozen(desks[0])
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
