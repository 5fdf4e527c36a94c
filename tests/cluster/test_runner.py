"""Jobs on a real cluster, from submit to result: real api, real controller, real pods behind the tenant's walls."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.cluster.job_site import GIB, MIB, SMALL, JobSite, reachable
from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster
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


def test_a_spark_job_finds_in_a_claim_what_duckdb_finds(make_site: Callable[..., JobSite]) -> None:
    site = make_site({"spark": IMAGES["spark"]}, cluster={"data_source": {"hostPath": {"path": "/"}}})
    folder = site.do(lambda cluster: make_data(cluster, site))
    text = """
def main(path, spark=None):
    frame = spark.read.parquet(path).groupBy("origin").agg({"distance": "sum", "arr_delay": "sum", "*": "count"})
    rows = {row["origin"]: [row["count(1)"], row["sum(distance)"], row["sum(arr_delay)"]] for row in frame.collect()}
    return spark.sparkContext.master, rows
"""
    amount = {"cpu_milli": 1300, "memory_bytes": 3 * GIB}
    job = site.function_in_image(text, "/data/flights", kind="spark", amount=amount)
    status = site.ended(job)
    assert status["phase"] == "SUCCEEDED", (status, site.log(job))
    master, rows = pickle.loads(site.get(f"/jobs/{job}/result").content)["value"]
    assert master == "local[2]"
    wanted = duckdb.sql(
        "SELECT origin, count(*), sum(distance), sum(arr_delay) "
        f"FROM read_parquet('{folder}/flights/*/*.parquet', hive_partitioning = true) GROUP BY origin"
    ).fetchall()
    assert rows == {origin: [count, distance, delay] for origin, count, distance, delay in wanted}
    read_only = site.command("touch", "/data/flights/mine", amount=SMALL)
    assert site.ended(read_only)["exit_code"] == 1
    assert "Read-only file system" in site.log(read_only)


async def make_data(cluster: Cluster, site: JobSite) -> Path:
    """Make the tenant's claim of data with the flights in it; return the folder where this machine has it."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"data-{site.tenant_id}", "namespace": site.namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    made = await cluster.create(claim)
    while not made["spec"].get("volumeName"):
        made = await cluster.get(kinds.CLAIM, claim["metadata"]["name"], site.namespace)  # type: ignore[index]
    volume = await cluster.get(kinds.VOLUME, made["spec"]["volumeName"])
    folder = Path(volume["spec"]["hostPath"]["path"])
    demo.write(folder / "flights")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder
