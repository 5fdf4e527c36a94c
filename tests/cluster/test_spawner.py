"""A real hub whose servers are pods: how they start, are found again, and fail."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.cluster import release, stories
from tests.cluster.doorway import Mode
from tests.cluster.spawner_site import REGISTRY, SIZE, KubeSite, kubectl
from tests.podspecs.examples import GIB, MIB
from tests.spawning.hub_site import within
from tests.support.promises import limit
from torpor_hub.cluster.access import Access
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import WorkspaceRun

pytestmark = pytest.mark.cluster
Record = Callable[[str, object], None]
CAUSE_TOLD_WITHIN_S = 2


@pytest.fixture(scope="module")
def whole_site(reach: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSite]:
    registry = os.environ.get(release.REGISTRY)
    if not registry:
        pytest.skip(f"needs the test cluster: {release.REGISTRY} is not set")
    image = release.by_digest(release.images(registry), "workspace")
    site = KubeSite(tmp_path_factory.mktemp("site"), f"hs-{secrets.token_hex(3)}-", image, reach)
    try:
        site.start_proxy()
        site.start_hub()
        for name in site.passwords:
            site.signed_in(name)
        yield site
    finally:
        site.close()


@pytest.fixture
def site(whole_site: KubeSite) -> KubeSite:
    """The installation, with a hub, a cluster that answers, and room, whatever an earlier test did."""
    whole_site.door.be("open")
    whole_site.ensure_hub()
    for server in whole_site.api.runs:
        if server != "first":
            whole_site.end(server)
    return whole_site


def works(site: KubeSite, name: str) -> bool:
    """Whether its owner gets in and its token serves it."""
    page = site.visit(site.signed_in("ada"), f"user/ada/{name}/lab")
    return page.status_code == 200 and site.hub("GET", "user", site.server_token(name)).status_code == 200


@pytest.fixture(scope="module")
def first(whole_site: KubeSite) -> str:
    """The UID of the pod of Ada's server `first`, started once."""
    return whole_site.start_pod("first")


def uid(site: KubeSite, server: str) -> str:
    return str(site.pod(server)["metadata"]["uid"])


def absent_image() -> str:
    return f"{REGISTRY}/torpor/profiles/none@sha256:{'0' * 64}"


def test_a_start_makes_one_pod_that_lets_its_owner_in(site: KubeSite, first: str) -> None:
    assert uid(site, "first") == first
    assert works(site, "first")


def test_a_killed_hub_finds_the_running_pod_again(site: KubeSite, first: str) -> None:
    site.kill_hub()
    assert httpx.get(f"{site.url}user/ada/first/api").status_code == 200
    site.start_hub()
    within(60, lambda: site.server("first").get("ready"), "the server is known again")
    assert uid(site, "first") == first
    assert works(site, "first")


def test_after_a_lost_database_a_start_adopts_the_same_pod(site: KubeSite, first: str) -> None:
    site.lose_database()
    assert site.server("first") == {}
    assert site.start_pod("first") == first
    assert works(site, "first")


def test_a_stop_that_no_person_asked_for_ends_no_pod(site: KubeSite, first: str) -> None:
    assert site.hub("DELETE", "users/ada/servers/first").status_code == 409
    assert site.api.wishes == []
    assert works(site, "first")
    site.lose_database()
    # Even a grant of another start takes up what lives.
    site.grant("first")
    assert site.start_pod("first") == first
    assert works(site, "first")


@pytest.mark.parametrize("mode", ["shut", "hanging"])
def test_a_hub_that_starts_without_the_api_server_keeps_its_servers(site: KubeSite, first: str, mode: Mode) -> None:
    site.kill_hub()
    site.door.be(mode)
    site.start_hub()
    within(60, lambda: site.server("first").get("ready"), "ready without a word of the cluster")
    assert httpx.get(f"{site.url}user/ada/first/api").status_code == 200
    site.door.be("open")
    assert works(site, "first")
    assert uid(site, "first") == first


