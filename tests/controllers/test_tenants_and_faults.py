"""The tenants' controller where the cluster fails or is not what it should be; on a real one see tests/cluster."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.controllers.playing import Play, player
from tests.controllers.pod_platform import fresh_settings
from tests.support.fake_cluster import FakeCluster
from torpor_hub.cluster import kinds
from torpor_hub.cluster.kinds import Kind
from torpor_hub.cluster.shape import shape_of
from torpor_hub.controllers import tenants, upkeep
from torpor_hub.controllers.base import Leadership
from torpor_hub.controllers.tenants import TenantController
from torpor_hub.errors import ClusterUnavailable
from torpor_hub.podspecs import drift, names
from torpor_hub.podspecs.tenant import tenant_objects
from torpor_hub.stores.base import Store, take_lease
from torpor_hub.stores.tables import Change, Tenant

NAMESPACE = "torpor-research"
WRITES = ("POST", "PATCH", "DELETE")
Json = dict[str, Any]


class World:
    """Two tenants, a fake cluster, and the controller; a test takes the turns."""

    def __init__(self, folder: Path, store: Store, **values: Any) -> None:
        self.store, self.cluster = store, FakeCluster()
        self.settings = fresh_settings(folder, store, registry={"host": "registry.example"}, **values)
        self.lead = Leadership(store, lifetime_s=600)
        self.lead.epoch = take_lease(store, "controller", self.lead.holder, 600)
        self.controller = self.new_controller()

    def new_controller(self) -> TenantController:
        return TenantController(self.store, self.settings, self.cluster.client, shape_of(self.settings), self.lead)

    async def aclose(self) -> None:
        await self.controller.aclose()

    @property
    def writes(self) -> int:
        return sum(asked.startswith(WRITES) for asked in self.cluster.asked)

    def tenant(self, name: str = "research") -> Tenant:
        with self.store.read() as tx:
            return tx.session.scalars(select(Tenant).where(Tenant.name == name)).one()

    def told(self, event: str) -> list[str]:
        with self.store.read() as tx:
            query = select(Change).where(Change.kind == "tenant", Change.event == event).order_by(Change.seq)
            rows = [row for row in tx.session.scalars(query) if row.object_id == self.tenant().id]
        return [thing for row in rows for thing in row.payload.get("objects", [row.payload.get("message", "")])]

    def held(self, kind: Kind, name: str, namespace: str = NAMESPACE) -> Json:
        return copy.deepcopy(self.cluster.objects[kind, namespace, name])

    def complete(self, namespace: str = NAMESPACE) -> bool:
        found = self.cluster.objects.get((kinds.NAMESPACE, "", namespace), {})
        return tenants.COMPLETE in found.get("metadata", {}).get("annotations", {})

    async def until(self, condition: Callable[[], object], what: str) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await self.controller.turn()
                await asyncio.sleep(0.01)
        assert condition(), what


@pytest.fixture
def play(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.setattr(tenants, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(tenants, "TELL_AFTER_S", 0.0)
    monkeypatch.setattr(upkeep, "SEEN_WITHIN_S", 0.3)

    return player(partial(World, tmp_path, store))


def test_a_tenant_is_made_once_and_then_nothing_is_written_also_after_a_restart(play: Play) -> None:
    async def work(world: World) -> None:
        await world.until(lambda: world.complete() and world.complete("torpor-operations"), "both are whole")
        assert world.told("repaired") == []
        assert len(world.told("made")) == len(set(world.told("made"))), "something was told twice"
        before = world.writes
        for _ in range(5):
            await world.controller.turn()
        await world.controller.aclose()
        world.controller = world.new_controller()
        for _ in range(5):
            await world.controller.turn()
        assert world.writes == before

    play(work)


def test_a_namespace_of_somebody_else_is_not_touched(play: Play) -> None:
    async def work(world: World) -> None:
        theirs = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"team": "x"}}}
        before = world.cluster.put(theirs)
        await world.until(lambda: world.tenant().problem, "the refusal is told")
        for _ in range(3):
            await world.controller.turn()
        assert world.held(kinds.NAMESPACE, NAMESPACE, "") == before
        assert [place for place in world.cluster.objects if place[1] == NAMESPACE] == []
        assert world.told("refused") == [world.tenant().problem]
        assert world.complete("torpor-operations"), "one tenant's trouble is another's"

    play(work)


def test_a_namespace_of_another_tenants_id_is_refused_with_the_way_to_hand_it_over(play: Play) -> None:
    async def work(world: World) -> None:
        labels = names.managed_labels("tenant", "tn-other")
        world.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
        await world.until(lambda: world.tenant().problem, "the refusal is told")
        assert "tn-other" in world.tenant().problem
        assert f"set its label torpor/tenant to {world.tenant().id}" in world.tenant().problem
        world.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": labels | {names.TENANT: world.tenant().id}},
            }
        )
        await world.until(lambda: world.complete() and not world.tenant().problem, "it is taken up")

    play(work)


def test_a_namespace_of_another_installation_is_not_touched(play: Play) -> None:
    async def work(world: World) -> None:
        labels = names.managed_labels("tenant", world.tenant().id) | {names.INSTANCE: "torpor-x.torpor"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
        before = world.cluster.put(namespace)
        await world.until(lambda: world.tenant().problem, "the refusal is told")
        assert "belongs to another installation of the platform, torpor-x.torpor" in world.tenant().problem
        assert world.held(kinds.NAMESPACE, NAMESPACE, "") == before

    play(work)


def test_what_an_older_version_made_gets_the_installations_mark_and_that_is_no_repair(play: Play) -> None:
    async def work(world: World) -> None:
        await world.until(world.complete, "the tenant is whole")
        volumes = [name for kind, _, name in world.cluster.objects if kind is kinds.VOLUME]
        assert len(volumes) == 2
        await world.controller.aclose()
        for kind, name in [(kinds.NAMESPACE, NAMESPACE), *((kinds.VOLUME, name) for name in volumes)]:
            older = world.held(kind, name, "")
            del older["metadata"]["labels"][names.INSTANCE]
            older["metadata"]["annotations"]["torpor/wish"] = "of an older version"
            world.cluster.put(older)
        world.controller = world.new_controller()
        await world.until(lambda: _marks(world, volumes) == {"torpor.torpor"}, "all have the label")
        assert world.told("repaired") == []
        assert f"Namespace {NAMESPACE}" in world.told("updated")

    play(work, cluster={"data_source": {"nfs": {"server": "files.example", "path": "/data"}}})


def _marks(world: World, volumes: list[str]) -> set[str | None]:
    things = [world.held(kinds.NAMESPACE, NAMESPACE, ""), *(world.held(kinds.VOLUME, name, "") for name in volumes)]
    return {thing["metadata"]["labels"].get(names.INSTANCE) for thing in things}


def test_a_repair_whose_echo_is_late_is_told_once(play: Play) -> None:
    async def work(world: World) -> None:
        await world.until(world.complete, "the tenant is whole")
        quota = world.held(kinds.QUOTA, "torpor")
        quota["spec"]["hard"]["limits.cpu"] = "64"
        world.cluster.put(quota)
        await world.until(lambda: world.told("repaired"), "it is told")
        for _ in range(3):
            await world.controller.turn()
        assert world.told("repaired") == ["ResourceQuota torpor"]
        assert world.held(kinds.QUOTA, "torpor")["spec"]["hard"]["limits.cpu"] == "4000m"

    play(work)


def test_what_cannot_be_seen_is_left_alone(play: Play) -> None:
    async def work(world: World) -> None:
        await world.until(world.complete, "the tenant is whole")
        world.cluster.denied.add(NAMESPACE)
        world.cluster.break_watches(NAMESPACE)
        before = world.writes
        for _ in range(3):
            await world.controller.turn()
        assert world.writes == before, "an object that could not be seen was taken for missing"
        assert world.told("repaired") == []
        world.cluster.denied.clear()
        world.cluster.drop(kinds.SERVICE_ACCOUNT, "torpor-user", NAMESPACE)
        await world.until(lambda: world.told("repaired") == ["ServiceAccount torpor-user"], "then it is repaired")

    play(work)


def test_a_pass_that_broke_off_is_completed_by_the_next(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        whole, left = world.cluster.apply, [4]

        async def failing(thing: Json, **values: Any) -> Json:
            left[0] -= 1
            if left[0] == 0:
                raise ClusterUnavailable("the cluster's API server does not answer")
            return await whole(thing, **values)

        monkeypatch.setattr(world.cluster, "apply", failing)
        await world.until(lambda: world.complete() and world.complete("torpor-operations"), "both are whole")
        wanted = {thing["metadata"]["name"] for thing in tenant_objects(_plan(world), shape_of(world.settings))}
        assert wanted <= {name for _, namespace, name in world.cluster.objects if namespace == NAMESPACE}
        assert world.told("repaired") == [], "what was not made yet is no drift"

    play(work)


def _plan(world: World) -> Any:
    return next(plan for plan in world.controller._plans if plan.name == "research")


POLICY: Json = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all", "labels": {"a": "1"}},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}
QUOTA: Json = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "torpor", "labels": {}},
    "spec": {"hard": {"limits.cpu": "4000m", "limits.memory": "8589934592"}},
}


@pytest.mark.parametrize(
    ("wanted", "change", "differs"),
    [
        (POLICY, {}, False),
        (POLICY, {"metadata": {**POLICY["metadata"], "labels": {"a": "1", "theirs": "2"}}}, False),
        (POLICY, {"metadata": {**POLICY["metadata"], "labels": {"a": "2"}}}, True),
        (POLICY, {"spec": {**POLICY["spec"], "ingress": []}}, False),
        (POLICY, {"spec": {**POLICY["spec"], "ingress": [{}]}}, True),
        (QUOTA, {"spec": {"hard": {"limits.cpu": "4", "limits.memory": "8Gi"}}}, False),
        (QUOTA, {"spec": {"hard": {"limits.cpu": "5", "limits.memory": "8Gi"}}}, True),
        (QUOTA, {"spec": {"hard": {"limits.cpu": "4", "limits.memory": "8Gi", "pods": "0"}}}, True),
        (QUOTA, {"spec": {"hard": {"limits.cpu": "4"}}}, True),
    ],
)
def test_only_what_matters_is_a_difference(wanted: Json, change: Json, differs: bool) -> None:
    assert drift.differs(wanted, {**wanted, **change}) is differs


def test_what_others_put_where_all_is_the_platforms_own_is_removed_by_name() -> None:
    found = {**POLICY, "spec": {**POLICY["spec"], "ingress": [{}]}}
    assert drift.excess(POLICY, found) == {"spec": {"ingress": None}}
    found = {**QUOTA, "spec": {"hard": {**QUOTA["spec"]["hard"], "pods": "0"}}}
    assert drift.excess(QUOTA, found) == {"spec": {"hard": {"pods": None}}}
