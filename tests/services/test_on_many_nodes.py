"""What differs where workspaces are containers on nodes: whose capture it is, how long it stays frozen, what a loss costs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.services.test_workspaces import RESULT, World
from tests.support.installation import settings_in
from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.lifecycle import Next, StartStep, View, Work, decide
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Desired, Fact, Phase, SleepStep
from torpor_hub.errors import Conflict
from torpor_hub.services import captures, images, ledger, operations, people, sleeps, starts, tenants, wakes
from torpor_hub.settings import ClusterSettings
from torpor_hub.settings.cluster import HomeSettings
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Profile

NODE, CONTAINER = "node-7", "c0ffee"


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return World(store, tmp_path)


def run_on_node(world: World) -> str:
    key = world.create()
    world.wish(key, desired="running")
    world.do(lambda tx: starts.prepared(tx, operations.workspace_of(tx, key), from_checkpoint="", notice=""))
    grant = world.answer(key)
    assert isinstance(grant, starts.Granted)
    fact = Fact(key, grant.id, alive=True, answering=True, handle="uid-1", node=NODE, container=CONTAINER, frozen=None)
    world.do(lambda tx: starts.running(tx, operations.workspace_of(tx, key), fact))
    return key


def saved(world: World, key: str, *, frozen_s: float) -> captures.Claim:
    """Put it to sleep up to a verified capture that stays frozen for so long."""
    world.wish(key, desired="asleep")
    claim = world.do(lambda tx: captures.claim(tx, world.settings, "agent", NODE))
    assert claim is not None
    result = replace(RESULT, frozen_s=frozen_s)
    assert world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, result))
    return claim


def removing(world: World, key: str) -> bool:
    return world.do(lambda tx: sleeps.removing(tx, operations.workspace_of(tx, key)))


def test_a_capture_goes_to_the_agent_of_its_node_alone(world: World) -> None:
    key = run_on_node(world)
    world.wish(key, desired="asleep")
    assert world.do(lambda tx: captures.claim(tx, world.settings, "elsewhere", "node-8")) is None
    claim = world.do(lambda tx: captures.claim(tx, world.settings, "here", NODE))
    assert claim is not None
    assert (claim.node, claim.container, claim.handle) == (NODE, CONTAINER, "uid-1")


def test_a_saved_workspace_is_removed_only_while_it_surely_stays_frozen(world: World) -> None:
    key = run_on_node(world)
    saved(world, key, frozen_s=sleeps.REMOVAL / timedelta(seconds=1) - 1)
    assert not removing(world, key)
    assert world.show(key)["status"]["phase"] == "SLEEPING"


def test_one_that_is_thawed_after_it_was_saved_goes_back_to_work() -> None:
    fact = Fact("ws", "gr", alive=True, answering=True, handle="uid", frozen=None)
    view = View(Phase.SLEEPING, Desired.ASLEEP, "gr", Work("sleep", SleepStep.REMOVE, thaws=True), fact)
    assert decide(view) is Next.BACK_TO_WORK
    frozen = View(Phase.SLEEPING, Desired.ASLEEP, "gr", Work("sleep", SleepStep.REMOVE), fact)
    assert decide(frozen) is Next.REMOVE


def test_an_agent_that_ends_thaws_what_nobody_removes_yet(world: World) -> None:
    key = run_on_node(world)
    claim = saved(world, key, frozen_s=600)
    assert world.do(lambda tx: captures.thawing(tx, claim.operation, claim.fence))
    assert not removing(world, key)


def test_an_agent_that_ends_leaves_alone_what_is_being_removed(world: World) -> None:
    key = run_on_node(world)
    claim = saved(world, key, frozen_s=600)
    assert removing(world, key)
    assert not world.do(lambda tx: captures.thawing(tx, claim.operation, claim.fence))


def test_what_a_lost_container_had_not_saved_is_lost_and_the_page_says_since_when(world: World) -> None:
    key = run_on_node(world)
    saved(world, key, frozen_s=600)
    world.do(lambda tx: sleeps.removed(tx, world.settings, operations.workspace_of(tx, key)))
    world.wish(key, desired="running")
    world.run(key, "uid-2")
    world.do(
        lambda tx: wakes.gone(tx, operations.workspace_of(tx, key), exit_code=None, log="", handle="uid-2", kept=False)
    )
    status = world.show(key)["status"]
    assert status["phase"] == "STOPPED"
    assert status["lost"].startswith("What was changed in its environment since 20")
    assert status["lost"].endswith("is lost; files in the home are not.")
    preparation, _ = world.do(lambda tx: starts.preparation(tx, operations.workspace_of(tx, key)))
    assert preparation.checkpoint is not None


def test_the_page_names_node_image_and_gpu_and_what_a_home_on_one_node_costs(world: World) -> None:
    with world.store.begin("test") as tx:
        profile = tx.session.scalars(select(Profile).where(Profile.is_default.is_(True))).one()
        profile.image, profile.gpu_count = "registry.example/workspace:1", 1
        people.tenant_named(tx, "research").gpu_count = 2
        ledger.set_pool(tx, Amount(16_000, 64 * 1024**3, 2), Amount())
    key = run_on_node(world)
    status = world.show(key)["status"]
    assert (status["node"], status["image"], status["amount"]["gpu_count"]) == (NODE, "registry.example/workspace:1", 1)
    assert status["notes"] == [
        "The home can be used on one node at a time: all workspaces and jobs of ada in 'research' run on 'node-7', and wait "
        "when it has no room."
    ]
    held = {item["name"]: item for item in world.do(lambda tx: tenants.tenants(tx, world.actor(tx)))}["research"]
    assert (held["spec"]["gpu_count"], held["status"]["used"]["gpu_count"], held["status"]["free"]["gpu_count"]) == (
        2,
        1,
        1,
    )


def test_a_home_that_many_nodes_can_use_costs_nothing(world: World) -> None:
    shared = ClusterSettings(homes=HomeSettings(access_mode="ReadWriteMany"))
    world.settings = world.settings.model_copy(update={"cluster": shared})
    assert world.show(run_on_node(world))["status"]["notes"] == []


def test_a_workspace_that_holds_nothing_names_no_node(world: World) -> None:
    key = run_on_node(world)
    world.do(
        lambda tx: wakes.gone(tx, operations.workspace_of(tx, key), exit_code=0, log="", handle="uid-1", kept=False)
    )
    assert (world.show(key)["status"]["node"], world.show(key)["status"]["notes"]) == (None, [])


def test_a_profile_without_its_image_cannot_be_chosen_and_says_why(world: World) -> None:
    with world.store.begin("test") as tx:
        large = tenants.profile_named(tx, "large")
        large.image, large.problem = "registry.example/none:1", "The image 'registry.example/none:1' is not there."
    shown = {item["name"]: item["status"] for item in world.do(tenants.profiles)}["large"]
    assert (shown["phase"], shown["usable"], shown["message"]) == ("FAILED", False, large.problem)
    with pytest.raises(Conflict, match="cannot be used now: The image 'registry"):
        world.create(profile="large")
    with world.store.begin("test") as tx:
        tenants.profile_named(tx, "large").digest = "sha256:older"
    shown = {item["name"]: item["status"] for item in world.do(tenants.profiles)}["large"]
    assert (shown["phase"], shown["usable"], shown["message"]) == ("READY", True, large.problem)
    assert world.create(profile="large")


def test_a_start_that_waits_says_for_what(world: World) -> None:
    key = world.create()
    world.wish(key, desired="running")
    world.do(lambda tx: starts.prepared(tx, operations.workspace_of(tx, key), from_checkpoint="", notice=""))
    world.answer(key)
    pulling = "Fetching the image and mounting volumes."
    world.do(lambda tx: starts.waiting(tx, operations.workspace_of(tx, key), StartStep.LAUNCH, pulling))
    status = world.show(key)["status"]
    assert (status["phase"], status["message"], status["progress"]) == ("STARTING", pulling, 60)
    told = world.do(lambda tx: starts.overdue(tx, operations.workspace_of(tx, key), 180))
    assert told == f"{pulling} The start was given up after 180 seconds."


QUOTA = Cause("QUOTA", "The tenant's share of the cluster is used up.", "Put a workspace to sleep.")


def granted(world: World) -> str:
    key = world.create()
    world.wish(key, desired="running")
    world.do(lambda tx: starts.prepared(tx, operations.workspace_of(tx, key), from_checkpoint="", notice=""))
    world.answer(key)
    return key


def test_what_keeps_the_cluster_from_taking_the_pod_is_on_the_page_while_it_does(world: World) -> None:
    key = granted(world)
    world.do(lambda tx: starts.hindered(tx, operations.workspace_of(tx, key), QUOTA, final=False))
    status = world.show(key)["status"]
    assert (status["phase"], status["message"], status["next_step"]) == ("STARTING", QUOTA.message, QUOTA.next_step)


def test_a_start_that_the_hub_gave_up_holds_nothing_says_why_and_the_next_one_begins_anew(world: World) -> None:
    key = granted(world)
    world.do(lambda tx: starts.hindered(tx, operations.workspace_of(tx, key), QUOTA, final=True))
    status = world.show(key)["status"]
    assert (status["phase"], status["reason"], status["message"]) == ("FAILED", "QUOTA", QUOTA.message)
    assert world.held() == 0
    assert isinstance(world.answer(key), starts.Waiting)


def test_of_a_server_that_was_made_the_hub_decides_nothing(world: World) -> None:
    key = run_on_node(world)
    world.do(lambda tx: starts.hindered(tx, operations.workspace_of(tx, key), QUOTA, final=True))
    assert (world.show(key)["status"]["phase"], world.held()) == ("RUNNING", 1000)


def test_a_checkpoint_keeps_the_base_that_it_was_made_on_when_the_profile_moves_on(
    store: Store, tmp_path: Path
) -> None:
    world = World(store, tmp_path)
    world.settings = settings_in(tmp_path, registry={"host": "registry.example"})
    digests = ["sha256:" + letter * 64 for letter in "ab"]
    key = _on_image(world, digests[0])
    base = f"torpor/profiles/small@{digests[0]}"
    _move_on(world, digests[1])
    claim = saved(world, key, frozen_s=600)
    assert claim.base == base, "what a workspace was started from was taken for what its profile has now"
    world.do(lambda tx: sleeps.removed(tx, world.settings, operations.workspace_of(tx, key)))
    row = world.do(lambda tx: tx.session.get(Checkpoint, operations.workspace_of(tx, key).checkpoint_id))
    assert row is not None
    assert row.base == base
    world.wish(key, desired="running")
    checkpoint_id = row.id
    world.do(lambda tx: starts.prepared(tx, operations.workspace_of(tx, key), from_checkpoint=checkpoint_id, notice=""))
    grant = world.answer(key)
    assert isinstance(grant, starts.Granted)
    fact = Fact(key, grant.id, alive=True, answering=True, handle="uid-2", node=NODE, container=CONTAINER, frozen=None)
    world.do(lambda tx: starts.running(tx, operations.workspace_of(tx, key), fact))
    assert world.do(lambda tx: images.base_of(tx, world.settings, operations.workspace_of(tx, key))) == base


def _on_image(world: World, digest: str) -> str:
    """Start a workspace whose profile has this image, and return its id."""
    _move_on(world, digest)
    return run_on_node(world)


def _move_on(world: World, digest: str) -> None:
    def write(tx: UnitOfWork) -> None:
        row = tx.session.scalars(select(Profile).where(Profile.name == "small")).one()
        row.image, row.digest = "registry.example/team/image:1", digest

    world.do(write)
