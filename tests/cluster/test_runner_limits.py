"""What the runner of a real cluster must not do, and what it says where the cluster does not let it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.runner_worlds import SHARE, WAITS, PodWorld
from torpor_hub.cluster import access, kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.domain.units import Amount
from torpor_hub.errors import RunnerError
from torpor_hub.runners.base import JobRun
from torpor_hub.runners.kubernetes import KubernetesRunner

pytestmark = pytest.mark.cluster
OTHER = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PodWorld]:
    made = PodWorld(tmp_path / "state")
    yield made
    made.close()


def test_an_end_by_another_handle_leaves_the_attempt_alone(world: PodWorld) -> None:
    run = world.attempt("sh", "-c", "echo up; exec sleep 600")
    handle = world.start(run)
    assert world.heard(lambda: world.api.log(run.name))
    world.end(run, OTHER)
    fact = world.fact(run)
    assert fact is not None
    assert (fact.handle, fact.alive) == (handle, True)
    assert world.processes(run)
    world.end(run, handle)
    assert world.processes(run) == []


def test_an_api_server_that_is_away_means_that_nothing_is_known(world: PodWorld) -> None:
    run = world.attempt("true")
    nobody = Cluster(replace(access.find(), server="https://127.0.0.1:9"))
    runner = KubernetesRunner(nobody, world.shape, lambda: ["research"], patience_s=60)
    for work in (
        runner.facts(),
        runner.start(run),
        runner.end(run.name, OTHER, grace_s=0),
        runner.salvage(run.name, log_from=0),
        runner.forget(run.name),
    ):
        with pytest.raises(RunnerError, match="does not answer"):
            world.run(work)
    world.run(nobody.aclose())


def test_what_the_tenant_may_not_run_is_refused_before_anything_is_made(world: PodWorld) -> None:
    good = world.attempt("true")
    host, digest = world.registry_host, good.image.rpartition("@")[2]
    forbidden: list[tuple[JobRun, str]] = [
        (replace(good, image=good.image.partition("@")[0] + ":dev"), "not named by its digest"),
        (replace(good, image=f"{host}/torpor/workspaces/operations/ws-1@{digest}"), "not the tenant's to run"),
    ]
    for run, sentence in forbidden:
        with pytest.raises(RunnerError, match=sentence):
            world.start(run)
    assert world.objects(kinds.JOB) == world.objects(kinds.POD) == []


def test_a_pod_that_the_cluster_refuses_says_by_which_limit_and_is_given_up_after_a_while(world: PodWorld) -> None:
    more = Amount(SHARE.cpu_milli + 1000, SHARE.memory_bytes)
    run = world.attempt("true", amount=more)
    handle = world.start(run)
    waits = world.wait(run, lambda fact: fact is not None and bool(fact.message))
    assert waits.alive is True
    assert "CPU: 5 cores asked, at most 4 cores allowed" in waits.message
    world.runner = KubernetesRunner(world.cluster, world.shape, lambda: ["research"], patience_s=1)
    fact = world.ended(run)
    assert (fact.reason, fact.message) == ("limit_range", waits.message)
    world.end(run, handle)
    world.run(world.runner.forget(run.name))
    assert world.objects(kinds.JOB) == world.objects(kinds.POD) == []


def test_two_jobs_of_one_user_share_the_node_of_their_home(world: PodWorld) -> None:
    runs = [world.attempt("sh", "-c", "echo up; exec sleep 600", job=str(number)) for number in (1, 2, 3)]
    for run in runs:
        world.start(run)
    assert world.heard(lambda: all(world.api.log(run.name) for run in runs))
    assert len({world.pod(run)["spec"]["nodeName"] for run in runs}) == 1


def test_what_an_attempt_could_not_deliver_is_read_from_its_pod(world: PodWorld) -> None:
    gate = world.gate()
    script = f"print('one', flush=True); import sys; sys.argv[1:] = ['{gate.host}', '{gate.port}', '5']; "
    waits = WAITS.replace("sys.exit", "print('two', flush=True); sys.exit")
    run = world.attempt("python", "-c", script + waits)
    world.start(run)
    assert world.heard(lambda: world.api.log(run.name) == "one\n")
    exit_file = world.folder(run) / "exit.json"
    world.api.stop()
    gate.open()
    assert world.until(exit_file.exists)
    os.kill(world.processes(run)[0], signal.SIGTERM)
    fact = world.ended(run)
    assert (fact.exit_code, fact.reason) == (5, "")
    left = world.run(world.runner.salvage(run.name, log_from=4))
    assert left.log.startswith(b"two\n")
    assert b"was not delivered" in left.log
