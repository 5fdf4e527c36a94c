"""Nodes that an admin empties: their workspaces go to sleep, a few at once, and say why."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.controllers.playing import Play, player
from tests.controllers.test_workspaces_on_pods import World
from tests.support.fake_cluster import node
from torpor_hub.domain.workspaces import SleepStep
from torpor_hub.services import operations, sleeps
from torpor_hub.stores.base import Store, UnitOfWork

DRAIN = {"torpor/drain": "true"}


@pytest.fixture
def play(store: Store, tmp_path: Path) -> Play:
    return player(partial(World, tmp_path, store))


async def turns(world: World, count: int = 5) -> None:
    for _ in range(count):
        await world.turn()
        await asyncio.sleep(0.01)


def fall_asleep(world: World, key: str) -> None:
    """Record what an agent's verified capture, and the removal after it, would."""

    def write(tx: UnitOfWork) -> None:
        row = operations.workspace_of(tx, key)
        operation = operations.current(tx, row)
        assert operation is not None
        operation.step = SleepStep.REMOVE
        sleeps.removed(tx, world.settings, row)

    world.do(write)


def test_workspaces_of_a_node_that_is_emptied_fall_asleep_two_at_once_and_say_why(play: Play) -> None:
    async def work(world: World) -> None:
        keys = [world.create(name) for name in ("first", "second", "third")]
        for key in keys:
            await world.run(key)
        world.cluster.put(node("node-0", labels=DRAIN))
        await world.until(lambda: phases(world, keys).count("SLEEPING") == 2, "two go to sleep")
        await turns(world)
        assert sorted(phases(world, keys)) == ["RUNNING", "SLEEPING", "SLEEPING"]
        going = keys[phases(world, keys).index("SLEEPING")]
        assert world.show(going)["reason"] == "NODE_DRAINING"
        assert "its node is being emptied by an admin" in world.show(going)["message"]
        fall_asleep(world, going)
        shown = world.show(going)
        assert (shown["phase"], shown["reason"]) == ("ASLEEP", "NODE_DRAINING")
        assert "its node is being emptied by an admin" in shown["message"]
        assert shown["next_step"] == "Wake it when you like."
        await world.until(lambda: phases(world, keys).count("SLEEPING") == 2, "the third one's turn has come")

    play(work)


def phases(world: World, keys: list[str]) -> list[str]:
    return [world.show(key)["phase"] for key in keys]


@pytest.mark.parametrize("spared", [{"labels": {"torpor/drain": "false"}}, {"unschedulable": True}])
def test_a_cordon_or_the_label_false_puts_nobody_to_sleep(play: Play, spared: dict[str, Any]) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        world.cluster.put(node("node-0", **spared))
        await turns(world)
        assert world.show(key)["phase"] == "RUNNING"

    play(work)


def test_who_keeps_working_there_is_left_alone_for_a_while(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        world.cluster.put(node("node-0", labels=DRAIN))
        await world.phase(key, "SLEEPING")
        world.wish(key, desired="running")
        await world.phase(key, "RUNNING")
        await turns(world)
        assert world.show(key)["phase"] == "RUNNING"

    play(work)


def test_where_nothing_is_saved_the_page_says_once_what_the_node_takes_with_it(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        await world.run(key)
        world.cluster.put(node("node-0", labels=DRAIN))
        await world.until(lambda: world.show(key)["reason"] == "NODE_DRAINING", "it is told")
        shown, version = world.show(key), world.row(key).version
        assert shown["phase"] == "RUNNING"
        assert "cannot be saved" in shown["message"]
        assert world.pod(key) is not None, "whoever drains the node ends it, and nobody else"
        await turns(world)
        assert world.row(key).version == version, "the same was told again"
        world.cluster.put(node("node-0"))
        await world.until(lambda: world.show(key)["reason"] == "", "the node stays")

    play(work, save_environments=False)