def test_an_end_that_nobody_could_report_is_believed_once_the_api_server_is_back(site: KubeSite) -> None:
    site.start_pod("unseen")
    heard = site.log.read_text().count("unknown")
    site.door.be("shut")
    within(60, lambda: site.log.read_text().count("unknown") > heard + 2, "the hub has tried several times")
    site.end("unseen")
    assert site.server("unseen")["ready"]
    site.door.be("open")
    within(90, lambda: not site.server("unseen"), "the hub has learnt of the end")
    assert site.pods("unseen") == []


def test_a_pod_that_is_deleted_behind_the_hubs_back_is_missed_and_not_made_again(
    site: KubeSite, record_property: Record
) -> None:
    site.start_pod("fleeting")
    site.end("fleeting")
    gone = time.time()
    within(60, lambda: not site.server("fleeting"), "the hub has noticed")
    record_property("noticed_after_s", round(time.time() - gone, 2))
    assert site.pods("fleeting") == []
    page = site.visit(site.signed_in("ada"), "user/ada/fleeting/lab")
    assert f"workspaces/{site.workspace('fleeting')}" in str(page.url)
    assert site.pods("fleeting") == []


def test_a_person_who_stops_a_server_puts_it_to_sleep_and_the_controller_removes_the_pod(site: KubeSite) -> None:
    site.start_pod("sleepy")
    may_end = threading.Event()

    def sleep(run: WorkspaceRun) -> None:
        may_end.wait(60)
        site.end(run.name)

    site.api.on_wish = sleep
    assert site.asks_to_stop("sleepy").status_code == 202
    assert site.server("sleepy")["pending"] == "stop"
    assert len(site.pods("sleepy")) == 1
    may_end.set()
    within(90, lambda: not site.server("sleepy"), "the hub sees the end of the sleep")
    assert site.api.wishes == [("sleepy", "asleep")]
    site.grant("sleepy")
    site.start_pod("sleepy")
    assert works(site, "sleepy")


def test_a_hub_that_is_killed_before_it_noted_the_pod_takes_it_up_by_itself(site: KubeSite) -> None:
    site.failpoints.joinpath("spawner.launched").write_text("kill")
    with contextlib.suppress(httpx.TransportError):
        site.hub("POST", "users/ada/servers/early")
    site.programs.pop("hub").wait(30)
    made = uid(site, "early")
    site.start_hub()
    within(60, lambda: site.server("early").get("ready"), "ready without a new start")
    assert uid(site, "early") == made
    assert works(site, "early")


def test_a_new_start_waits_until_the_last_pod_has_gone(site: KubeSite) -> None:
    last = site.start_pod("lasting")
    hold = {"metadata": {"finalizers": ["torpor.test/hold"]}}
    kubectl("-n", site.namespace, "patch", "pod", site.workspace("lasting"), "-p", json.dumps(hold))
    kubectl("-n", site.namespace, "delete", "pod", site.workspace("lasting"), "--wait=false", "--grace-period=1")
    within(60, lambda: not site.server("lasting"), "the hub takes it for stopped")
    site.grant("lasting")
    site.hub("POST", "users/ada/servers/lasting")
    told = next(event for event in site.progress("lasting") if "has not gone yet" in event["message"])
    assert not told.get("failed")
    assert uid(site, "lasting") == last
    free = {"metadata": {"finalizers": None}}
    kubectl("-n", site.namespace, "patch", "pod", site.workspace("lasting"), "-p", json.dumps(free))
    within(90, lambda: site.server("lasting").get("ready"), "the new pod serves")
    assert uid(site, "lasting") != last
    assert works(site, "lasting")


def test_a_start_outlives_a_short_absence_of_the_api_server(site: KubeSite) -> None:
    site.door.be("shut")
    site.hub("POST", "users/ada/servers/patient")
    told = next(event for event in site.progress("patient") if "cluster does not answer" in event["message"])
    assert not told.get("failed")
    site.door.be("open")
    within(90, lambda: site.server("patient").get("ready"), "it starts all the same")
    assert works(site, "patient")


def test_a_pod_of_another_key_is_neither_adopted_nor_removed(site: KubeSite, first: str) -> None:
    key = site.state / "secrets" / "hub-server-token-key"
    right = key.read_text()
    site.lose_database()
    key.write_text(secrets.token_hex(32))
    try:
        story = site.follow_start("first")
    finally:
        key.write_text(right)
    assert "another key of the hub" in story.last
    assert uid(site, "first") == first
    assert site.start_pod("first") == first


