"""What a place of pods says when the cluster fails: never that something has ended which may still run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.podspecs.examples import DIGEST
from tests.support.fake_cluster import FakeCluster, node
from torpor_hub.cluster import kinds
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint, Fact, WorkspaceRun
from torpor_hub.errors import ImageMissing, PlaceError, PlaceUnready, RegistryUnavailable
from torpor_hub.oci.images import Descriptor, Image
from torpor_hub.places import kubernetes, pod_facts
from torpor_hub.places.base import Preparation
from torpor_hub.places.kubernetes import KubernetesPlace
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan, home_object
from torpor_hub.podspecs.workspace import workspace_pod

GIB = 1024**3
SHAPE = ClusterShape("torpor", registry_host="registry.example")
PLAN = TenantPlan("ten-1", "research", Amount(4000, 8 * GIB), ("usr-1",))
CHECKPOINT = Checkpoint("ckp-1", "torpor/workspaces/research/ws-1", DIGEST, "3.13", "0.1.0")
Json = dict[str, Any]


class FakeImages:
    """A registry that has every image but those that are ``missing``, unless ``fault`` says otherwise."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.lost: set[str] = set()
        self.missing: set[str] = set()

    def read_image(self, repository: str, digest: str) -> Image:
        if self.fault is not None:
            raise self.fault
        if digest in self.missing:
            raise ImageMissing(f"There is no image {digest}.")
        return Image(Descriptor("config", "sha256:c", 1), (), {})

    def has_blob(self, repository: str, digest: str, size_bytes: int) -> bool:
        return digest not in self.lost

    def delete_manifest(self, repository: str, digest: str) -> None:
        self.missing.add(digest)


class World:
    """The place over a fake cluster of one tenant or two, with its nodes."""

    def __init__(self, tenants: tuple[str, ...] = ("research",)) -> None:
        self.cluster, self.images = FakeCluster(), FakeImages()
        images: Any = self.images
        self.place = KubernetesPlace(self.cluster.client, SHAPE, images, lambda: tenants)
        for name in ("node-0", "node-1"):
            self.cluster.put(node(name))
        self.cluster.put(home_object(PLAN, "usr-1", SHAPE))

    def pod(self, workspace_id: str = "ws-1", *, tenant: str = "research", grant: str = "gr-1", **status: Any) -> Json:
        """Put a pod on node-0 as if it ran, with these parts of its status changed."""
        amount = Amount(1000, GIB)
        run = WorkspaceRun(
            workspace_id, grant, "w", tenant, "ada", "small", amount, "/r", "/h", tenant_id="ten-1", user_id="usr-1"
        )
        made = workspace_pod(run, SHAPE, args=(), environment={}, base_url="/")
        made["spec"]["nodeName"] = "node-0"
        made["status"] = {
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"containerID": "containerd://abc", "state": {"running": {}}}],
        } | status
        return self.cluster.put(made)

    async def fact(self, workspace_id: str = "ws-1") -> Fact | None:
        return (await self.place.facts()).get(workspace_id)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(20):
            while not await condition():
                await asyncio.sleep(0.01)


def run(work: Callable[[World], Awaitable[None]], **values: Any) -> None:
    async def inside() -> None:
        world = World(**values)
        try:
            await work(world)
        finally:
            await world.place.aclose()

    asyncio.run(inside())


def preparation(checkpoint: Checkpoint | None = None) -> Preparation:
    return Preparation("ws-1", "research", "ada", "ten-1", "usr-1", checkpoint=checkpoint)


def test_a_running_pod_is_a_fact_with_its_node_and_container() -> None:
    async def work(world: World) -> None:
        pod = world.pod()
        fact = await world.fact()
        assert fact == Fact(
            *("ws-1", "gr-1", True, True, pod["metadata"]["uid"]), frozen=None, node="node-0", container="abc"
        )

    run(work)


def test_where_the_api_server_is_away_nothing_is_known() -> None:
    async def work(world: World) -> None:
        world.cluster.down = True
        with pytest.raises(PlaceError, match="does not say which pods there are"):
            await world.place.facts()
        with pytest.raises(PlaceError, match="does not answer"):
            await world.place.find("ws-1")
        with pytest.raises(PlaceError, match="does not answer"):
            await world.place.capacity()
        with pytest.raises(PlaceUnready, match="does not answer"):
            await world.place.prepare(preparation())

    run(work)


