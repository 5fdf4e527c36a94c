"""The walls of a release: what its pods reach with the policies off and on, what its accounts may, and what its tokens open."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import kubectl, walls
from tests.cluster.release import REGISTRY
from tests.cluster.reviews import Allowed, Reviewer, of_rights
from tests.cluster.walls import Door, Visitor, barred, leaks, shut
from tests.cluster.walls_attempts import another_platforms_volume, attempts
from tests.cluster.walls_site import (
    OURS,
    RELEASE,
    TABLE,
    TENANTS,
    USERS_CODE,
    World,
    built,
    platform_image,
    server_stand_in,
)
from tests.support.platform import until
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.shape import shape_of
from torpor_hub.podspecs import rights
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.settings import load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
Record = Callable[[str, Any], None]
MISSED_WITHIN_S = 15
OF_THE_SERVER = f"app.kubernetes.io/instance={RELEASE.name},app.kubernetes.io/component=server"
ASK = """
import json, os, sys, urllib.error, urllib.request
def status(method, url, body=None):
    headers = {"Authorization": "Bearer " + os.environ[sys.argv[1]], "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.path.expandvars(url), method=method, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps([status(*request) for request in json.loads(sys.argv[2])]))
"""
# Source: include/net/tcp_states.h, TCP_LISTEN.
LISTENING = "0A"
UNSEEN_OR_FORBIDDEN = (403, 404)
ME = "${TORPOR_URL}api/v1/me"
ACTIVITY = {"last_activity": "2020-01-01T00:00:00Z"}
# Whatever only programs of the platform ask for; the bodies are complete, so that nothing but the token is wrong.
PROGRAMS_ALONE: list[list[Any]] = [
    ["POST", "${TORPOR_URL}api/v1/sign-ins", {"name": "ben", "password": "guess"}],
    ["POST", "${TORPOR_URL}api/v1/workspace-starts", {"user": "ben", "server": "walls-2"}],
    ["POST", "${TORPOR_URL}api/v1/capture-claims", {"agent": "mine", "node": "torpor-0", "wait_s": 0}],
    ["POST", "${TORPOR_URL}api/v1/import-claims", {"importer": "mine", "wait_s": 0}],
    ["POST", "${TORPOR_URL}api/v1/component-tokens", {"component": "hub", "proof": "guess"}],
]
WORKSPACE_OPENS: list[list[Any]] = [
    ["GET", ME],
    ["GET", "${TORPOR_URL}api/v1/workspaces/$TORPOR_WORKSPACE"],
    ["POST", "$JUPYTERHUB_ACTIVITY_URL", ACTIVITY],
    ["GET", "http://127.0.0.1:8888${JUPYTERHUB_SERVICE_PREFIX}api/status"],
]
WORKSPACE_IS_REFUSED: list[list[Any]] = [
    *PROGRAMS_ALONE,
    ["POST", "$JUPYTERHUB_API_URL/users/ben/activity", ACTIVITY],
    *(["GET", f"$JUPYTERHUB_API_URL/{kind}"] for kind in ("users", "users/ben", "groups", "services", "proxy", "info")),
    ["GET", "$JUPYTERHUB_API_URL/users/ada/tokens"],
    ["POST", "$JUPYTERHUB_API_URL/users/ada/tokens", {}],
    ["POST", "$JUPYTERHUB_API_URL/users/ada/servers/another", {}],
    ["DELETE", "$JUPYTERHUB_API_URL/users/ada/servers/walls-1"],
    ["POST", "$JUPYTERHUB_API_URL/shutdown", {}],
]
NOBODY = "system:serviceaccount:default:nobody"


@pytest.fixture(scope="module")
def world(reach: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if REGISTRY not in os.environ:
        pytest.skip(f"needs the test cluster: {REGISTRY} is not set")
    with built(tmp_path_factory.mktemp("data")) as made:
        yield made


@pytest.fixture
def reviewer(reach: Access) -> Iterator[Reviewer]:
    made = Reviewer(reach)
    yield made
    made.close()


@pytest.fixture
def shape(world: World, tmp_path: Path) -> ClusterShape:
    """What the release looks like, by its own settings."""
    file = tmp_path / "torpor.yaml"
    found = kubectl.get("configmap", f"{RELEASE.fullname}-settings", "-n", RELEASE.namespace)
    file.write_text(found["data"]["torpor.yaml"])
    return shape_of(load(file))


def test_without_policies_every_door_opens_and_with_them_those_of_the_table_alone(
    world: World, record_property: Record
) -> None:
    assert leaks(world.walls.look(), TABLE) == []
    with walls.without_policies(OURS):
        began = time.monotonic()
        seen = world.walls.until(lambda seen: not shut(seen))
        assert shut(seen) == []
        record_property("opened_after_s", round(time.monotonic() - began, 1))
    began = time.monotonic()
    seen = world.walls.until(lambda seen: not leaks(seen, TABLE) and not barred(seen, TABLE))
    assert (leaks(seen, TABLE), barred(seen, TABLE)) == ([], [])
    record_property("shut_again_after_s", round(time.monotonic() - began, 1))
    record_property("pairs_of_visitor_and_door", len(seen))


def test_where_a_network_plugin_guards_ipv4_alone_nothing_of_the_release_listens_by_ipv6(
    world: World, record_property: Record
) -> None:
    pods = [visitor.pod for name, visitor in world.walls.visitors.items() if name != "an outsider"]
    for pod in (*pods, *walls.find(RELEASE.namespace, "server")):
        sockets = kubectl.run("exec", "-n", pod.namespace, pod.name, "-c", pod.container, "--", "cat", "/proc/net/tcp6")
        assert [line for line in sockets.splitlines() if line.split()[3] == LISTENING] == [], pod
    came = [world.walls.visitors[name].try_doors([Door("link", "", 10250)]) for name in USERS_CODE]
    record_property("kubelet_by_link_local_address", came)


def test_the_first_act_of_a_job_meets_the_walls_already(world: World) -> None:
    said = until(lambda: world.site.client("ada").get(f"/jobs/{world.job}/log").text, 30, "the job's first line")
    assert said.startswith("refused"), said


def test_each_account_may_exactly_what_the_table_of_rights_says(reviewer: Reviewer, shape: ClusterShape) -> None:
    everybody = reviewer.rules(NOBODY, "default")
    held = {
        (account, place): reviewer.rules(account, place) - everybody
        for account in accounts()
        for place in (*OURS, "kube-system", "default")
    }
    assert held == {(account, place): by_the_table(shape, account, place) for account, place in held}
    assert len({account for (account, _), allowed in held.items() if allowed}) == 2


def test_of_everything_that_the_cluster_knows_hub_and_controller_are_refused_all_else(
    reviewer: Reviewer, shape: ClusterShape
) -> None:
    everybody = reviewer.allowed(NOBODY, "")
    for name in (shape.hub_account, shape.server_account):
        account = f"system:serviceaccount:{RELEASE.namespace}:{name}"
        for place in (TENANTS[0], ""):
            wanted = {right for right in by_the_table(shape, account, place) if not right.name}
            assert reviewer.allowed(account, place) - everybody == wanted, (account, place)


def test_with_the_controllers_token_nothing_is_to_be_had_but_tenants(world: World, reviewer: Reviewer) -> None:
    account = f"system:serviceaccount:{RELEASE.namespace}:{RELEASE.fullname}-server"
    data = {"hostPath": {"path": str(world.data)}}
    other = another_platforms_volume(data)
    own = kubectl.get("pvc", f"{RELEASE.fullname}-server", "-n", RELEASE.namespace)["spec"]["volumeName"]
    kubectl.apply(other)
    try:
        tried = list(attempts(data, (own, other["metadata"]["name"])))
        said = {each.what: reviewer.refusal(account, each.method, each.path, each.content) for each in tried}
    finally:
        kubectl.delete(other)
    assert {each.what: said[each.what] for each in tried if not each.is_met(said[each.what])} == {}


def accounts() -> list[str]:
    """Return every account of the release and of its tenants, and none of theirs twice."""
    found = [item for place in OURS for item in kubectl.items("serviceaccounts", "-n", place)]
    names = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found]
    return [f"system:serviceaccount:{namespace}:{name}" for namespace, name in names]


def by_the_table(shape: ClusterShape, account: str, place: str) -> set[Allowed]:
    """Return what the table gives an account in a namespace; in none, what it gives in the whole cluster."""
    roles = [
        role
        for role in rights.roles(shape).values()
        if account == f"system:serviceaccount:{shape.platform_namespace}:{role.account}"
        and (place in TENANTS or not role.in_tenants)
    ]
    return {allowed for role in roles for allowed in of_rights(role.rights)}


def test_the_token_of_a_workspace_opens_the_api_its_own_server_and_its_own_activity_alone(world: World) -> None:
    pod = world.pod("the workspace")
    assert asked(pod, "JUPYTERHUB_API_TOKEN", WORKSPACE_OPENS) == [200] * len(WORKSPACE_OPENS)
    refused = asked(pod, "JUPYTERHUB_API_TOKEN", WORKSPACE_IS_REFUSED)
    assert {
        each[1]: status
        for each, status in zip(WORKSPACE_IS_REFUSED, refused, strict=True)
        if status not in UNSEEN_OR_FORBIDDEN
    } == {}
    own, *others = (f"user/{user}/walls-{number}/api/status" for number, user in enumerate(("ada", "ada", "ben")))
    token = kubectl.run("exec", "-n", pod.namespace, pod.name, "--", "printenv", "JUPYTERHUB_API_TOKEN").strip()
    bearer = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=world.site.url, headers=bearer) as outside:
        assert outside.get(own).status_code == 200
        assert [outside.get(other).status_code for other in others] == [403, 403]


def test_the_tokens_of_a_job_open_its_own_attempt_and_what_its_owner_may_read(world: World) -> None:
    pod = world.pod("the job")
    foreign = f"${{TORPOR_URL}}api/v1/workspaces/{world.workspaces['the stranger']}"
    own = f"${{TORPOR_URL}}api/v1/jobs/{world.job}"
    task, change, me = (
        ["GET", f"{own}/attempts/1/task"],
        ["PATCH", own, {"spec": {"desired": "cancelled"}}],
        ["GET", ME],
    )
    assert asked(pod, "TORPOR_JOB_TOKEN", [task, ["GET", own], change, me]) == [200, 404, 404, 403]
    assert asked(pod, "TORPOR_TOKEN", [task, ["GET", own], change, me]) == [404, 200, 403, 200]
    for token in ("TORPOR_JOB_TOKEN", "TORPOR_TOKEN"):
        refused = asked(pod, token, [["GET", foreign], *PROGRAMS_ALONE])
        assert set(refused) <= set(UNSEEN_OR_FORBIDDEN), refused


def test_neither_workspaces_nor_jobs_hold_a_token_of_the_cluster(world: World) -> None:
    for name in ("the workspace", "the job"):
        pod = world.pod(name)
        found = kubectl.run(
            "exec", "-n", pod.namespace, pod.name, "--", "find", "/run", "/var/run/", "-name", "*token*"
        )
        assert found == ""


def test_whichever_policy_is_missing_somebody_comes_through_or_is_barred(world: World) -> None:
    """The last test of the file: the server stands still from here on, so that nothing is repaired."""
    image = platform_image()
    kubectl.run("scale", f"deploy/{RELEASE.fullname}-server", "-n", RELEASE.namespace, "--replicas=0")
    kubectl.run("wait", "pod", "-n", RELEASE.namespace, "-l", OF_THE_SERVER, "--for=delete", "--timeout=90s")
    world.walls.planted.append(Visitor(server_stand_in(image), "8090"))
    seen = world.walls.until(lambda seen: not wrong(seen))
    assert wrong(seen) == []
    unnoticed = []
    for namespace in (RELEASE.namespace, RELEASE.agents, TENANTS[0]):
        for policy in kubectl.items("networkpolicies", "-n", namespace):
            name = policy["metadata"]["name"]
            with walls.without(namespace, name):
                noticed = wrong(world.walls.until(wrong, MISSED_WITHIN_S))
            print(f"without {namespace}/{name}: {noticed or 'nothing'}")
            unnoticed += [] if noticed else [f"{namespace}/{name}"]
            assert wrong(world.walls.until(lambda seen: not wrong(seen))) == []
    assert unnoticed == []


def wrong(seen: walls.Seen) -> list[str]:
    return leaks(seen, TABLE) + barred(seen, TABLE)


def asked(pod: walls.Pod, token: str, requests: list[list[Any]]) -> list[int]:
    """Return the statuses of requests that are made inside a pod, each with a token from its environment."""
    python = (walls.PYTHON, "-I", "-c", ASK, token, json.dumps(requests))
    return list(json.loads(kubectl.run("exec", "-n", pod.namespace, pod.name, "-c", pod.container, "--", *python)))
