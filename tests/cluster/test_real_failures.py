"""Every way in which a pod does not start, on a real cluster: what the platform says of it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from tests.cluster.objects import absent, make_tenant, plan, shape_of, until, workspace
from tests.podspecs.examples import GIB, MIB
from torpor_hub.cluster import kinds
from torpor_hub.cluster.access import Access
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.watch import Watch
from torpor_hub.domain.diagnose import Cause
from torpor_hub.domain.units import Amount
from torpor_hub.podspecs import room
from torpor_hub.podspecs.diagnose import Surroundings, diagnose_pod

pytestmark = pytest.mark.cluster
SHARE = Amount(1000_000, 1000 * GIB, 100)


async def cause_of(cluster: Cluster, namespace: str, pod: dict[str, Any]) -> Cause:
    """Make the pod and return why it does not start, as soon as that is known."""
    nodes = (await cluster.list(kinds.NODE)).items
    free = room.freest(room.free(nodes, (await cluster.list(kinds.POD)).items))
    async with Watch(cluster, kinds.POD) as pods, Watch(cluster, kinds.EVENT) as events:
        pods.add(namespace)
        events.add(namespace)
        await cluster.create(pod)

        def cause() -> Cause | None:
            seen = pods.snapshot().objects.get((namespace, "ws-1"))
            around = Surroundings(time.time(), tuple(events.snapshot().objects.values()), free)
            return diagnose_pod(seen, around) if seen else None

        found = await until_either((pods, events), cause)
    assert isinstance(found, Cause)
    return found


async def until_either(watches: tuple[Watch, ...], found: Any) -> Any:
    tasks = [asyncio.create_task(until(watch, found)) for watch in watches]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return done.pop().result()


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "IMAGE_MISSING": ({"image": absent(os.environ.get("TORPOR_KUBE_REGISTRY", "none.invalid"))}, "not in the registry"),
    "IMAGE_UNREACHABLE": ({"image": absent("127.0.0.1:1")}, "could not be fetched"),
    "IMAGE_NAME_INVALID": ({"image": "no/Such/Name"}, "cannot be read"),
    "NO_ROOM": ({"amount": Amount(1, 64 * MIB, 99)}, "No node has 99 GPUs free. The most that one node has free is "),
    "NO_ROOM of CPU": ({"amount": Amount(500_000, 64 * MIB)}, "No node has 500 cores free. The most"),
    # It says this and nothing else: of two streams, either one's line can come last.
    "CRASHED": ({"args": ("/nope",)}, "extra command line arguments: [/nope]"),
    "CRASHED without an error": ({"args": ("-version",)}, "exit code 0"),
    "OUT_OF_MEMORY": ({"args": ("-conf", "/dev/zero")}, "more than its 64 MiB of memory"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_start_that_fails_says_why_as_soon_as_the_cluster_does(reach: Access, prefix: str, case: str) -> None:
    changes, sentence = CASES[case]
    shape = shape_of(prefix, registry_host="")

    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_tenant(cluster, plan(SHARE), shape)
            cause = await cause_of(cluster, namespace, workspace(shape, **changes))
            assert cause.reason in case.split(), cause
            assert sentence in cause.message

    asyncio.run(run())


def test_a_home_whose_class_does_not_exist_is_a_cause_once_it_has_had_time(reach: Access, prefix: str) -> None:
    shape = shape_of(prefix, storage_class=f"{prefix}none")

    async def run() -> None:
        async with Cluster(reach) as cluster:
            namespace = await make_tenant(cluster, plan(SHARE), shape)
            cause = await cause_of(cluster, namespace, workspace(shape))
            assert cause.reason == "VOLUME_UNBOUND"
            assert f'"{prefix}none" not found' in cause.message

    asyncio.run(run())