def test_a_namespace_that_cannot_be_listed_any_more_hides_none_of_its_workspaces_and_no_others() -> None:
    async def work(world: World) -> None:
        world.pod("ws-1", tenant="research")
        world.pod("ws-2", tenant="operations")
        assert len(await world.place.facts()) == 2
        world.cluster.denied.add("torpor-operations")
        world.cluster.break_watches("torpor-operations")

        async def unknown() -> bool:
            fact = await world.fact("ws-2")
            return fact is not None and fact.alive is None

        await world.until(unknown)
        await world.until(lambda: _alive(world, "ws-1"))
        with pytest.raises(PlaceError):
            await world.place.find("ws-2")

    run(work, tenants=("research", "operations"))


async def _alive(world: World, workspace_id: str) -> bool:
    fact = await world.fact(workspace_id)
    return fact is not None and fact.alive is True


@pytest.mark.parametrize("ready", ["Unknown", "False"])
def test_a_workspace_whose_node_is_off_lives_and_cannot_be_reached(ready: str) -> None:
    async def work(world: World) -> None:
        world.pod()
        assert await _alive(world, "ws-1")
        world.cluster.put(node("node-0", ready=ready))

        async def lost() -> bool:
            fact = await world.fact()
            return fact is not None and not fact.reachable

        await world.until(lost)
        for fact in (await world.fact(), await world.place.find("ws-1")):
            assert fact is not None
            assert (fact.alive, fact.answering, fact.reachable) == (True, False, False)
            assert fact.verdict is not None
            assert fact.verdict.reason == "NODE_LOST"
        world.cluster.put(node("node-0"))
        await world.until(lambda: _answers(world))

    run(work)


async def _answers(world: World) -> bool:
    fact = await world.fact()
    return fact is not None and fact.answering is True and fact.verdict is None


def test_a_pod_that_should_have_ended_long_ago_lives_until_it_is_gone() -> None:
    async def work(world: World) -> None:
        pod = world.pod()
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        world.cluster.put(pod)
        assert await _alive(world, "ws-1")

    run(work)


def test_what_was_removed_is_not_said_to_run_by_a_watch_that_is_late() -> None:
    async def work(world: World) -> None:
        pod = world.pod()
        assert await _alive(world, "ws-1")
        world.cluster.silent = True
        await world.place.remove("ws-1", pod["metadata"]["uid"], grace_s=0)
        assert await world.fact() is None

    run(work)


def test_a_start_that_took_the_name_meanwhile_is_left_alone() -> None:
    async def work(world: World) -> None:
        old = world.pod(grant="gr-1")
        assert await _alive(world, "ws-1")

        def replace() -> None:
            world.cluster.drop(kinds.POD, "ws-1", "torpor-research")
            world.pod(grant="gr-2")

        world.cluster.meddle = replace
        await world.place.remove("ws-1", old["metadata"]["uid"], grace_s=0)
        fact = await world.place.find("ws-1")
        assert fact is not None
        assert fact.grant_id == "gr-2"

    run(work)


def test_a_pod_that_does_not_end_is_not_said_to_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "ENDS_WITHIN_S", -0.5)

    async def work(world: World) -> None:
        pod = world.pod()
        world.cluster.stuck = True
        with pytest.raises(PlaceError, match="has not ended within"):
            await world.place.remove("ws-1", pod["metadata"]["uid"], grace_s=1)
        assert await _alive(world, "ws-1")
        with pytest.raises(PlaceUnready, match="still ending"):
            await world.place.prepare(preparation(CHECKPOINT))

    run(work)


def test_a_start_waits_for_its_home_and_says_so() -> None:
    async def work(world: World) -> None:
        home = home_object(PLAN, "usr-1", SHAPE)
        name = home["metadata"]["name"]
        world.cluster.drop(kinds.CLAIM, name, "torpor-research")
        with pytest.raises(PlaceUnready, match="still being made"):
            await world.place.prepare(preparation())
        world.cluster.put({**home, "metadata": home["metadata"] | {"labels": {}}})
        with pytest.raises(PlaceUnready, match="not this platform's"):
            await world.place.prepare(preparation())
        world.cluster.put({**home, "status": {"phase": "Lost"}})
        with pytest.raises(PlaceError, match="volume of the home is lost"):
            await world.place.prepare(preparation())
        # A class that waits for its first consumer makes no volume before the pod.
        world.cluster.put({**home, "status": {"phase": "Pending"}})
        await world.place.prepare(preparation())

    run(work)


