"""What every runner promises, with real wrappers against a stand-in for the api."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.support.job_api import JobApi
from torpor_hub.capture.base import CaptureTask
from torpor_hub.capture.directory import DirectoryCapture
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint
from torpor_hub.errors import RunnerError
from torpor_hub.oci.layout import Layout
from torpor_hub.processes import layering, trees
from torpor_hub.runners.base import MARK, JobFact, JobRun, Runner
from torpor_hub.runners.process import ProcessRunner

AMOUNT = Amount(1000, 1024**3)


@dataclass
class Site:
    """One machine with a runner that can be replaced, as by a restart of the server."""

    state: Path
    api: JobApi
    make: Callable[[Path, Layout], Runner]
    layout: Layout = field(init=False)
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.layout = Layout(self.state / "images")
        self.restart()

    def restart(self) -> None:
        self.runner = self.make(self.state, self.layout)

    def attempt(self, *argv: str, job: str = "job-1", number: int = 1, environment: Checkpoint | None = None) -> JobRun:
        run = JobRun(
            job_id=job,
            attempt=number,
            ranks=1,
            kind="command",
            tenant="research",
            user="ada",
            amount=AMOUNT,
            environment=environment,
            token="torpor.token",
            reader_token="torpor.reader",
            api_url=f"{self.api.url}api/v1",
            variables={"TORPOR_GRACE_S": "0.3"},
        )
        self.api.add(run.name, {"type": "command", "argv": list(argv)})
        return run

    def start(self, run: JobRun) -> str:
        return asyncio.run(self.runner.start(run))

    def end(self, run: JobRun, handle: str, grace_s: float = 3) -> None:
        asyncio.run(self.runner.end(run.name, handle, grace_s=grace_s))

    def fact(self, run: JobRun) -> JobFact | None:
        return asyncio.run(self.runner.facts()).get(run.name)

    def wait(self, run: JobRun, condition: Callable[[JobFact | None], bool], within_s: float = 20) -> JobFact:
        deadline = time.monotonic() + within_s
        while not condition(fact := self.fact(run)):
            assert time.monotonic() < deadline, f"still {fact}"
            time.sleep(0.02)
        assert fact is not None
        return fact

    def ended(self, run: JobRun) -> JobFact:
        return self.wait(run, lambda fact: fact is not None and fact.alive is False)

    def processes(self, run: JobRun) -> list[int]:
        return [stat.pid for stat in trees.marked(MARK, run.name)]


def process_runner(state: Path, layout: Layout) -> Runner:
    return ProcessRunner(state, layout, layering.here())


@pytest.fixture(params=[process_runner], ids=["process"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    api = JobApi()
    made = Site(tmp_path / "state", api, request.param)
    yield made
    for name, fact in asyncio.run(made.runner.facts()).items():
        asyncio.run(made.runner.end(name, fact.handle, grace_s=0))
    api.stop()


def test_an_attempt_runs_and_its_end_is_known_until_it_is_forgotten(site: Site) -> None:
    run = site.attempt("sh", "-c", "echo done; exit 4")
    handle = site.start(run)
    fact = site.ended(run)
    assert (fact.job_id, fact.attempt, fact.handle) == ("job-1", 1, handle)
    assert (fact.exit_code, fact.reason) == (4, "")
    assert site.api.log(run.name) == "done\n"
    assert site.api.exits[run.name]["exit_code"] == 4
    asyncio.run(site.runner.forget(run.name))
    asyncio.run(site.runner.forget(run.name))
    assert site.fact(run) is None


def test_starting_what_runs_gives_the_same_start(site: Site) -> None:
    run = site.attempt("sh", "-c", "echo started; exec sleep 600")
    handle = site.start(run)
    assert site.start(run) == handle
    assert site.api.wait(lambda: site.api.log(run.name))
    assert site.start(run) == handle
    assert site.api.log(run.name) == "started\n"
    site.end(run, handle)
    assert site.start(run) == handle
    assert site.ended(run).alive is False


def test_a_new_runner_finds_what_an_old_one_started(site: Site) -> None:
    run = site.attempt("sh", "-c", "echo up; exec sleep 600")
    handle = site.start(run)
    assert site.api.wait(lambda: site.api.log(run.name) == "up\n")
    site.restart()
    fact = site.fact(run)
    assert fact is not None
    assert (fact.handle, fact.alive) == (handle, True)
    site.end(run, handle)
    assert site.ended(run).handle == handle


def test_ending_leaves_no_process_also_of_code_that_ignores_it(site: Site) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    run = site.attempt("sh", "-c", f'setsid {sys.executable} -c "{deaf}" & exec {sys.executable} -c "{deaf}"')
    handle = site.start(run)
    assert site.api.wait(lambda: site.api.log(run.name) == "deaf\ndeaf\n")
    site.end(run, handle)
    site.end(run, handle)
    assert site.processes(run) == []
    assert site.ended(run).reason == "lost"


def test_a_killed_wrapper_is_lost_and_its_leftovers_are_swept(site: Site) -> None:
    run = site.attempt("sh", "-c", "setsid sleep 600 & echo $$; exec sleep 600")
    handle = site.start(run)
    assert site.api.wait(lambda: site.api.log(run.name))
    wrapper = int(handle.split("/")[1])
    os.kill(wrapper, signal.SIGKILL)
    fact = site.ended(run)
    assert (fact.exit_code, fact.reason) == (None, "lost")
    site.end(run, handle, grace_s=0)
    assert site.processes(run) == []


def test_a_running_attempt_is_not_forgotten(site: Site) -> None:
    run = site.attempt("sleep", "600")
    site.start(run)
    with pytest.raises(RunnerError, match="still runs"):
        asyncio.run(site.runner.forget(run.name))
    fact = site.fact(run)
    assert fact is not None
    assert fact.alive is True


def test_a_record_that_cannot_be_read_is_unknown_and_not_ended(site: Site) -> None:
    run = site.attempt("sleep", "600")
    handle = site.start(run)
    record = site.state / "jobs" / run.name / "handle"
    record.write_text("half a rec")
    fact = site.fact(run)
    assert fact is not None
    assert fact.alive is None
    record.write_text(handle)
    site.end(run, handle)


def test_one_attempt_ends_without_the_other(site: Site) -> None:
    one, other = site.attempt("sleep", "600", job="job-1"), site.attempt("sleep", "600", job="job-2")
    handle, _ = site.start(one), site.start(other)
    site.end(one, handle)
    assert site.ended(one).alive is False
    fact = site.fact(other)
    assert fact is not None
    assert fact.alive is True


def test_the_outcome_is_known_when_the_api_never_heard_it(site: Site) -> None:
    run = site.attempt("sh", "-c", "read x < ../gate; exit 6")
    gate = site.state / "jobs" / run.name / "gate"
    gate.parent.mkdir(parents=True)
    os.mkfifo(gate)
    handle = site.start(run)
    assert site.api.wait(lambda: site.api.beats.get(run.name))
    site.api.stop()
    gate.write_text("go\n")
    exit_file = gate.with_name("exit.json")
    deadline = time.monotonic() + 10
    while not exit_file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(int(handle.split("/")[1]), signal.SIGKILL)
    fact = site.ended(run)
    assert (fact.exit_code, fact.reason) == (6, "")


def test_a_job_sees_what_its_checkpoint_holds_and_cannot_change_it(site: Site, tmp_path: Path) -> None:
    checkpoint = save_environment(site, tmp_path / "workspace" / "env")
    script = "import marker, sys; print(marker.VALUE, sys.prefix); open(sys.prefix + '/lib/new', 'w')"
    run = site.attempt("python", "-c", script, environment=checkpoint)
    again = site.attempt("marker-tool", job="job-2", environment=checkpoint)

    async def start_both() -> None:
        await asyncio.gather(site.runner.start(run), site.runner.start(again))

    asyncio.run(start_both())
    assert site.api.wait(lambda: len(site.api.exits) == 2)
    env = site.state / "environments" / checkpoint.digest.replace(":", "-")
    assert site.api.log(run.name).startswith(f"17 {env}\n")
    assert site.api.log(again.name) == f"17 {env}\n"
    if os.geteuid() != 0:
        assert site.api.exits[run.name]["exit_code"] == 1
    assert oct(env.stat().st_mode & 0o222) == "0o0"


def test_an_environment_that_does_not_read_back_says_so(site: Site, tmp_path: Path) -> None:
    checkpoint = save_environment(site, tmp_path / "workspace" / "env")
    missing = replace(checkpoint, digest="sha256:" + "0" * 64)
    with pytest.raises(RunnerError, match="cannot be made ready"):
        site.start(site.attempt("true", environment=missing))


def test_a_server_killed_between_fork_and_record_starts_nothing_twice(site: Site, tmp_path: Path) -> None:
    run = site.attempt("sh", "-c", "echo once; exec sleep 600")
    points = tmp_path / "failpoints"
    points.mkdir()
    (points / "runner.started").write_text("kill")
    program = f"""
