"""Jobs on a real cluster, from submit to result: real api, real controller, real pods behind the tenant's walls."""

from __future__ import annotations

import pickle
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.cluster.job_site import GIB, MIB, SMALL, JobSite, reachable
from tests.datasets.served_platform import importer
from torpor_hub.cluster import kinds
from torpor_hub.programs import demo
from torpor_hub.stores.base import Store

pytestmark = pytest.mark.cluster
IMAGES = {"small": "torpor/workspace", "spark": "torpor/workspace-spark"}
EATS = "kept = []\nwhile True:\n    kept.append(bytes(10_000_000))"


@pytest.fixture
def make_site(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Callable[..., JobSite]]:
    if reachable() is None:
        pytest.skip("needs the test cluster: KUBECONFIG and TORPOR_KUBE_… are not set")
    made: list[tuple[JobSite, Store]] = []

    def make(images: dict[str, str] = IMAGES, **settings: Any) -> JobSite:
        shutil.copy(migrated_sqlite, tmp_path / "torpor.sqlite")
        store = Store(f"sqlite:///{tmp_path / 'torpor.sqlite'}")
        made.append((JobSite(tmp_path / "state", store, images, **settings), store))
        return made[-1][0]

    yield make
    for site, store in made:
        site.close()
        store.close()


@pytest.fixture
def site(make_site: Callable[..., JobSite]) -> JobSite:
    return make_site()


