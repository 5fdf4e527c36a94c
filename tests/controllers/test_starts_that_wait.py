"""A start that waits says for what, for as long as it does."""

from __future__ import annotations

from tests.controllers.test_workspaces_on_pods import SCHEDULED, Json, Play, World, play

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
