"""What the cluster's runner makes of a cluster that fails: with a stand-in for the API server's answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.podspecs.examples import JOB, SHAPE
from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster, Listing
from torpor_hub.cluster.kinds import Kind
from torpor_hub.errors import Denied, RunnerError
from torpor_hub.podspecs.job import job_object
from torpor_hub.runners.kubernetes import KubernetesRunner


class Failing(Cluster):
    """Two tenants with one running attempt each; the namespaces in ``forbidden`` may not be looked into."""

    def __init__(self) -> None:
        self.namespaces = {name: {"name": f"torpor-{name}"} for name in ("research", "operations")}
        self.forbidden: set[str] = set()

    async def list(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "") -> Listing:
        if namespace in self.forbidden:
            raise Denied("The platform may not list jobs there.", reason="FORBIDDEN", next_step="", answer="")
        if kind is kinds.NAMESPACE:
            return Listing(tuple({"metadata": metadata} for metadata in self.namespaces.values()), "1")
        return Listing((self._job(namespace),) if kind is kinds.JOB else (), "1")

    def _job(self, namespace: str) -> dict[str, Any]:
        job = job_object(JOB, SHAPE)
        job_id = f"job-{namespace.removeprefix('torpor-')}-a1"
        more = {"name": job_id, "namespace": namespace, "uid": "uid", "creationTimestamp": "2999-01-01T00:00:00Z"}
        return {**job, "metadata": {**job["metadata"], **more}, "status": {"active": 1}}


@pytest.fixture
def cluster() -> Failing:
    return Failing()


@pytest.fixture
def runner(cluster: Failing) -> KubernetesRunner:
    return KubernetesRunner(cluster, SHAPE, lambda: ["research", "operations"], patience_s=60)


def alive(runner: KubernetesRunner) -> dict[str, bool | None]:
    return {name: fact.alive for name, fact in asyncio.run(runner.facts()).items()}


def test_one_namespace_that_cannot_be_listed_means_that_nothing_is_known(
    cluster: Failing, runner: KubernetesRunner
) -> None:
    cluster.forbidden = {"torpor-operations"}
    with pytest.raises(RunnerError, match="may not list jobs there"):
        alive(runner)


def test_a_namespace_that_is_being_removed_hides_its_own_attempts_and_no_others(
    cluster: Failing, runner: KubernetesRunner
) -> None:
    assert alive(runner) == {"job-research-a1": True, "job-operations-a1": True}
    cluster.forbidden = {"torpor-operations"}
    cluster.namespaces["operations"]["deletionTimestamp"] = "2026-09-21T14:13:20Z"
    assert alive(runner) == {"job-research-a1": True, "job-operations-a1": None}


def test_a_namespace_that_is_not_made_yet_has_no_attempts(cluster: Failing, runner: KubernetesRunner) -> None:
    del cluster.namespaces["operations"]
    assert alive(runner) == {"job-research-a1": True}
