"""What a job's own code may ask the platform: what its owner may read, while it runs, and nothing else."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.datasets.served_platform import importer, until
from tests.jobs.job_platform import JobPlatform

SAYS_ITS_TOKEN = 'import os; print(os.environ["TORPOR_TOKEN"], "TORPOR_JOB_TOKEN" in os.environ, flush=True)'


@pytest.fixture
def served(platform: JobPlatform) -> Iterator[JobPlatform]:
    """The platform for jobs with an importer and the dataset ``research/numbers`` of ten rows."""
    state = platform.settings.state_dir
    (platform.settings.data_dir / "numbers").mkdir(parents=True)
    file = state / "settings.toml"
    ports = {name: getattr(platform.settings, name).port for name in ("server", "hub", "proxy", "proxy_api")}
    file.write_text("\n".join([f'state_dir = "{state}"', *(f"{name}.port = {port}" for name, port in ports.items())]))
    rows = pa.table({"number": list(range(10)), "square": [number**2 for number in range(10)]})
    pq.write_table(rows, platform.settings.data_dir / "numbers" / "part-0.parquet")
    root = {"root": str(platform.settings.data_dir)}
    source = {"name": "own", "tenant": "research", "kind": "files", "spec": root}
    dataset = {"name": "numbers", "tenant": "research", "source": "own", "path": "numbers"}
    with importer(file):
        assert platform.client().post("/sources", json=source).status_code == 201
        made = platform.client().post("/datasets", json=dataset).json()["id"]
        until(lambda: platform.get(f"/datasets/{made}").json()["status"]["phase"] == "READY")
        yield platform


def asked_as(token: str, platform: JobPlatform, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, f"{platform.settings.api_url}{path}", headers=headers, **more)


def running_with_token(platform: JobPlatform, gate: Path) -> tuple[str, str]:
    """Return a job that runs until somebody writes to ``gate``, and the token that its code has."""
    os.mkfifo(gate)
    job = platform.command("sh", "-c", f"{sys.executable} -c '{SAYS_ITS_TOKEN}'; read x < {gate}")
    platform.wait(job, lambda status: status["log_bytes"] > 0)
    token, wrappers = platform.log(job).split()
    assert wrappers == "False"
    return job, token


def test_a_jobs_function_reads_a_dataset_by_its_name(served: JobPlatform) -> None:
    def main() -> tuple[list[int], int]:
        import pandas as pd

        import torpor

        numbers = torpor.dataset("research/numbers")
        return numbers.to_pandas(limit=5)["square"].tolist(), int(pd.read_parquet(numbers.path)["square"].sum())

    main.__module__ = "__main__"
    job = served.function(cloudpickle.dumps({"function": main, "args": (), "kwargs": {}}))
    status = served.ended(job)
    assert status["phase"] == "SUCCEEDED", served.log(job)
    assert pickle.loads(served.get(f"/jobs/{job}/result").content) == {"value": ([0, 1, 4, 9, 16], 285)}


def test_a_jobs_code_sees_what_its_owner_sees_and_changes_nothing(platform: JobPlatform, tmp_path: Path) -> None:
    job, token = running_with_token(platform, tmp_path / "gate")
    assert asked_as(token, platform, "GET", "/me").json()["name"] == "ada"
    assert asked_as(token, platform, "GET", f"/jobs/{job}").status_code == 200
    cancel = asked_as(token, platform, "PATCH", f"/jobs/{job}", json={"spec": {"desired": "cancelled"}})
    assert (cancel.status_code, cancel.json()["code"]) == (403, "forbidden")
    source = {"name": "mine", "tenant": "research", "kind": "files", "spec": {"root": "/x"}}
    assert asked_as(token, platform, "POST", "/sources", json=source).status_code == 403
    for path in ("task", "bundle"):
        assert asked_as(token, platform, "GET", f"/jobs/{job}/attempts/1/{path}").status_code in (403, 404)
    (tmp_path / "gate").write_text("go\n")


def test_the_token_of_a_jobs_code_ends_with_its_attempt(platform: JobPlatform, tmp_path: Path) -> None:
    job, token = running_with_token(platform, tmp_path / "gate")
    (tmp_path / "gate").write_text("go\n")
    platform.ended(job)
    late = asked_as(token, platform, "GET", "/datasets")
    assert (late.status_code, late.json()["code"]) == (401, "unauthenticated")
    assert f"{job}-a1 has ended" in late.json()["detail"]
    never = platform.signer.for_reader("job-never-a1", datetime.now().astimezone())
    assert asked_as(never, platform, "GET", "/datasets").status_code == 401