@dataclass(frozen=True)
class Failure:
    """What makes a start fail, what its owner reads, and what of a pod's raw status is the first signal of it."""

    reason: str
    run: dict[str, Any]
    cause: str
    step: str
    signal: Callable[[dict[str, Any]], bool]
    platform_says: str = ""


FAILURES = (
    Failure(
        "image missing",
        {"image": absent_image()},
        "The image is not in the registry",
        "Choose the previous environment",
        stories.waits,
    ),
    Failure(
        "no node has such a GPU",
        {"amount": Amount(1, 256 * MIB, 7)},
        "No node has 7 GPUs free.",
        "Take a smaller profile",
        stories.has_no_node,
        platform_says="No node has 7 GPUs free. The most that one node has free is 0 GPUs.",
    ),
    Failure(
        "crash at start",
        {"environment": {"JUPYTERHUB_SERVICE_URL": ""}},
        "Missing required environment $JUPYTERHUB_SERVICE_URL",
        "Read its log",
        stories.has_ended,
    ),
    Failure(
        "out of memory",
        {"amount": Amount(500, 48 * MIB)},
        "It used more than its 48 MiB of memory and was ended.",
        "Start it with a larger profile",
        stories.has_ended,
    ),
)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.reason)
def test_a_start_that_cannot_succeed_ends_with_its_cause_and_the_next_one_works(
    site: KubeSite, failure: Failure, record_property: Record
) -> None:
    server = failure.reason.replace(" ", "-").lower()
    run = site.grant(server, **failure.run)
    if failure.platform_says:
        words = {
            "phase": "FAILED",
            "reason": "NO_ROOM",
            "message": failure.platform_says,
            "next_step": "Take a smaller profile.",
        }
        site.api.words[run.workspace_id] = words
    story = site.follow_start(server, is_signal=failure.signal)
    assert story.events[-1][1]["failed"]
    assert failure.cause in story.last
    assert failure.step in story.last
    assert failure.platform_says in story.last
    told_after_s = story.told_after_s(failure.cause)
    record_property("cause_told_after_signal_s", told_after_s)
    assert told_after_s <= limit(CAUSE_TOLD_WITHIN_S)
    record_property("ended_after_signal_s", round(story.events[-1][0] - story.signal, 2))
    within(60, lambda: not site.server(server), "the hub has let go of it")
    assert len(site.pods(server)) == 1, "the controller alone removes a failed pod"
    site.end(server)
    assert site.pods(server) == []
    site.grant(server, image=site.api.image, amount=SIZE, environment={})
    site.start_pod(server)
    assert works(site, server)
    site.end(server)


def test_a_failed_pod_that_the_controller_removes_at_once_has_told_its_cause(site: KubeSite) -> None:
    site.grant("swift", image=absent_image())
    story = site.follow_start("swift", is_signal=stories.waits, at_signal=lambda: site.end("swift"))
    assert story.events[-1][1]["failed"]
    assert "The image is not in the registry" in story.last


def test_a_full_quota_ends_a_start_with_its_numbers_and_makes_nothing(site: KubeSite, record_property: Record) -> None:
    site.make_tenant("crowded", Amount(8000, 3 * GIB // 2))
    site.grant("occupant", tenant="crowded")
    site.start_pod("occupant")
    site.grant("modest", tenant="crowded")
    story = site.follow_start("modest")
    assert story.events[-1][1]["failed"]
    assert "The tenant's share of the cluster is used up" in story.last
    assert "memory: 1 GiB asked, 1 GiB of 1.5 GiB in use" in story.last
    assert "Put a workspace to sleep" in story.last
    # The signal is a refusal, which leaves no trace in the cluster: it came after the request.
    told_after_s = round(story.told_at("share of the cluster") - story.begun, 2)
    record_property("cause_told_after_request_s", told_after_s)
    assert told_after_s <= limit(CAUSE_TOLD_WITHIN_S)
    record_property("ended_after_request_s", round(story.events[-1][0] - story.begun, 2))
    within(60, lambda: not site.server("modest"), "the hub has let go of it")
    assert site.pods("modest") == []
    site.end("occupant")
    site.grant("modest")
    site.start_pod("modest")
    assert works(site, "modest")