def gone(site: JobSite) -> bool:
    """Return whether no job has anything on the cluster any more."""
    deadline = time.monotonic() + 60
    while any(site.objects(kind) for kind in (kinds.JOB, kinds.POD, kinds.SECRET)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def running(site: JobSite, *argv: str, **spec: Any) -> str:
    job = site.command(*argv, **{"amount": SMALL, **spec})
    site.wait(job, lambda status: status["log_bytes"] > 0)
    return job


def test_a_function_runs_in_its_image_and_leaves_nothing_behind(site: JobSite) -> None:
    job = site.function_in_image("def main(x):\n    print('counting')\n    return x + 1", 41, amount=SMALL)
    status = site.ended(job)
    assert (status["phase"], status["attempt"]) == ("SUCCEEDED", 1), (status, site.log(job))
    assert pickle.loads(site.get(f"/jobs/{job}/result").content) == {"value": 42}
    assert site.log(job) == "counting\n"
    assert site.freed()
    assert gone(site)


def test_no_token_is_in_a_jobs_own_description(site: JobSite) -> None:
    job = running(site, "sh", "-c", "echo $TORPOR_TOKEN; sleep 600")
    token = site.log(job).strip()
    assert token.startswith("torpor.")
    for kind in (kinds.JOB, kinds.POD):
        assert token not in str(site.objects(kind))
    (secret,) = site.objects(kinds.SECRET)
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "Job"
    site.cancel(job)
    assert site.ended(job)["phase"] == "CANCELLED"
    assert gone(site)


def test_a_cancel_frees_everything_also_of_code_that_ignores_it(site: JobSite) -> None:
    deaf = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & echo up; while :; do sleep 1; done"
    job = running(site, "sh", "-c", deaf)
    assert site.cancel(job).json()["status"]["phase"] == "CANCELLING"
    assert site.ended(job)["phase"] == "CANCELLED"
    assert site.freed()
    assert gone(site)


@pytest.mark.parametrize("grace_s", [1, 30], ids=["at once", "politely"])
def test_a_job_whose_pod_is_deleted_behind_its_back_runs_once_more(site: JobSite, grace_s: int) -> None:
    script = "echo attempt; if [ -e ~/second ]; then exit 0; fi; touch ~/second; exec sleep 600"
    job = running(site, "sh", "-c", script)
    site.remove_pod(job, grace_s)
    status = site.ended(job)
    assert (status["phase"], status["attempt"]) == ("SUCCEEDED", 2)
    assert site.log(job, attempt=1) == site.log(job, attempt=2) == "attempt\n"
    assert site.freed()
    assert gone(site)


def test_a_job_that_is_lost_beyond_its_budget_fails_with_the_reason(site: JobSite) -> None:
    job = running(site, "sh", "-c", "echo up; exec sleep 600", retries=0)
    site.remove_pod(job, 1)
    status = site.ended(job)
    assert (status["phase"], status["reason"], status["attempt"]) == ("FAILED", "LOST", 1)
    assert gone(site)


def test_a_job_that_needs_more_memory_says_so_with_its_limit(site: JobSite) -> None:
    job = site.command("python", "-c", EATS, amount={"cpu_milli": 100, "memory_bytes": 192 * MIB})
    status = site.ended(job)
    assert (status["phase"], status["reason"]) == ("FAILED", "OUT_OF_MEMORY"), (status, site.log(job))
    assert "192 MiB" in status["message"]
    assert "more memory" in status["next_step"]
    assert gone(site)


def test_a_job_whose_image_is_gone_says_so_at_once(site: JobSite) -> None:
    site.set_image("small", "sha256:" + "0" * 64)
    job = site.command("true", amount=SMALL)
    status = site.ended(job)
    assert (status["phase"], status["reason"]) == ("FAILED", "IMAGE_MISSING")
    assert "not in the registry" in status["message"]
    assert status["next_step"].endswith("`profile`.")
    assert gone(site)


def test_a_job_that_no_node_has_room_for_says_so_while_it_waits_and_when_it_is_given_up(
    make_site: Callable[..., JobSite],
) -> None:
    site = make_site(limits={"job_start_s": 20.0})
    job = site.command("true", amount={"cpu_milli": 2500, "memory_bytes": 256 * MIB})
    waits = site.wait(job, lambda status: "No node has 2.5 cores free." in status["message"])
    assert waits["phase"] == "STARTING"
    status = site.ended(job)
    assert (status["phase"], status["reason"]) == ("FAILED", "NO_ROOM")
    assert site.freed()
    assert gone(site)


def test_a_job_survives_a_restart_of_api_and_controller(site: JobSite) -> None:
    job = running(site, "sh", "-c", "echo before; while [ ! -e ~/gate ]; do sleep 0.1; done; echo after; exit 5")
    site.controller.end(orderly=False)
    site.api.stop()
    gate = running_elsewhere(site)
    site.api.start()
    site.new_controller()
    gate()
    status = site.ended(job)
    assert (status["phase"], status["exit_code"], status["attempt"]) == ("FAILED", 5, 1)
    assert site.log(job) == "before\nafter\n"
    assert gone(site)


def running_elsewhere(site: JobSite) -> Callable[[], str]:
    """Return what opens the gate: another job of the same user, which shares the home."""
    return lambda: site.ended(site.command("sh", "-c", "touch ~/gate", amount=SMALL))["phase"]


FLIGHTS = """
def main(spark=None):
    import torpor

    flights = torpor.dataset("research/flights")
    frame = spark.read.parquet(flights.path)
    sums = frame.groupBy("origin").agg({"distance": "sum", "arr_delay": "sum", "*": "count"}).collect()
    rows = {row["origin"]: [row["count(1)"], row["sum(distance)"], row["sum(arr_delay)"]] for row in sums}
    return spark.sparkContext.master, rows, flights.to_pandas(columns=["origin"], limit=5)["origin"].tolist()
"""


def test_a_spark_job_finds_by_a_datasets_name_what_duckdb_finds_in_its_files(
    make_site: Callable[..., JobSite], shared_folder: Path
) -> None:
    source = {"hostPath": {"path": str(shared_folder)}}
    site = make_site({"spark": IMAGES["spark"]}, paths={"data": str(shared_folder)}, cluster={"data_source": source})
    site.do(lambda cluster: site.make_data(cluster, source))
    with importer(site.settings_file()):
        demo.register(site.settings)
        amount = {"cpu_milli": 1100, "memory_bytes": 3 * GIB}
        job = site.function_in_image(FLIGHTS, kind="spark", amount=amount)
        status = site.ended(job)
    assert status["phase"] == "SUCCEEDED", (status, site.log(job))
    master, rows, head = pickle.loads(site.get(f"/jobs/{job}/result").content)["value"]
    assert master == "local[2]"
    files = f"read_parquet('{shared_folder}/flights/*/*.parquet', hive_partitioning = true)"
    sums = f"SELECT origin, count(*), sum(distance), sum(arr_delay) FROM {files} GROUP BY origin"
    assert rows == {origin: [count, distance, delay] for origin, count, distance, delay in duckdb.sql(sums).fetchall()}
    assert len(head) == 5
    assert set(head) <= rows.keys()
    read_only = site.command("touch", f"{shared_folder}/flights/mine", amount=SMALL)
    assert site.ended(read_only)["exit_code"] == 1
    assert "Read-only file system" in site.log(read_only)
    site.controller.end(orderly=True)
    of_a_viewer = site.command("ls", str(shared_folder), amount=SMALL)
    site.demote()
    site.new_controller()
    assert site.ended(of_a_viewer)["exit_code"] == 2
    assert "No such file or directory" in site.log(of_a_viewer), (
        "who may not read the tenant's datasets has no files of them"
    )


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that the nodes have where this machine has it."""
    folder = Path("/var/tmp") / f"torpor-test-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)
