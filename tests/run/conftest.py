from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.job_api import JobApi

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def api() -> Iterator[JobApi]:
    server = JobApi()
    yield server
    server.stop()


@pytest.fixture
def start(api: JobApi, tmp_path: Path) -> Iterator[Start]:
    """Start the wrapper of an attempt, as a runner does; whatever is left of it is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def run(name: str = "job-x-a1", **variables: str) -> subprocess.Popen[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "TORPOR_URL": api.url,
            "TORPOR_JOB": name.rpartition("-a")[0],
            "TORPOR_ATTEMPT": name,
            "TORPOR_RANK": "0",
            "TORPOR_JOB_TOKEN": "torpor.token",
            "TORPOR_PYTHON": sys.executable,
            "TORPOR_FOLDER": str(folder),
            "TORPOR_HOME": str(tmp_path),
            "TORPOR_GRACE_S": "0.5",
            **variables,
        }
        with (folder / "wrapper.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "torpor.run"],
                env=environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
