"""Workspaces as pods where things fail: what is recorded, what is freed, and what is never taken for ended."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.controllers.playing import Play, player
from tests.controllers.pod_platform import PodPlatform, fresh_settings
from tests.places.test_pods_and_faults import FakeImages, ended
from tests.support.fake_cluster import FakeCluster, node
from torpor_hub.cluster import kinds
from torpor_hub.cluster.shape import shape_of
from torpor_hub.domain import ids
from torpor_hub.errors import RegistryUnavailable
from torpor_hub.podspecs import names
from torpor_hub.podspecs.tenant import TenantPlan, home_object
from torpor_hub.services import tenancy
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Workspace

NAMESPACE = "torpor-research"
Json = dict[str, Any]


class World(PodPlatform):
    """The platform over a fake cluster in which the homes of all members are there; ``values`` are settings."""

    def __init__(self, folder: Path, store: Store, **values: Any) -> None:
        self.cluster, self.registry = FakeCluster(), FakeImages()
        settings = fresh_settings(folder, store, registry={"host": "registry.example"}, **values)
        registry: Any = self.registry
        super().__init__(store, settings, self.cluster.client, registry)
        self.cluster.put(node("node-0"))
        for plan in self.do(lambda tx: tenancy.plans(tx, settings)):
            self._make_homes(plan)

    def _make_homes(self, plan: TenantPlan) -> None:
        for user_id in plan.user_ids:
            self.cluster.put(home_object(plan, user_id, shape_of(self.settings)))

    def pod(self, key: str) -> Json | None:
        return self.cluster.objects.get((kinds.POD, NAMESPACE, key))

    def report(self, key: str, **status: Any) -> None:
        """Let the pod's node say how it stands."""
        pod = self.pod(key)
        assert pod is not None
        self.cluster.put({**pod, "spec": pod["spec"] | {"nodeName": "node-0"}, "status": status})

    def come_up(self, key: str) -> None:
        ready = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
        container = {"containerID": "containerd://c0ffee", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        self.report(key, phase="Running", conditions=ready, containerStatuses=[container])

    async def run(self, key: str) -> Json:
        """Start a workspace up to its first answer."""
        self.wish(key, desired="running")
        return await self.run_on(key)

    async def run_on(self, key: str) -> Json:
        """Go on with a start up to its first answer."""
        await self.until(lambda: self.pod(key) is not None, "its pod is made")
        self.come_up(key)
        return await self.phase(key, "RUNNING")

    def gone(self, key: str) -> bool:
        return self.do(lambda tx: tx.session.get(Workspace, key)) is None

    def give_checkpoint(self, key: str, number: int = 1) -> str:
        """Record a checkpoint, and the workspace asleep on it."""

        def write(tx: UnitOfWork) -> str:
            row = tx.session.get_one(Workspace, key)
            saved = Checkpoint(
                id=ids.new("ckp"),
                workspace_id=key,
                tenant_id=row.tenant_id,
                repository=f"torpor/workspaces/research/{key}",
                digest=f"sha256:{number:064x}",
                layers=[],
                python_version="3.13",
                platform_version="0.1.0",
                created_at=tx.now,
            )
            tx.session.add(saved)
            row.previous_checkpoint_id, row.checkpoint_id, row.unsaved = row.checkpoint_id, saved.id, False
            row.phase = "ASLEEP"
            return saved.digest

        return self.do(write)


@pytest.fixture
def play(store: Store, tmp_path: Path) -> Play:
    return player(partial(World, tmp_path, store))


def test_a_start_is_recorded_with_where_it_runs(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        row, pod = world.row(key), world.pod(key)
        assert pod is not None
        assert (row.handle, row.node, row.container) == (pod["metadata"]["uid"], "node-0", "c0ffee")
        assert world.held() == 1000

    play(work)


PULLING = {"reason": "ErrImagePull", "message": "registry.example/x: not found"}
SCHEDULED = [{"type": "PodScheduled", "status": "True"}]
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "1 Insufficient cpu"}
DOOMED: dict[str, tuple[Json, str]] = {
    "image": (
        {"phase": "Pending", "conditions": SCHEDULED, "containerStatuses": [{"state": {"waiting": PULLING}}]},
        "IMAGE_MISSING",
    ),
    "room": ({"phase": "Pending", "conditions": [UNSCHEDULABLE]}, "NO_ROOM"),
    "memory": (ended(137, "OOMKilled"), "OUT_OF_MEMORY"),
    "crash": (ended(3, "Error"), "CRASHED"),
    "package": (ended(1, "Error"), "BROKEN_ENVIRONMENT"),
}


@pytest.mark.parametrize(("status", "reason"), DOOMED.values(), ids=DOOMED.keys())
def test_a_start_that_can_never_succeed_ends_with_its_cause_and_leaves_nothing(
    play: Play, status: Json, reason: str
) -> None:
    async def work(world: World) -> None:
        key = world.create()
        digest = world.give_checkpoint(key)
        world.wish(key, desired="running")
        await world.until(lambda: world.pod(key) is not None, "its pod is made")
        await world.until(lambda: bool(world.row(key).handle), "it is recorded")
        broken = reason == "BROKEN_ENVIRONMENT"
        world.cluster.log_of[key] = "ModuleNotFoundError: No module named 'x'" if broken else "first\nlast words"
        at_removal: list[str] = []
        world.cluster.meddle = lambda: at_removal.append(world.row(key).last_log)
        world.report(key, **status)
        shown = await world.phase(key, "FAILED")
        assert shown["reason"] == reason
        assert shown["message"]
        assert shown["next_step"]
        assert world.pod(key) is None
        assert world.held() == 0
        assert at_removal == [world.cluster.log_of[key]], "the log was not stored before the pod was removed"
        assert world.row(key).last_log == world.cluster.log_of[key]
        world.cluster.meddle = lambda: None
        await world.run(key)
        pod = world.pod(key)
        assert pod is not None
        assert pod["spec"]["containers"][0]["image"].endswith(f"@{digest}"), "a failed start cost the saved environment"

    play(work)


def test_a_pod_that_vanished_is_lost_and_its_page_says_what_that_cost(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        world.cluster.drop(kinds.POD, key, NAMESPACE)
        shown = await world.phase(key, "STOPPED")
        assert shown["reason"] == "LOST"
        assert "was never saved: what was installed in it is lost" in shown["lost"]
        assert world.held() == 0

    play(work)


def test_a_late_or_lying_watch_ends_nothing(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        pod = world.pod(key)
        assert pod is not None
        # The watch tells of an end that never was.
        world.cluster._tell("DELETED", pod)
        for _ in range(5):
            await world.turn()
            await asyncio.sleep(0.01)
        assert world.show(key)["phase"] == "RUNNING"
        assert world.pod(key) == pod, "a pod that runs was removed"
        assert world.held() == 1000

    play(work)


@pytest.mark.parametrize("fault", ["down", "denied"])
def test_while_the_api_server_does_not_answer_nothing_is_recorded(play: Play, fault: str) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        before = world.row(key).version
        if fault == "down":
            world.cluster.down = True
        else:
            world.cluster.denied.add(NAMESPACE)
        world.cluster.break_watches()
        for _ in range(10):
            await world.turn()
            await asyncio.sleep(0.02)
        assert (world.show(key)["phase"], world.row(key).version) == ("RUNNING", before)
        assert world.held() == 1000

    play(work)


def test_while_its_node_is_off_a_workspace_is_unreachable_and_then_runs_again(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        world.cluster.put(node("node-0", ready="Unknown"))
        shown = await world.phase(key, "UNREACHABLE")
        assert shown["reason"] == "NODE_LOST"
        assert "node-0" in shown["message"]
        assert world.held() == 1000
        world.cluster.put(node("node-0"))
        await world.phase(key, "RUNNING")

    play(work)


def test_a_start_whose_node_goes_off_is_unreachable_and_comes_up_with_the_node(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        world.wish(key, desired="running")
        await world.until(lambda: world.pod(key) is not None, "its pod is made")
        world.report(key, phase="Pending", conditions=SCHEDULED)
        await world.until(lambda: bool(world.row(key).handle), "it is recorded")
        world.cluster.put(node("node-0", ready="Unknown"))
        shown = await world.phase(key, "UNREACHABLE")
        assert (shown["reason"], shown["operation"]) == ("NODE_LOST", None)
        world.cluster.put(node("node-0"))
        world.come_up(key)
        await world.phase(key, "RUNNING")
        assert world.row(key).container == "c0ffee", "without its container it can never be put to sleep"

    play(work)


def test_a_sleep_whose_node_goes_off_is_given_up_and_the_workspace_is_unreachable(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        world.wish(key, desired="asleep")
        assert world.show(key)["phase"] == "SLEEPING"
        world.cluster.put(node("node-0", ready="Unknown"))
        shown = await world.phase(key, "UNREACHABLE")
        assert shown["reason"] == "NODE_LOST"
        for _ in range(5):
            await world.turn()
        assert world.show(key)["phase"] == "UNREACHABLE"
        assert world.pod(key) is not None

    play(work)


def test_a_confirmed_end_removes_the_pod_and_frees_what_it_held(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        world.wish(key, desired="stopped", discard=True)
        shown = await world.phase(key, "STOPPED")
        assert shown["reason"] == "DISCARDED"
        assert (world.pod(key), world.held()) == (None, 0)

    play(work)


def test_a_wake_waits_for_a_registry_that_is_away_and_says_so(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        digest = world.give_checkpoint(key)
        world.registry.fault = RegistryUnavailable("The registry registry.example does not answer; try again.")
        world.wish(key, desired="running")
        await world.until(lambda: "registry.example" in world.show(key)["message"], "it says what it waits for")
        version = world.row(key).version
        for _ in range(3):
            await world.turn()
        assert world.row(key).version == version, "the same sentence was recorded again"
        assert world.show(key)["phase"] == "WAKING"
        world.registry.fault = None
        await world.run_on(key)
        pod = world.pod(key)
        assert pod is not None
        assert pod["spec"]["containers"][0]["image"].endswith(digest)

    play(work)


def test_a_checkpoint_that_is_gone_is_replaced_by_the_one_before_and_the_page_says_so(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        first = world.give_checkpoint(key, 1)
        second = world.give_checkpoint(key, 2)
        world.registry.missing = {second}
        world.wish(key, desired="running")
        await world.run_on(key)
        pod = world.pod(key)
        assert pod is not None
        assert pod["spec"]["containers"][0]["image"].endswith(first)
        assert "could not be read, so an older one was used" in world.show(key)["notice"]

    play(work)


def test_without_any_checkpoint_that_reads_back_the_start_fails_and_says_how_to_go_on(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        world.registry.missing = {world.give_checkpoint(key)}
        world.wish(key, desired="running")
        shown = await world.phase(key, "FAILED")
        assert shown["reason"] == "CORRUPT_CHECKPOINT"
        assert "profile's own environment" in shown["next_step"]

    play(work)


def test_a_deleted_workspace_takes_its_pod_with_it_even_when_the_watch_has_not_seen_it(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        pod = world.pod(key)
        assert pod is not None
        world.cluster._tell("DELETED", pod)
        with world.store.begin("ada") as tx:
            row = tx.session.get_one(Workspace, key)
            row.desired, row.phase = "deleted", "DELETING"
        await world.until(lambda: world.pod(key) is None, "its pod is gone")
        await world.until(lambda: world.gone(key), "it is forgotten")

    play(work)


def test_a_home_that_is_not_made_yet_is_waited_for(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        claim = names.home_claim(world.row(key).user_id)
        home = world.cluster.objects[kinds.CLAIM, NAMESPACE, claim]
        world.cluster.drop(kinds.CLAIM, claim, NAMESPACE)
        world.wish(key, desired="running")
        await world.until(lambda: "still being made" in world.show(key)["message"], "it says so")
        assert world.pod(key) is None, "a pod without its home can never start"
        world.cluster.put(home)
        await world.run_on(key)

    play(work)
