"""What every runner promises, with real wrappers against a stand-in for the api. A new runner joins by one fixture parameter."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.runner_worlds import WAITS, PodWorld, ProcessWorld, World
from torpor_hub.errors import RunnerError

WORLDS = [
    pytest.param(ProcessWorld, id="process"),
    pytest.param(PodWorld, id="kubernetes", marks=pytest.mark.cluster),
]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made: World = request.param(tmp_path / "state")
    yield made
    made.close()


def test_an_attempt_runs_and_its_end_is_known_until_it_is_forgotten(world: World) -> None:
    run = world.attempt("sh", "-c", "echo done; exit 4")
    handle = world.start(run)
    fact = world.ended(run)
    assert (fact.job_id, fact.attempt, fact.handle) == (run.job_id, 1, handle)
    assert (fact.exit_code, fact.reason) == (4, "")
    assert world.api.log(run.name) == "done\n"
    assert world.api.exits[run.name]["exit_code"] == 4
    world.run(world.runner.forget(run.name))
    world.run(world.runner.forget(run.name))
    assert world.fact(run) is None


def test_starting_what_runs_gives_the_same_start(world: World) -> None:
    run = world.attempt("sh", "-c", "echo started; exec sleep 600")
    handle = world.start(run)
    assert world.start(run) == handle
    assert world.heard(lambda: world.api.log(run.name))
    assert world.start(run) == handle
    assert world.api.log(run.name) == "started\n"
    world.end(run, handle)
    assert world.start(run) == handle
    assert world.ended(run).alive is False


def test_a_new_runner_finds_what_an_old_one_started(world: World) -> None:
    run = world.attempt("sh", "-c", "echo up; exec sleep 600")
    handle = world.start(run)
    assert world.heard(lambda: world.api.log(run.name) == "up\n")
    world.restart()
    fact = world.fact(run)
    assert fact is not None
    assert (fact.handle, fact.alive) == (handle, True)
    world.end(run, handle)
    assert world.ended(run).handle == handle


def test_ending_leaves_no_process_also_of_code_that_ignores_it(world: World) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    run = world.attempt("sh", "-c", f'setsid {world.python} -c "{deaf}" & exec {world.python} -c "{deaf}"')
    handle = world.start(run)
    assert world.heard(lambda: world.api.log(run.name) == "deaf\ndeaf\n")
    world.end(run, handle)
    world.end(run, handle)
    assert world.processes(run) == []
    assert world.ended(run).reason == "lost"


def test_a_killed_wrapper_is_lost_and_its_leftovers_are_swept(world: World) -> None:
    run = world.attempt("sh", "-c", "setsid sleep 600 & echo $$; exec sleep 600")
    handle = world.start(run)
    assert world.heard(lambda: world.api.log(run.name))
    world.kill_wrapper(run)
    fact = world.ended(run)
    assert (fact.exit_code, fact.reason) == (None, "lost")
    world.end(run, handle, grace_s=0)
    assert world.processes(run) == []


def test_a_running_attempt_is_not_forgotten(world: World) -> None:
    run = world.attempt("sleep", "600")
    world.start(run)
    with pytest.raises(RunnerError, match="still runs"):
        world.run(world.runner.forget(run.name))
    fact = world.fact(run)
    assert fact is not None
    assert fact.alive is True


def test_one_attempt_ends_without_the_other(world: World) -> None:
    one, other = world.attempt("sleep", "600", job="one"), world.attempt("sleep", "600", job="other")
    handle, _ = world.start(one), world.start(other)
    world.end(one, handle)
    assert world.ended(one).alive is False
    fact = world.fact(other)
    assert fact is not None
    assert fact.alive is True


def test_the_outcome_is_known_when_the_api_never_heard_it(world: World) -> None:
    gate = world.gate()
    run = world.attempt(world.python, "-c", WAITS, gate.host, str(gate.port), "6")
    world.start(run)
    assert world.heard(lambda: world.api.beats.get(run.name))
    exit_file = world.folder(run) / "exit.json"
    world.api.stop()
    gate.open()
    assert world.until(exit_file.exists)
    world.kill_wrapper(run)
    fact = world.ended(run)
    assert (fact.exit_code, fact.reason) == (6, "")


def test_a_server_killed_between_start_and_record_starts_nothing_twice(world: World, tmp_path: Path) -> None:
    run = world.attempt("sh", "-c", "echo once; exec sleep 600")
    points = tmp_path / "failpoints"
    points.mkdir()
    (points / "runner.started").write_text("kill")
    program = f"{world.program()}\nasyncio.run(runner.start({run!r}))"
    environment = {**os.environ, "TORPOR_FAILPOINTS": str(points)}
    died = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    handle = world.start(run)
    assert world.heard(lambda: world.api.log(run.name))
    fact = world.fact(run)
    assert fact is not None
    assert (fact.handle, fact.alive) == (handle, True)
    assert len([pid for pid in world.processes(run) if os.getsid(pid) == pid]) == 1
    assert world.api.log(run.name) == "once\n"


def test_an_attempt_may_start_while_others_are_listed(world: World) -> None:
    first, second = world.attempt("sleep", "600"), world.attempt("sleep", "600", number=2)
    world.start(first)

    async def both() -> None:
        await asyncio.gather(world.runner.facts(), world.runner.start(second))

    world.run(both())
    assert set(world.run(world.runner.facts())) == {first.name, second.name}


def test_what_was_never_started_is_ended_salvaged_and_forgotten_without_a_word(world: World) -> None:
    run = world.attempt("true")
    world.end(run, "", grace_s=0)
    left = world.run(world.runner.salvage(run.name, log_from=0))
    assert (left.log, left.result) == (b"", None)
    world.run(world.runner.forget(run.name))
    assert world.run(world.runner.facts()) == {}
