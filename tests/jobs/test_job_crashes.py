"""The controller is killed at each named step; the next one finishes the job, which ran exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.job_platform import JobPlatform

POINTS = ("jobs.admitted", "runner.unpacked", "runner.started", "jobs.started", "jobs.finished")


@pytest.mark.parametrize("point", POINTS)
def test_a_controller_killed_at_a_step_loses_no_job_and_runs_none_twice(
    platform: JobPlatform, tmp_path: Path, point: str
) -> None:
    platform.controller.end(orderly=False)
    armed = tmp_path / "failpoints"
    armed.mkdir()
    (armed / point).write_text("kill")
    job = platform.command("sh", "-c", f"echo ran >> {tmp_path}/runs; echo out")
    state, port = platform.settings.state_dir, platform.settings.server.port
    program = (
        "from pathlib import Path; from tests.jobs.job_controller import run_controller; "
        f"run_controller(Path({str(state)!r}), {str(platform.store.engine.url)!r}, {port})"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TORPOR_FAILPOINTS": str(armed)}, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    platform.new_controller()
    status = platform.ended(job)
    assert (status["phase"], status["attempt"]) == ("SUCCEEDED", 1)
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert platform.log(job) == "out\n"
    assert platform.freed()
    assert point in (armed / "hits.log").read_text()