def test_a_registry_that_is_away_is_waited_for_and_one_that_lost_the_image_is_told() -> None:
    async def work(world: World) -> None:
        await world.place.prepare(preparation(CHECKPOINT))
        world.images.fault = RegistryUnavailable("The registry registry.example does not answer.")
        with pytest.raises(PlaceUnready, match=r"registry\.example does not answer"):
            await world.place.prepare(preparation(CHECKPOINT))
        world.images.fault = ImageMissing("gone")
        with pytest.raises(ImageMissing):
            await world.place.prepare(preparation(CHECKPOINT))
        world.images.fault, world.images.lost = None, {"sha256:c"}
        with pytest.raises(ImageMissing, match="sha256:c"):
            await world.place.prepare(preparation(CHECKPOINT))

    run(work)


UNSCHEDULABLE = {
    "phase": "Pending",
    "containerStatuses": [],
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 Insufficient cpu.",
        }
    ],
}


def ended(code: int, why: str, **more: Any) -> Json:
    state = {"terminated": {"exitCode": code, "reason": why}}
    return {"phase": "Failed", "conditions": [], "containerStatuses": [{"state": state}], **more}


PULLING = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "True"}],
    "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "x: not found"}}}],
}
VERDICTS: dict[str, tuple[Json, str | None, int | None]] = {
    "image missing": (PULLING, "IMAGE_MISSING", None),
    "no room": (UNSCHEDULABLE, "NO_ROOM", None),
    "out of memory": (ended(137, "OOMKilled"), "OUT_OF_MEMORY", -9),
    "crash": (ended(3, "Error"), None, 3),
    "killed": (ended(139, "Error"), None, -11),
    "evicted": (ended(137, "Error", reason="Evicted", message="Memory was low."), "REMOVED_BY_NODE", -9),
}


@pytest.mark.parametrize(("status", "reason", "code"), VERDICTS.values(), ids=VERDICTS.keys())
def test_a_place_says_why_where_it_knows_more_than_an_exit_code(
    status: Json, reason: str | None, code: int | None
) -> None:
    async def work(world: World) -> None:
        world.pod(**status)
        fact = await world.fact()
        assert fact is not None
        assert (fact.verdict.reason if fact.verdict else None, fact.exit_code) == (reason, code)
        assert fact.alive is (code is None)

    run(work)


def test_nodes_lend_what_they_have_less_what_others_ask_for() -> None:
    nodes = [node("a"), node("b", unschedulable=True), node("c", ready="Unknown"), node("d", cpu="1500m")]
    assert pod_facts.lent(nodes, {}, Amount()) == Amount(5500, 16 * GIB, 2)
    assert pod_facts.lent(nodes, {}, Amount(2000, GIB)) == Amount(2000, 14 * GIB, 2)
    assert pod_facts.lent(nodes, {"kubernetes.io/hostname": "d"}, Amount()) == Amount(1500, 8 * GIB, 1)


@pytest.mark.parametrize(("cpu", "said"), [("500m", "has free is 0.5 cores"), ("4", "No node has 1 core free.")])
def test_what_is_free_is_said_only_where_it_explains_why_there_is_no_room(cpu: str, said: str) -> None:
    async def work(world: World) -> None:
        for name in ("node-0", "node-1"):
            world.cluster.put(node(name, cpu=cpu))
        world.pod(**UNSCHEDULABLE)
        pod = world.cluster.objects[kinds.POD, "torpor-research", "ws-1"]
        world.cluster.put({**pod, "spec": {key: value for key, value in pod["spec"].items() if key != "nodeName"}})
        fact = await world.fact()
        assert fact is not None
        assert fact.verdict is not None
        assert fact.verdict.message.rstrip(".").endswith(said.rstrip("."))

    run(work)
