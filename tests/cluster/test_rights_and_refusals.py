"""The platform's accounts with nothing but their rights, and what an API server really says when it refuses."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.cluster.objects import make_tenant, plan, refused, shape_of, workspace
from tests.podspecs.examples import GIB
from torpor_hub.cluster import kinds
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.watch import Watch
from torpor_hub.domain.units import Amount
from torpor_hub.errors import Denied
from torpor_hub.podspecs import rights
from torpor_hub.podspecs.shape import ClusterShape

pytestmark = pytest.mark.cluster


def kubectl(*words: str, content: Any = None) -> str:
    given = json.dumps(content) if content is not None else None
    return subprocess.run(["kubectl", *words], input=given, capture_output=True, text=True, check=True).stdout


def with_token(reach: Access, token: str) -> Access:
    """Return the way to the same cluster with a token, and without the administrator's certificate."""
    authorities = reach.tls.get_ca_certs(binary_form=True)
    tls = ssl.create_default_context(cadata="".join(ssl.DER_cert_to_PEM_cert(each) for each in authorities))
    return replace(reach, tls=tls, token_text=token)


@pytest.fixture
def installation(reach: Access, prefix: str) -> Iterator[ClusterShape]:
    """A platform's accounts and roles, under names of the test's own."""
    shape = shape_of(
        prefix,
        fullname=f"{prefix}torpor",
        tenant_hub_role=f"{prefix}tenant-hub",
        tenant_controller_role=f"{prefix}tenant-controller",
    )
    kubectl("create", "namespace", shape.platform_namespace)
    for account in (shape.hub_account, shape.server_account, shape.api_account):
        kubectl("-n", shape.platform_namespace, "create", "serviceaccount", account)
    made = [thing for role in rights.roles(shape).values() for thing in _role_objects(role, shape)]
    kubectl("apply", "-f", "-", content={"apiVersion": "v1", "kind": "List", "items": made})
    yield shape
    kubectl("delete", "-f", "-", content={"apiVersion": "v1", "kind": "List", "items": made})


def _role_objects(role: rights.Role, shape: ClusterShape) -> Iterator[dict[str, Any]]:
    api = "rbac.authorization.k8s.io"
    metadata = {"name": role.name}
    yield {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rights.rules(role)}
    if not role.in_tenants:
        yield {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": role.name},
            "subjects": [{"kind": "ServiceAccount", "name": role.account, "namespace": shape.platform_namespace}],
        }


def sign_in(reach: Access, shape: ClusterShape, account: str) -> Cluster:
    token = kubectl("-n", shape.platform_namespace, "create", "token", account).strip()
    return Cluster(with_token(reach, token))


def test_the_controller_makes_a_whole_tenant_and_the_hub_its_pods_with_their_own_rights(
    reach: Access, installation: ClusterShape
) -> None:
    async def run() -> None:
        async with (
            sign_in(reach, installation, installation.server_account) as controller,
            sign_in(reach, installation, installation.hub_account) as hub,
        ):
            namespace = await make_tenant(controller, plan(), installation)
            pod = await hub.create(workspace(installation))
            assert [item["metadata"]["name"] for item in (await hub.list(kinds.POD, namespace)).items] == ["ws-1"]
            denied = await refused(hub.delete(kinds.POD, "ws-1", namespace))
            assert isinstance(denied, Denied)
            assert (denied.reason, denied.message) == ("FORBIDDEN", "The platform may not delete pods there.")
            assert isinstance(await refused(hub.list(kinds.SECRET, namespace)), Denied)
            assert isinstance(await refused(controller.list(kinds.SECRET, "kube-system")), Denied)
            await controller.delete(kinds.POD, "ws-1", namespace, uid=pod["metadata"]["uid"], grace_s=0)

    asyncio.run(run())


def test_a_namespace_without_rights_is_unknown_and_hides_no_other(reach: Access, installation: ClusterShape) -> None:
    async def run() -> None:
        async with (
            sign_in(reach, installation, installation.server_account) as controller,
            sign_in(reach, installation, installation.hub_account) as hub,
            Watch(hub, kinds.POD) as pods,
        ):
            namespace = await make_tenant(controller, plan(), installation)
            pods.follow([namespace, "kube-system"])
            assert await pods.known(namespace, within_s=30)
            snapshot = pods.snapshot()
            assert snapshot.unknown == {"kube-system"}
            assert not snapshot.current

    asyncio.run(run())


