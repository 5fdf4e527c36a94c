"""What every place must do. A new place joins by one fixture parameter."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.workspace_runs import free_port, running, until
from torpor_hub import failpoints
from torpor_hub.domain import ids
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint, Fact, WorkspaceRun
from torpor_hub.errors import CorruptImage, EnvironmentMismatch, FailpointError, PlaceError
from torpor_hub.oci import images
from torpor_hub.oci.layers import write_layer
from torpor_hub.oci.layout import Layout
from torpor_hub.places.base import Preparation
from torpor_hub.places.process import ProcessPlace
from torpor_hub.processes import freeze, identity, launch, layering, records, trees

POOL = Amount(4000, 8 * 1024**3)
PLATFORM = layering.here()
ANSWERS = """
import pathlib, signal, socket, subprocess, sys
def end(number, frame):
    pathlib.Path("ended-politely").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
subprocess.Popen(["sleep", sys.argv[2]], start_new_session=True)
print("ready to answer", flush=True)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    signal.pause()
"""


class ProcessWorld:
    """A process place with what a test needs around it: starting, saving, and looking at the truth."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.layout = Layout(state / "images")
        self.place = ProcessPlace(state, self.layout, PLATFORM, POOL)
        self.workspace_id = ids.new("ws")
        self.token = f"{1000000 + os.getpid()}.{int.from_bytes(os.urandom(3), 'big')}"
        self.port = free_port()
        self.handles: list[tuple[str, str]] = []

    @property
    def root(self) -> Path:
        return self.state / "workspaces" / self.workspace_id

    @property
    def env(self) -> Path:
        return self.root / "env"

    @property
    def home(self) -> Path:
        return self.state / "homes" / "research" / "ada"

    def prepare(self, checkpoint: Checkpoint | None = None, *, fresh: bool = False) -> None:
        preparation = Preparation(self.workspace_id, "research", "ada", checkpoint=checkpoint, fresh=fresh)
        asyncio.run(self.place.prepare(preparation))

    def start(self) -> str:
        run = WorkspaceRun(
            workspace_id=self.workspace_id,
            grant_id=ids.new("grant"),
            name="analysis",
            tenant="research",
            user="ada",
            profile="small",
            amount=Amount(1000, 1),
            root_dir=str(self.root),
            home_dir=str(self.home),
        )
        command = [sys.executable, "-c", ANSWERS, str(self.port), self.token]
        handle = launch.launch(
            run, command, {"PATH": "/usr/bin:/bin"}, self.port, log=self.root / launch.LOG_FILE
        ).handle()
        self.handles.append((handle, run.grant_id))
        return handle

    def fact(self) -> Fact | None:
        return asyncio.run(self.place.facts()).get(self.workspace_id)

    def answering(self) -> bool:
        fact = self.fact()
        return fact is not None and fact.answering is True and bool(self.processes())

    def remove(self, handle: str, grace_s: float = 2.0) -> None:
        asyncio.run(self.place.remove(self.workspace_id, handle, grace_s=grace_s))

    def processes(self) -> list[int]:
        return running(self.token)

    def save(self) -> Checkpoint:
        """Save the environment as the capture does and return the checkpoint."""
        repository = f"torpor/workspaces/research/{self.workspace_id}"
        with self.layout.blob_writer(repository) as blob:
            layer = write_layer(self.env, blob.write)
            blob.publish(layer.record.digest)
        config = images.image_config([layer.record], created="2026-01-01T00:00:00Z", architecture="amd64")
        self.layout.put_blob(repository, config)
        digest = self.layout.put_manifest(repository, "latest", images.image_manifest(config, [layer.record], {}))
        return Checkpoint(ids.new("ckp"), repository, digest, PLATFORM.version, "0.1.0")

    def contents(self) -> str:
        """Return a digest over everything in the environment: names, modes, times, content, link targets."""
        lines = []
        for path in sorted([self.env, *self.env.rglob("*")]):
            status = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            lines.append(repr((str(path), status.st_mode, status.st_mtime_ns, status.st_nlink, content)))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def close(self) -> None:
        for handle, grant_id in self.handles:
            trees.end_tree(identity.parse(handle), mark=(launch.GRANT_MARK, grant_id))


