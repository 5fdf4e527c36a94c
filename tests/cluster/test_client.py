"""The client's verbs on a real API server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.cluster import kubectl
from tests.cluster.objects import absent, make_tenant, plan, shape_of, until, workspace
from tests.podspecs.examples import DIGEST, GIB, JOB
from torpor_hub.cluster import kinds
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.watch import Watch
from torpor_hub.domain.units import Amount
from torpor_hub.errors import (
    ClusterError,
    ClusterUnavailable,
    ObjectConflict,
    ObjectExists,
    ObjectMissing,
    VersionExpired,
)
from torpor_hub.podspecs.job import job_object, job_secret
from torpor_hub.podspecs.policy import TenantPolicy, violations
from torpor_hub.podspecs.tenant import namespace_object, tenant_objects

pytestmark = pytest.mark.cluster


def config_map(namespace: str, name: str = "one", **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": {"kind": name}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def make_namespace(cluster: Cluster, prefix: str, name: str = "research") -> str:
    made = await cluster.apply(namespace_object(replace(plan(), name=name), shape_of(prefix)))
    return str(made["metadata"]["name"])


def test_what_was_made_can_be_read_found_changed_and_removed(reach: Access, prefix: str) -> None:
    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_namespace(cluster, prefix)
            await cluster.create(config_map(namespace, "one", a="1"))
            await cluster.create(config_map(namespace, "two", a="1"))
            assert (await cluster.get(kinds.CONFIG_MAP, "one", namespace))["data"] == {"a": "1"}
            found = await cluster.list(kinds.CONFIG_MAP, namespace, labels="kind=two")
            assert [item["metadata"]["name"] for item in found.items] == ["two"]
            assert [kinds.of(item) for item in found.items] == [kinds.CONFIG_MAP]
            named = await cluster.list(kinds.CONFIG_MAP, namespace, fields="metadata.name=one")
            assert len(named.items) == 1
            changed = await cluster.patch(kinds.CONFIG_MAP, "one", {"data": {"a": None, "b": "2"}}, namespace)
            assert changed["data"] == {"b": "2"}
            await cluster.delete(kinds.CONFIG_MAP, "one", namespace)
            with pytest.raises(ObjectMissing):
                await cluster.get(kinds.CONFIG_MAP, "one", namespace)

    asyncio.run(run())


def test_an_object_is_made_once_and_a_change_of_an_old_version_is_refused(reach: Access, prefix: str) -> None:
    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_namespace(cluster, prefix)
            first = await cluster.create(config_map(namespace))
            with pytest.raises(ObjectExists):
                await cluster.create(config_map(namespace))
            await cluster.patch(kinds.CONFIG_MAP, "one", {"data": {"a": "1"}}, namespace)
            old = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"a": "2"}}
            with pytest.raises(ObjectConflict):
                await cluster.patch(kinds.CONFIG_MAP, "one", old, namespace)
            with pytest.raises(ObjectMissing):
                await cluster.create(config_map(f"{prefix}nowhere"))

    asyncio.run(run())


def test_a_dry_run_makes_nothing(reach: Access, prefix: str) -> None:
    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_namespace(cluster, prefix)
            await cluster.create(config_map(namespace), dry_run=True)
            await cluster.apply(config_map(namespace), dry_run=True)
            with pytest.raises(ObjectMissing):
                await cluster.get(kinds.CONFIG_MAP, "one", namespace)

    asyncio.run(run())


def test_applying_again_changes_nothing_and_takes_back_what_others_changed(reach: Access, prefix: str) -> None:
    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_namespace(cluster, prefix)
            first = await cluster.apply(config_map(namespace, a="1", b="1"))
            again = await cluster.apply(config_map(namespace, a="1", b="1"))
            assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
            await cluster.patch(kinds.CONFIG_MAP, "one", {"data": {"a": "theirs", "c": "theirs"}}, namespace)
            repaired = await cluster.apply(config_map(namespace, a="1"))
            assert repaired["data"] == {"a": "1", "c": "theirs"}

    asyncio.run(run())


def test_everything_of_a_tenant_may_be_applied_at_any_time(reach: Access, prefix: str) -> None:
    made, shape = plan(), shape_of(prefix, registry_host="registry.example:5000")

    async def versions(cluster: Cluster) -> list[str]:
        await cluster.apply(namespace_object(made, shape))
        applied = [await cluster.apply(thing) for thing in tenant_objects(made, shape)]
        # Of quotas and budgets, others write the status.
        return [thing["metadata"]["resourceVersion"] for thing in applied if "status" not in thing]

    async def run() -> None:
        async with Cluster(reach) as cluster:
            first = await versions(cluster)
            assert len(first) >= 9
            assert await versions(cluster) == first

    asyncio.run(run())


def test_a_removal_meant_for_another_object_of_that_name_is_refused(reach: Access, prefix: str) -> None:
    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_namespace(cluster, prefix)
            old = await cluster.create(config_map(namespace))
            await cluster.delete(kinds.CONFIG_MAP, "one", namespace, uid=old["metadata"]["uid"])
            new = await cluster.create(config_map(namespace))
            with pytest.raises(ObjectConflict):
                await cluster.delete(kinds.CONFIG_MAP, "one", namespace, uid=old["metadata"]["uid"])
            kept = await cluster.get(kinds.CONFIG_MAP, "one", namespace)
            assert kept["metadata"]["uid"] == new["metadata"]["uid"]

    asyncio.run(run())


def test_the_pods_that_the_platform_makes_pass_the_walls_that_it_makes(reach: Access, prefix: str) -> None:
    shape = shape_of(prefix)
    image = f"registry.example:5000/torpor/profiles/small@{DIGEST}"
    namespace = f"{prefix}research"
    policy = TenantPolicy(
        "ten-1", namespace, shape.service_account, ("registry.example:5000/torpor/",), Amount(2000, GIB)
    )

    async def run() -> None:
        async with Cluster(reach) as cluster:
            await make_tenant(cluster, plan(), shape)
            passed = await cluster.create(workspace(shape, image=image), dry_run=True)
            # Nothing was added that a workspace must not have.
            assert violations(passed, policy) == ()
            job = job_object(replace(JOB, image=image), shape)
            made = await cluster.create({**job, "spec": {**job["spec"], "suspend": True}})
            secret = await cluster.create(job_secret(JOB, shape, made["metadata"]["uid"]))
            template = made["spec"]["template"]
            metadata = {**template["metadata"], "name": "as-made", "namespace": namespace}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
            passed = await cluster.create(pod, dry_run=True)
            assert violations(passed, policy) == ()
            async with Watch(cluster, kinds.SECRET, fields=f"metadata.name={secret['metadata']['name']}") as secrets_:
                secrets_.add(namespace)
                await until(secrets_, lambda: secrets_.snapshot().objects)
                await cluster.delete(kinds.JOB, job["metadata"]["name"], namespace)
                await until(secrets_, lambda: not secrets_.snapshot().objects)

    asyncio.run(run())


def test_a_watch_goes_on_where_an_earlier_one_ended(reach: Access, prefix: str) -> None:
    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_namespace(cluster, prefix)
            before = (await cluster.list(kinds.CONFIG_MAP, namespace, labels="kind=one")).version
            await cluster.create(config_map(namespace))
            await cluster.delete(kinds.CONFIG_MAP, "one", namespace)
            watch = cluster.watch(kinds.CONFIG_MAP, namespace, version=before, labels="kind=one", within_s=30)
            changes: list[str] = []
            async with aclosing(watch):
                while len(changes) < 2:
                    change = (await anext(watch)).change
                    changes += [change] if change != "BOOKMARK" else []
            assert changes == ["ADDED", "DELETED"]

    asyncio.run(run())


@contextmanager
def just_made() -> Iterator[kinds.Kind]:
    """Give a kind that the server has not had before: it remembers nothing of the time before its definition."""
    made = kinds.Kind(f"hc-{secrets.token_hex(3)}.torpor.test/v1", "Thing", "things")
    group = made.api.partition("/")[0]
    schema = {"openAPIV3Schema": {"type": "object"}}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": made.plural, "kind": made.name},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
    }
    name = f"{made.plural}.{group}"
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    kubectl.apply({**definition, "metadata": {"name": name}, "spec": spec})
    try:
        kubectl.run("wait", f"crd/{name}", "--for=condition=Established", "--timeout=60s")
        yield made
    finally:
        kubectl.run("delete", "crd", name)


def test_a_version_that_the_server_has_forgotten_is_said_as_such(reach: Access) -> None:
    async def run(kind: kinds.Kind) -> None:
        async with Cluster(reach) as cluster:
            for _ in range(60):
                # A kind that was just established is not served everywhere yet, or its memory is not ready.
                with suppress(ObjectMissing, ClusterUnavailable):
                    async for event in cluster.watch(kind, "default", version="1", within_s=1):
                        assert event.change == "BOOKMARK"
                await asyncio.sleep(0.5)

    with just_made() as kind, pytest.raises(VersionExpired):
        asyncio.run(run(kind))


class CountingCluster(Cluster):
    """Counts what is asked."""

    def __init__(self, reach: Access) -> None:
        super().__init__(reach)
        self.lists = self.watches = 0
        self.asked = asyncio.Event()

    async def list(self, *arguments: Any, **named: Any) -> Any:
        self.lists += 1
        return await super().list(*arguments, **named)

    def watch(self, *arguments: Any, **named: Any) -> Any:
        self.watches += 1
        if self.watches == 3:
            self.asked.set()
        return super().watch(*arguments, **named)


def test_watches_that_end_and_go_on_cost_no_further_list(reach: Access, prefix: str) -> None:
    async def run() -> None:
        async with CountingCluster(reach) as cluster:
            namespace = await make_namespace(cluster, prefix)
            async with Watch(cluster, kinds.CONFIG_MAP, labels="kind", within_s=2) as watch:
                watch.add(namespace)
                await cluster.asked.wait()
                await cluster.create(config_map(namespace))
                await until(watch, lambda: watch.snapshot().objects)
                assert cluster.lists == 1

    asyncio.run(run())


def test_namespaces_come_and_go_while_the_others_stay_known(reach: Access, prefix: str) -> None:
    async def run() -> None:
        async with Cluster(reach) as cluster:
            one, two = [await make_namespace(cluster, prefix, name) for name in ("one", "two")]
            await cluster.create(config_map(one))
            async with Watch(cluster, kinds.CONFIG_MAP, labels="kind") as watch:
                watch.follow([one])
                assert not watch.snapshot().current
                assert await watch.known(one, within_s=30)
                assert (one, "one") in watch.snapshot().objects
                assert not watch.snapshot().knows(two)
                watch.follow([one, two])
                assert await watch.known(two, within_s=30)
                await cluster.create(config_map(two, "late"))
                assert await until(watch, lambda: watch.snapshot().objects.get((two, "late")))
                watch.follow([two])
                assert list(watch.snapshot().objects) == [(two, "late")]
                await cluster.delete(kinds.CONFIG_MAP, "late", two)
                await until(watch, lambda: not watch.snapshot().objects)
                assert watch.snapshot().current

    asyncio.run(run())


def test_the_last_lines_of_a_program_can_be_read_and_its_arguments_are_what_was_given(
    reach: Access, prefix: str
) -> None:
    shape = shape_of(prefix)

    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_tenant(cluster, plan(), shape)
            async with Watch(cluster, kinds.POD) as pods:
                pods.add(namespace)
                await cluster.create(workspace(shape, workspace_id="ws-0", image=absent("127.0.0.1:1")))
                await until(pods, lambda: status(pods, namespace, "ws-0").get("containerStatuses"))
                assert await cluster.logs("ws-0", namespace, lines=5) == ""
                await cluster.create(workspace(shape, args=("-conf", "$(HOME)/nope")))
                await until(pods, lambda: status(pods, namespace, "ws-1").get("phase") == "Failed")
            assert "open $(HOME)/nope: no such file" in await cluster.logs("ws-1", namespace, lines=5)
            with pytest.raises(ObjectMissing):
                await cluster.logs("ws-2", namespace, lines=5)

    asyncio.run(run())


def status(pods: Watch, namespace: str, name: str) -> dict[str, Any]:
    return dict(pods.snapshot().objects.get((namespace, name), {}).get("status", {}))


def test_an_address_where_nobody_answers_is_unknown_and_no_kind_of_no(reach: Access) -> None:
    async def run() -> None:
        async with Cluster(replace(reach, server="https://127.0.0.1:1")) as cluster:
            with pytest.raises(ClusterUnavailable, match="does not answer"):
                await cluster.list(kinds.POD, "default")

    asyncio.run(run())


def test_a_kind_that_the_platform_does_not_make_is_refused_before_it_is_sent(reach: Access) -> None:
    async def run() -> None:
        async with Cluster(reach) as cluster:
            with pytest.raises(ClusterError, match="no kind that the platform makes"):
                await cluster.create({"apiVersion": "v2", "kind": "Pod", "metadata": {"name": "x"}})

    asyncio.run(run())
