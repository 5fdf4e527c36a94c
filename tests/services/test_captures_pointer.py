"""The pointer to a workspace's current checkpoint moves once, from where the sleep found it, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.test_workspaces import RESULT, World
from torpor_hub.errors import StaleFence
from torpor_hub.services import captures, operations, sleeps
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.tables import Checkpoint


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return World(store, tmp_path)


def asleep_soon(world: World) -> tuple[str, captures.Claim]:
    """Return a running workspace on its way to sleep, and the agent's claim."""
    key = world.create()
    world.run(key)
    world.wish(key, desired="asleep")
    claim = world.claim()
    assert claim is not None
    return key, claim


def other_checkpoint(world: World, key: str) -> str:
    """Make another checkpoint the workspace's current one, as a restore by hand does."""

    def move(tx: UnitOfWork) -> None:
        row = operations.workspace_of(tx, key)
        other = Checkpoint(
            id="ckp-other",
            workspace_id=key,
            tenant_id=row.tenant_id,
            repository="r",
            digest="sha256:other",
            base="empty",
            layers=[],
            entries=0,
            size_bytes=0,
            skipped=[],
            python_version="3.11",
            platform_version="0",
            created_at=tx.now,
        )
        tx.session.add(other)
        tx.session.flush()
        row.checkpoint_id = other.id

    world.do(move)
    return "ckp-other"


def test_a_pointer_that_moved_meanwhile_is_not_moved_again_and_nothing_is_removed(world: World) -> None:
    key, claim = asleep_soon(world)
    other = other_checkpoint(world, key)
    assert not world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, RESULT))
    world.do(lambda tx: sleeps.back_to_work(tx, operations.workspace_of(tx, key)))
    status = world.show(key)["status"]
    assert (status["phase"], status["reason"], status["checkpoint"]["id"]) == ("RUNNING", "CONFLICT", other)
    assert world.held() == 1000


def test_a_result_that_is_reported_twice_moves_the_pointer_once(world: World) -> None:
    key, claim = asleep_soon(world)
    answers = [
        world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, RESULT)) for _ in range(2)
    ]
    status = world.show(key)["status"]
    assert (answers, status["checkpoint"]["digest"], status["has_previous"]) == ([True, True], "sha256:new", False)


def test_a_result_that_comes_after_the_sleep_was_given_up_moves_nothing(world: World) -> None:
    key, claim = asleep_soon(world)
    world.do(lambda tx: sleeps.overdue(tx, operations.workspace_of(tx, key)))
    with pytest.raises(StaleFence):
        world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, RESULT))
    assert world.show(key)["status"]["checkpoint"] is None


def test_a_checkpoint_that_waits_for_the_end_of_a_sleep_is_what_the_sleep_saved(world: World) -> None:
    key, claim = asleep_soon(world)
    row = lambda tx: operations.workspace_of(tx, key)  # noqa: E731
    waiting, _ = world.do(lambda tx: captures.request_checkpoint(tx, world.settings, row(tx)))
    assert waiting is not None
    assert world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, RESULT))
    world.do(lambda tx: sleeps.removed(tx, world.settings, row(tx)))
    operation = world.do(lambda tx: operations.get(tx, waiting))
    assert (operation.step, operation.result_digest) == ("DONE", RESULT.digest)
    assert operation.ended_at is not None