Change = Callable[[dict[str, Any]], None]


def larger(amount: Amount) -> Change:
    values = {
        "cpu": f"{amount.cpu_milli}m",
        "memory": str(amount.memory_bytes),
        "nvidia.com/gpu": str(amount.gpu_count),
    }

    def change(pod: dict[str, Any]) -> None:
        pod["spec"]["containers"][0]["resources"] = {"requests": dict(values), "limits": dict(values)}

    return change


def on_the_nodes_network(pod: dict[str, Any]) -> None:
    pod["spec"]["hostNetwork"] = True


REFUSALS = {
    "QUOTA": (larger(Amount(100, GIB // 8, 2)), "GPUs: 2 asked, 0 of 1 in use"),
    "LIMIT_RANGE": (larger(Amount(100, 3 * GIB, 0)), "memory: 3 GiB asked, at most 1 GiB allowed"),
    "POD_SECURITY": (on_the_nodes_network, "host namespaces (hostNetwork=true)"),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_of_the_cluster_is_said_as_people_say_it(reach: Access, prefix: str, reason: str) -> None:
    change, sentence = REFUSALS[reason]
    shape = shape_of(prefix)

    async def run() -> None:
        async with Cluster(reach) as cluster:
            await make_tenant(cluster, plan(), shape)
            pod = workspace(shape)
            change(pod)
            denied = await refused(cluster.create(pod))
            assert isinstance(denied, Denied)
            assert denied.reason == reason
            assert sentence in denied.message
            assert denied.next_step

    asyncio.run(run())


def test_a_full_share_says_what_is_in_use(reach: Access, prefix: str) -> None:
    shape = shape_of(prefix)

    async def run() -> None:
        async with Cluster(reach) as cluster:
            await make_tenant(cluster, plan(Amount(1000, GIB)), shape)
            await cluster.create(workspace(shape, amount=Amount(100, GIB * 3 // 4)))
            more = workspace(shape, workspace_id="ws-2", amount=Amount(100, GIB // 2))
            denied = await refused(cluster.create(more))
            assert isinstance(denied, Denied)
            assert "memory: 512 MiB asked, 768 MiB of 1 GiB in use" in denied.message

    asyncio.run(run())


def test_a_policy_of_the_cluster_is_quoted(reach: Access, prefix: str) -> None:
    shape, name = shape_of(prefix), f"{prefix}policy"
    api = "admissionregistration.k8s.io/v1"
    selector = {"matchLabels": {"kubernetes.io/metadata.name": f"{prefix}research"}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    validation = {"expression": "false", "message": "images must be named by digest"}
    constraints = {"namespaceSelector": selector, "resourceRules": [rule]}
    policy = {
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {"failurePolicy": "Fail", "matchConstraints": constraints, "validations": [validation]},
    }
    binding = {
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    made = {"apiVersion": "v1", "kind": "List", "items": [policy, binding]}

    async def until_denied(cluster: Cluster) -> Exception:
        # The API server takes a policy up a moment after it was made.
        async with asyncio.timeout(30):
            while True:
                try:
                    await cluster.create(workspace(shape), dry_run=True)
                except Denied as error:
                    return error

    async def run() -> None:
        async with Cluster(reach) as cluster:
            await make_tenant(cluster, plan(), shape)
            kubectl("apply", "-f", "-", content=made)
            denied = await until_denied(cluster)
            assert isinstance(denied, Denied)
            assert denied.reason == "POLICY"
            assert denied.message == "A policy of the cluster does not allow this: images must be named by digest."

    try:
        asyncio.run(run())
    finally:
        kubectl("delete", "-f", "-", content=made)


def test_a_namespace_that_is_being_removed_takes_nothing_new(reach: Access, prefix: str) -> None:
    shape = shape_of(prefix)

    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_tenant(cluster, plan(), shape)
            held = {"metadata": {"finalizers": ["example.org/hold"]}}
            await cluster.patch(kinds.SERVICE_ACCOUNT, shape.service_account, held, namespace)
            await cluster.delete(kinds.NAMESPACE, namespace)
            try:
                denied = await refused(cluster.create(workspace(shape)))
                assert isinstance(denied, Denied)
                assert denied.reason == "NAMESPACE_ENDING"
            finally:
                free = {"metadata": {"finalizers": None}}
                await cluster.patch(kinds.SERVICE_ACCOUNT, shape.service_account, free, namespace)

    asyncio.run(run())
