"""What every place must do. A new place joins by one fixture parameter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.place_worlds import PodWorld, ProcessWorld, World
from torpor_hub.domain.workspaces import Checkpoint
from torpor_hub.errors import CorruptImage, FailpointError, PlaceError

WORLDS = [
    pytest.param(ProcessWorld, id="process"),
    pytest.param(PodWorld, id="kubernetes", marks=pytest.mark.cluster),
]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made: World = request.param(tmp_path / "state")
    yield made
    made.close()


def test_a_place_without_workspaces_lists_none_and_says_what_it_lends(world: World) -> None:
    assert world.run(world.place.facts()) == {}
    assert world.find() is None
    lent = world.run(world.place.capacity())
    assert lent.cpu_milli > 0
    assert lent.memory_bytes > 0
    assert world.run(world.place.last_lines(world.workspace_id, 10)) == ""


def test_a_started_workspace_is_a_fact_until_it_is_removed(world: World) -> None:
    world.prepare()
    assert world.find() is None, "prepared is not started"
    handle = world.start()
    assert world.until(world.answering)
    for fact in (world.fact(), world.find()):
        assert fact is not None
        assert (fact.alive, fact.handle, fact.grant_id) == (True, handle, world.grants[handle])
        assert (fact.exit_code, fact.verdict, fact.reachable) == (None, None, True)
        assert fact.started_at is not None
    assert world.run(world.place.last_lines(world.workspace_id, 1)) == "ready to answer"
    world.remove(handle)
    assert not world.is_there(handle)
    assert world.fact() is None, "what was removed is still said to run"
    assert world.find() is None
    world.remove(handle)


def test_a_server_that_ends_by_itself_stays_a_fact_with_its_exit_code(world: World) -> None:
    world.prepare()
    handle = world.start()
    assert world.until(world.answering)
    world.end_with(3)
    assert world.until(lambda: (fact := world.fact()) is not None and fact.alive is False)
    for fact in (world.fact(), world.find()):
        assert fact is not None
        assert (fact.handle, fact.answering, fact.exit_code, fact.verdict) == (handle, False, 3, None)
    assert world.run(world.place.last_lines(world.workspace_id, 5)) == "ready to answer"
    world.remove(handle)
    assert world.find() is None


def test_a_removal_by_an_old_handle_leaves_the_present_start_alone(world: World) -> None:
    world.prepare()
    first = world.start()
    assert world.until(world.answering)
    world.remove(first, grace_s=0)
    second = world.start()
    assert world.until(world.answering)
    world.remove(first, grace_s=0)
    assert world.is_there(second)
    assert world.answering(), "a removal by an old handle ended the present start"
    fact = world.find()
    assert fact is not None
    assert (fact.handle, fact.alive) == (second, True)
    for nonsense in ("", "nonsense"):
        with pytest.raises(PlaceError):
            world.remove(nonsense)
    assert world.is_there(second)


def test_a_running_workspace_is_neither_restored_nor_discarded(world: World) -> None:
    world.prepare()
    checkpoint = world.save()
    handle = world.start()
    assert world.until(world.answering)
    with pytest.raises(PlaceError, match="runs"):
        world.prepare(fresh=True)
    with pytest.raises(PlaceError, match="runs"):
        world.prepare(checkpoint)
    for discard in (world.place.discard, world.place.discard_environment):
        with pytest.raises(PlaceError, match="runs"):
            world.run(discard(world.workspace_id))
    world.prepare()
    assert world.is_there(handle)
    world.remove(handle)


def test_what_an_earlier_start_left_does_not_stand_in_the_way_of_the_next(world: World) -> None:
    world.prepare()
    first = world.start()
    assert world.until(world.answering)
    world.end_with(1)
    assert world.until(lambda: (fact := world.fact()) is not None and fact.alive is False)
    world.prepare()
    second = world.start()
    assert world.until(world.answering)
    fact = world.find()
    assert fact is not None
    assert fact.handle == second != first


@pytest.mark.parametrize("harm", ["blob lost", "manifest unknown"])
def test_a_checkpoint_that_is_not_whole_is_told_before_anything_starts(world: World, harm: str) -> None:
    world.prepare()
    whole = world.save()
    world.prepare(whole)
    if harm == "blob lost":
        world.lose_layer(whole)
        broken = whole
    else:
        broken = Checkpoint("ckp-1", whole.repository, "sha256:" + "0" * 64, whole.python_version, "0.1.0")
    with pytest.raises(CorruptImage):
        world.prepare(broken, fresh=True)
    assert world.find() is None


def test_a_removal_that_was_interrupted_is_repeated(world: World, armed: Path) -> None:
    world.prepare()
    handle = world.start()
    assert world.until(world.answering)
    (armed / "place.removed").write_text("error")
    with pytest.raises(FailpointError):
        world.remove(handle)
    world.remove(handle)
    assert not world.is_there(handle)
    assert world.find() is None


def test_a_discard_may_be_repeated_and_leaves_nothing_to_be_found(world: World) -> None:
    world.prepare()
    handle = world.start()
    assert world.until(world.answering)
    world.remove(handle)
    for _ in range(2):
        world.run(world.place.discard_environment(world.workspace_id))
        world.run(world.place.discard(world.workspace_id))
    assert world.find() is None


def test_an_id_that_is_a_path_is_refused(world: World) -> None:
    for hostile in ("", ".", "..", "../homes", "/tmp", f"../workspaces/{world.workspace_id}"):
        with pytest.raises(PlaceError, match="not the id"):
            world.run(world.place.discard(hostile))
