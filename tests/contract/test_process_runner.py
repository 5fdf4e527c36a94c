"""What only the runner of processes can get wrong: its records on disk, and environments that it unpacks."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.runner_worlds import ProcessWorld
from tests.support.failpoints import Failpoints
from torpor_hub import failpoints
from torpor_hub.capture.base import CaptureTask
from torpor_hub.capture.directory import DirectoryCapture
from torpor_hub.domain.workspaces import Checkpoint
from torpor_hub.errors import RunnerError
from torpor_hub.processes import layering


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ProcessWorld]:
    made = ProcessWorld(tmp_path / "state")
    yield made
    made.close()


def test_a_record_that_cannot_be_read_is_unknown_and_not_ended(world: ProcessWorld) -> None:
    run = world.attempt("sleep", "600")
    handle = world.start(run)
    record = world.state / "jobs" / run.name / "handle"
    record.write_text("half a rec")
    fact = world.fact(run)
    assert fact is not None
    assert fact.alive is None
    record.write_text(handle)
    world.end(run, handle)


def test_a_job_sees_what_its_checkpoint_holds_and_cannot_change_it(world: ProcessWorld, tmp_path: Path) -> None:
    checkpoint = save_environment(world, tmp_path / "workspace" / "env")
    script = "import marker, sys; print(marker.VALUE, sys.prefix); open(sys.prefix + '/lib/new', 'w')"
    run = world.attempt("python", "-c", script, environment=checkpoint)
    again = world.attempt("marker-tool", job="other", environment=checkpoint)

    async def start_both() -> None:
        await asyncio.gather(world.runner.start(run), world.runner.start(again))

    world.run(start_both())
    assert world.heard(lambda: len(world.api.exits) == 2)
    env = world.state / "environments" / checkpoint.digest.replace(":", "-")
    assert world.api.log(run.name).startswith(f"17 {env}\n")
    assert world.api.log(again.name) == f"17 {env}\n"
    if os.geteuid() != 0:
        assert world.api.exits[run.name]["exit_code"] == 1
    assert oct(env.stat().st_mode & 0o222) == "0o0"


def test_an_environment_that_does_not_read_back_says_so(world: ProcessWorld, tmp_path: Path) -> None:
    checkpoint = save_environment(world, tmp_path / "workspace" / "env")
    missing = replace(checkpoint, digest="sha256:" + "0" * 64)
    with pytest.raises(RunnerError, match="cannot be made ready"):
        world.start(world.attempt("true", environment=missing))


def test_an_attempt_may_start_while_the_others_are_listed(world: ProcessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = world.attempt("sleep", "600"), world.attempt("sleep", "600", number=2)
    world.start(first)
    poll, meanwhile = subprocess.Popen.poll, [second]

    def poll_slowly(process: subprocess.Popen[bytes]) -> int | None:
        if meanwhile:
            world.start(meanwhile.pop())
        return poll(process)

    monkeypatch.setattr(subprocess.Popen, "poll", poll_slowly)
    assert set(world.run(world.runner.facts())) == {first.name, second.name}


def test_an_end_waits_for_a_start_that_nobody_waits_for_any_more(
    world: ProcessWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = Failpoints(tmp_path / "failpoints")
    points.folder.mkdir()
    points.arm("runner.unpacked", "pause")
    monkeypatch.setenv(failpoints.VARIABLE, str(points.folder))
    run = world.attempt("sleep", "600")

    async def start_and_leave() -> None:
        start = asyncio.create_task(world.runner.start(run))
        while not points.hits("runner.unpacked"):
            await asyncio.sleep(0.01)
        start.cancel()
        ending = asyncio.create_task(world.runner.end(run.name, "", grace_s=0))
        await asyncio.wait((start, ending), timeout=0.3)
        points.disarm("runner.unpacked")
        while not points.hits("runner.started"):
            await asyncio.sleep(0.01)
        await ending

    world.run(start_and_leave())
    assert world.processes(run) == []
    world.run(world.runner.forget(run.name))
    assert world.fact(run) is None


def save_environment(world: ProcessWorld, env: Path) -> Checkpoint:
    """Return a checkpoint of an environment with a module and a script, as a user installs them."""
    platform = layering.here()
    layering.create(env, platform)
    (env / f"lib/python{platform.minor}/site-packages/marker.py").write_text("VALUE = 17\n")
    tool = env / "bin" / "marker-tool"
    tool.write_text(f"#!{layering.python_of(env)}\nimport marker, sys; print(marker.VALUE, sys.prefix)\n")
    tool.chmod(0o755)
    task = CaptureTask("op-1", env, "torpor/workspaces/research/ws-1", "op-1")
    result = asyncio.run(DirectoryCapture(world.layout).capture(task))
    return Checkpoint("ckp-1", task.repository, result.digest, platform.minor, "0.1.0")