@pytest.fixture(params=[ProcessWorld], ids=["process"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessWorld]:
    made: ProcessWorld = request.param(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    monkeypatch.setenv(failpoints.VARIABLE, str(folder))
    return folder


def test_a_place_without_workspaces_lists_none(world: ProcessWorld) -> None:
    assert asyncio.run(world.place.facts()) == {}
    assert asyncio.run(world.place.capacity()) == POOL
    assert asyncio.run(world.place.last_lines(world.workspace_id, 10)) == ""


def test_a_started_workspace_is_a_fact_until_it_is_removed(world: ProcessWorld) -> None:
    world.prepare()
    assert world.fact() is None, "prepared is not started"
    handle = world.start()
    assert until(world.answering)
    fact = world.fact()
    assert fact is not None
    assert (fact.alive, fact.handle, fact.grant_id, fact.port) == (True, handle, world.handles[0][1], world.port)
    assert fact.exit_code is None
    assert fact.started_at is not None
    assert asyncio.run(world.place.last_lines(world.workspace_id, 1)) == "ready to answer"
    world.remove(handle)
    assert world.processes() == []
    assert world.fact() is None
    assert (world.home / "ended-politely").exists()
    world.remove(handle)
    assert world.env.is_dir(), "a removal touched the environment"


def test_a_server_that_ends_by_itself_stays_a_fact_with_its_exit_code(world: ProcessWorld) -> None:
    world.prepare()
    handle = world.start()
    assert until(world.answering)
    identity.send(identity.parse(_record(world).server), signal.SIGKILL)
    assert until(lambda: _record(world).exit_code is not None and not identity.alive(identity.parse(handle)))
    fact = world.fact()
    assert fact is not None
    assert (fact.alive, fact.answering, fact.exit_code) == (False, False, -9)
    assert world.processes() == []


def test_a_removal_by_an_old_handle_leaves_the_present_start_alone(world: ProcessWorld) -> None:
    world.prepare()
    first = world.start()
    assert until(world.answering)
    world.remove(first)
    second = world.start()
    assert until(world.answering)
    world.remove(first, grace_s=0.1)
    assert world.processes() != []
    fact = world.fact()
    assert fact is not None
    assert (fact.handle, fact.alive) == (second, True)
    with pytest.raises(PlaceError):
        world.remove("nonsense")


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


def test_a_running_workspace_is_neither_restored_nor_discarded(world: ProcessWorld) -> None:
    world.prepare()
    checkpoint = world.save()
    handle = world.start()
    assert until(world.answering)
    (world.env / "mine").touch()
    with pytest.raises(PlaceError, match="runs"):
        world.prepare(fresh=True)
    with pytest.raises(PlaceError, match="runs"):
        world.prepare(checkpoint)
    for discard in (world.place.discard, world.place.discard_environment):
        with pytest.raises(PlaceError, match="runs"):
            asyncio.run(discard(world.workspace_id))
    world.prepare()
    assert (world.env / "mine").exists()
    world.remove(handle)


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
        layer = world.layout.read_image(checkpoint.repository, checkpoint.digest).layers[0]
        blob = world.state / "images/blobs/sha256" / layer.digest.removeprefix("sha256:")
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


def test_a_removal_that_was_interrupted_is_repeated(world: ProcessWorld, armed: Path) -> None:
    world.prepare()
    handle = world.start()
    assert until(world.answering)
    (armed / "place.removed").write_text("error")
    with pytest.raises(FailpointError):
        world.remove(handle)
    world.remove(handle)
    assert world.processes() == []
    assert world.fact() is None


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
