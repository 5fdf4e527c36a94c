"""What is true of workspaces as local processes alone: their folders, their reaper, and what is restored into them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.place_worlds import PLATFORM, POOL, ProcessWorld
from tests.processes.workspace_runs import until
from torpor_hub.domain.workspaces import Checkpoint
from torpor_hub.errors import CorruptImage, EnvironmentMismatch, FailpointError, PlaceError
from torpor_hub.processes import freeze, identity, launch, layering, records


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ProcessWorld]:
    made = ProcessWorld(tmp_path / "state")
    yield made
    made.close()


def test_the_pool_is_lent_as_it_is_set(world: ProcessWorld) -> None:
    assert asyncio.run(world.place.capacity()) == POOL


def test_a_server_is_asked_to_end_before_it_is_ended_and_its_environment_stays(world: ProcessWorld) -> None:
    world.prepare()
    handle = world.start()
    assert until(world.answering)
    fact = world.fact()
    assert fact is not None
    assert fact.port == world.port
    world.remove(handle)
    assert world.processes() == []
    assert (world.home / "ended-politely").exists()
    assert world.env.is_dir(), "a removal touched the environment"


def test_a_server_that_was_killed_stays_a_fact_with_its_signal(world: ProcessWorld) -> None:
    world.prepare()
    handle = world.start()
    assert until(world.answering)
    identity.send(identity.parse(_record(world).server), signal.SIGKILL)
    assert until(lambda: _record(world).exit_code is not None and not identity.alive(identity.parse(handle)))
    fact = world.fact()
    assert fact is not None
    assert (fact.alive, fact.answering, fact.exit_code) == (False, False, -9)
    assert world.processes() == []


def test_a_frozen_workspace_is_removed_without_moving(world: ProcessWorld) -> None:
    world.prepare()
    handle = world.start()
    assert until(world.answering)
    freeze.freeze(world.root, handle, 60)
    fact = world.fact()
    assert fact is not None
    assert (fact.alive, fact.answering) == (True, None), "a server that stands still cannot be said to answer"
    world.remove(handle, grace_s=30)
    assert world.processes() == []
    assert world.fact() is None
    assert freeze.read_lease(world.root) is None
    assert not (world.home / "ended-politely").exists(), "it was thawed to end, and could change after its capture"


def test_after_the_reaper_was_killed_a_removal_leaves_nothing(world: ProcessWorld) -> None:
    world.prepare()
    handle = world.start()
    assert until(world.answering)
    os.kill(identity.parse(handle).pid, signal.SIGKILL)
    assert until(lambda: not identity.alive(identity.parse(handle)))
    assert world.processes() != [], "nothing outlived the reaper: there is nothing to sweep"
    world.remove(handle)
    assert world.processes() == []


def test_a_record_that_cannot_be_read_is_unknown_and_not_stopped(world: ProcessWorld) -> None:
    world.prepare()
    handle = world.start()
    assert until(world.answering)
    record = world.root / "run.json"
    kept = record.read_bytes()
    record.write_text("{")
    fact = world.fact()
    assert fact is not None
    assert fact.alive is None
    with pytest.raises(PlaceError):
        asyncio.run(world.place.discard(world.workspace_id))
    record.write_bytes(kept)
    world.remove(handle)
    assert world.processes() == []


def test_an_environment_wakes_equal_and_a_start_changes_nothing_in_it(world: ProcessWorld) -> None:
    world.prepare()
    packages = world.env / f"lib/python{PLATFORM.minor}/site-packages"
    (packages / "mine.py").write_text("WORDS = 'hello'\n")
    os.link(packages / "mine.py", packages / "same.py")
    (world.env / "share").mkdir()
    (world.env / "share" / "notes").symlink_to("../elsewhere")
    subprocess.run([world.env / "bin/python", "-c", "import mine, pip, IPython"], check=True)
    before = world.contents()
    checkpoint = world.save()
    asyncio.run(world.place.discard_environment(world.workspace_id))
    assert not world.env.exists()
    world.prepare(checkpoint)
    assert world.contents() == before
    shown = subprocess.run(
        [world.env / "bin/python", "-c", "import mine; print(mine.WORDS)"], capture_output=True, check=True
    )
    assert shown.stdout == b"hello\n"
    assert world.contents() == before


def test_a_checkpoint_is_restored_once_and_again_when_asked_afresh(world: ProcessWorld) -> None:
    world.prepare()
    checkpoint = world.save()
    world.prepare(checkpoint)
    (world.env / "made-since").touch()
    world.prepare(checkpoint)
    assert (world.env / "made-since").exists(), "a repeated preparation threw away what the user made since"
    world.prepare(checkpoint, fresh=True)
    assert not (world.env / "made-since").exists()


def test_without_a_checkpoint_what_is_there_stays_unless_a_fresh_one_is_asked(world: ProcessWorld) -> None:
    world.prepare()
    (world.env / "mine").touch()
    world.prepare()
    assert (world.env / "mine").exists()
    world.prepare(fresh=True)
    assert not (world.env / "mine").exists()
    assert (world.env / "bin/python").exists()


@pytest.mark.parametrize("harm", ["blob changed", "blob lost", "manifest unknown"])
def test_a_checkpoint_that_does_not_read_back_leaves_the_environment_as_it_was(world: ProcessWorld, harm: str) -> None:
    world.prepare()
    (world.env / "saved").write_text("x" * 1000)
    checkpoint = world.save()
    (world.env / "unsaved").touch()
    before = world.contents()
    if harm == "manifest unknown":
        checkpoint = Checkpoint("ckp-1", checkpoint.repository, "sha256:" + "0" * 64, PLATFORM.version, "0.1.0")
    else:
        blob = world.layer_file(checkpoint)
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.unlink()
        if harm == "blob changed":
            blob.write_bytes(content)
    with pytest.raises(CorruptImage):
        world.prepare(checkpoint)
    assert world.contents() == before
    assert [path.name for path in world.root.iterdir() if path.name.startswith((".env", "env."))] == []


def test_a_checkpoint_of_another_python_is_refused_before_anything_is_replaced(world: ProcessWorld) -> None:
    world.prepare()
    (world.env / f"lib/python{PLATFORM.minor}").rename(world.env / "lib/python3.99")
    config = world.env / layering.CONFIG
    config.write_text(config.read_text().replace(f"version = {PLATFORM.version}", "version = 3.99.0"))
    checkpoint = world.save()
    world.prepare(fresh=True)
    before = world.contents()
    with pytest.raises(EnvironmentMismatch, match=r"3\.99"):
        world.prepare(checkpoint)
    assert world.contents() == before


@pytest.mark.parametrize("point", ["place.before_restore", "place.restored"])
def test_an_interrupted_restore_is_completed_by_the_next(world: ProcessWorld, armed: Path, point: str) -> None:
    world.prepare()
    (world.env / "saved").touch()
    before = world.contents()
    checkpoint = world.save()
    (world.env / "unsaved").touch()
    (armed / point).write_text("error")
    with pytest.raises(FailpointError):
        world.prepare(checkpoint)
    world.prepare(checkpoint)
    assert world.contents() == before
    assert point in (armed / "hits.log").read_text()


def test_a_discard_takes_everything_but_the_home(world: ProcessWorld) -> None:
    world.prepare()
    (world.home / "work.ipynb").touch()
    locked = world.env / "locked"
    locked.mkdir()
    (locked / "file").touch()
    locked.chmod(0o500)
    handle = world.start()
    assert until(world.answering)
    world.remove(handle)
    for _ in range(2):
        asyncio.run(world.place.discard(world.workspace_id))
        assert list((world.state / "workspaces").iterdir()) == []
    assert (world.home / "work.ipynb").exists()
    assert world.fact() is None


def test_an_id_that_is_a_path_never_leaves_the_folder_of_workspaces(world: ProcessWorld) -> None:
    world.prepare()
    for hostile in ("", ".", "..", "../homes", "/tmp", f"../workspaces/{world.workspace_id}"):
        with pytest.raises(PlaceError, match="not the id"):
            asyncio.run(world.place.discard(hostile))
    assert world.env.is_dir()
    assert world.root.stat().st_mode & 0o077 == 0
    assert world.home.stat().st_mode & 0o077 == 0


def _record(world: ProcessWorld) -> records.RunRecord:
    record = launch.read_run(world.root)
    assert record is not None
    return record
