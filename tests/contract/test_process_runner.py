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
    again = world.attempt("marker-tool", job="job-2", environment=checkpoint)

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
