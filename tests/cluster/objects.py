"""Objects for tests on a real cluster, made of images that its nodes have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.podspecs.examples import DIGEST, GIB, MIB
from torpor_hub.cluster import kinds
from torpor_hub.cluster.client import Cluster
from torpor_hub.cluster.watch import Watch
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.errors import ClusterError, Denied
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan, home_object, namespace_object, tenant_objects
from torpor_hub.podspecs.workspace import workspace_pod

Json = dict[str, Any]
# The only program on the test cluster's nodes that says something and ends.
SPEAKER = "torpor.test/coredns:1"
PATIENCE_S, RIGHTS_WITHIN_S = 60.0, 10.0


def shape_of(prefix: str, **changes: Any) -> ClusterShape:
    """Return the shape of an installation whose namespaces begin with ``prefix``."""
    return replace(ClusterShape(f"{prefix}platform", namespace_prefix=prefix), **changes)


def plan(share: Amount = Amount(1000, GIB, 1)) -> TenantPlan:  # noqa: B008 # it is frozen
    """Return a tenant with one member."""
    return TenantPlan("ten-1", "research", share, ("usr-1",))


async def make_tenant(cluster: Cluster, made: TenantPlan, shape: ClusterShape) -> str:
    """Make the tenant with its members' homes and return its namespace, which takes pods from then on."""
    namespace = str((await _once_allowed(cluster.apply, namespace_object(made, shape)))["metadata"]["name"])
    for thing in tenant_objects(made, shape):
        await _once_allowed(cluster.apply, thing)
    for user_id in made.user_ids:
        await _once_allowed(cluster.create, home_object(made, user_id, shape))
    await quota_counts(cluster, namespace)
    return namespace


async def quota_counts(cluster: Cluster, namespace: str) -> None:
    """Wait until a new quota says what is in use: before that, the API server refuses every pod."""
    async with asyncio.timeout(PATIENCE_S):
        while not all(
            "used" in quota.get("status", {}) for quota in (await cluster.list(kinds.QUOTA, namespace)).items
        ):
            await asyncio.sleep(0.1)


async def _once_allowed(make: Callable[[Json], Awaitable[Json]], thing: Json) -> Json:
    """Make an object; rights that were just given are known to the API server a moment later."""
    deadline = time.monotonic() + RIGHTS_WITHIN_S
    while True:
        try:
            return await make(thing)
        except Denied as error:
            if error.reason != "FORBIDDEN" or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def workspace(shape: ClusterShape, *, args: tuple[str, ...] = (), image: str = SPEAKER, **changes: Any) -> Json:
    """Return the pod of a small workspace that runs the speaker with ``args``."""
    run = WorkspaceRun(
        workspace_id="ws-1",
        grant_id="gr-1",
        name="first",
        tenant="research",
        user="ada",
        profile="small",
        amount=Amount(100, 64 * MIB),
        root_dir="/opt/workspace",
        home_dir="/home/user",
        tenant_id="ten-1",
        user_id="usr-1",
        image=image,
    )
    made = replace(run, **changes)
    return workspace_pod(made, shape, args=args, environment={}, base_url="/user/ada/", command=("/coredns",))


def absent(host: str) -> str:
    """Return the name of an image that the registry at ``host`` does not have."""
    return f"{host}/torpor/profiles/none@{DIGEST}"


async def until(watch: Watch, found: Callable[[], Any]) -> Any:
    """Return what ``found`` gives once it gives something, asked again at each change."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            changed = watch.changed
            value = found()
            if value:
                return value
            await changed.wait()


async def refused(request: Awaitable[Any]) -> ClusterError:
    """Return the error with which a request ends."""
    with pytest.raises(ClusterError) as caught:
        await request
    return caught.value
