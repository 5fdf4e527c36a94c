"""A start that waits says for what, for as long as it does."""

from __future__ import annotations

import pytest

from tests.controllers.test_workspaces_on_pods import SCHEDULED, Json, Play, World, play
from torpor_hub.controllers import workspaces

__all__ = ["play"]  # a fixture
CREATING: Json = {"waiting": {"reason": "ContainerCreating"}}
RETRIED: Json = {"waiting": {"reason": "ErrImagePull", "message": "dial tcp: i/o timeout"}}


def placed(state: Json, phase: str = "Pending") -> Json:
    return {"phase": phase, "conditions": SCHEDULED, "containerStatuses": [{"state": state}]}


def test_each_thing_that_a_pod_waits_for_is_on_its_page_and_the_end_says_none_of_it(play: Play) -> None:
    async def work(world: World) -> None:
        key = world.create()
        world.wish(key, desired="running")
        await world.until(lambda: world.pod(key) is not None, "its pod is made")
        for status, told in (
            ({"phase": "Pending"}, "Looking for a node with room."),
            (placed(CREATING), "Fetching the image and mounting volumes."),
            (placed(RETRIED), "The image's registry does not answer yet."),
            (placed({"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "Running"), "The server starts."),
        ):
            world.report(key, **status)
            await world.until(lambda told=told: world.row(key).message == told, told)  # type: ignore[misc]
            assert world.row(key).phase == "STARTING"
        world.come_up(key)
        assert (await world.phase(key, "RUNNING"))["message"] == ""

    play(work)


@pytest.mark.parametrize("routed", [False, None], ids=["no route yet", "hub away"])
def test_a_workspace_that_answers_is_running_once_the_proxy_leads_to_it(play: Play, routed: bool | None) -> None:
    async def work(world: World) -> None:
        key = world.create()
        world.hub.routed = routed
        world.wish(key, desired="running")
        await world.until(lambda: world.pod(key) is not None, "its pod is made")
        world.come_up(key)
        for _ in range(5):
            await world.turn()
        assert world.row(key).phase == "STARTING"
        world.hub.routed = True
        await world.phase(key, "RUNNING")

    play(work)


def test_a_hub_that_stays_away_keeps_no_start_from_its_end(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspaces, "ROUTE_WITHIN_S", 0)

    async def work(world: World) -> None:
        key = world.create()
        world.hub.routed = None
        assert (await world.run(key))["phase"] == "RUNNING"

    play(work)