import asyncio
from pathlib import Path
from tests.contract.test_runners import *
run = JobRun(**{_plain(run)!r}, amount=AMOUNT)
state = Path({str(site.state)!r})
asyncio.run(process_runner(state, Layout(state / "images")).start(run))
"""
    died = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TORPOR_FAILPOINTS": str(points)}, check=False
    )
    assert died.returncode == -signal.SIGKILL
    handle = site.start(run)
    assert site.api.wait(lambda: site.api.log(run.name))
    fact = site.fact(run)
    assert fact is not None
    assert (fact.handle, fact.alive) == (handle, True)
    assert len([pid for pid in site.processes(run) if os.getsid(pid) == pid]) == 1
    assert site.api.log(run.name) == "once\n"


def test_an_attempt_may_start_while_the_others_are_listed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = site.attempt("sleep", "600"), site.attempt("sleep", "600", number=2)
    site.start(first)
    poll, meanwhile = subprocess.Popen.poll, [second]

    def poll_slowly(process: subprocess.Popen[bytes]) -> int | None:
        if meanwhile:
            site.start(meanwhile.pop())
        return poll(process)

    monkeypatch.setattr(subprocess.Popen, "poll", poll_slowly)
    assert set(asyncio.run(site.runner.facts())) == {first.name, second.name}


def _plain(run: JobRun) -> dict[str, object]:
    names = ("job_id", "attempt", "ranks", "kind", "tenant", "user", "token", "reader_token", "api_url")
    return {**{name: getattr(run, name) for name in names}, "environment": None}


def save_environment(site: Site, env: Path) -> Checkpoint:
    """Return a checkpoint of an environment with a module and a script, as a user installs them."""
    platform = layering.here()
    layering.create(env, platform)
    (env / f"lib/python{platform.minor}/site-packages/marker.py").write_text("VALUE = 17\n")
    tool = env / "bin" / "marker-tool"
    tool.write_text(f"#!{layering.python_of(env)}\nimport marker, sys; print(marker.VALUE, sys.prefix)\n")
    tool.chmod(0o755)
    task = CaptureTask("op-1", env, "torpor/workspaces/research/ws-1", "op-1")
    result = asyncio.run(DirectoryCapture(site.layout).capture(task))
    return Checkpoint("ckp-1", task.repository, result.digest, platform.minor, "0.1.0")
