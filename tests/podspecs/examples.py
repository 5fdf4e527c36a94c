"""Objects that tests of pods begin with."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Mount, WorkspaceRun
from torpor_hub.podspecs.policy import TenantPolicy
from torpor_hub.podspecs.shape import ClusterShape
from torpor_hub.podspecs.tenant import TenantPlan
from torpor_hub.podspecs.workspace import workspace_pod
from torpor_hub.runners.base import JobRun

MIB, GIB = 1024**2, 1024**3
DIGEST = "sha256:" + "0" * 64
HOST = "registry.example:5000"
IMAGE = f"{HOST}/torpor/profiles/small@{DIGEST}"
SHAPE = ClusterShape("torpor-system", registry_host=HOST)
PLAN = TenantPlan("ten-1", "research", Amount(4000, 8 * GIB, 1), ("usr-1",), "puller", "secret")
RUN = WorkspaceRun(
    workspace_id="ws-1",
    grant_id="gr-1",
    name="first",
    tenant="research",
    user="ada",
    profile="small",
    amount=Amount(1000, 2 * GIB),
    root_dir="/opt/workspace",
    home_dir="/home/user",
    environment={"TORPOR_URL": "http://torpor-server:8090/services/torpor/"},
    tenant_id="ten-1",
    user_id="usr-1",
    image=IMAGE,
    mounts=(Mount("data-src-1", "/data/src-1"),),
)
JOB = JobRun(
    job_id="job-1",
    attempt=1,
    ranks=1,
    kind="command",
    tenant="research",
    user="ada",
    amount=Amount(1000, GIB),
    environment=None,
    token="the-token",
    reader_token="the-readers",
    api_url="http://torpor-server:8090/services/torpor/api/v1",
    tenant_id="ten-1",
    user_id="usr-1",
    image=IMAGE,
)
POLICY = TenantPolicy(
    "ten-1",
    "torpor-research",
    SHAPE.service_account,
    (f"{HOST}/torpor/",),
    Amount(2000, 4 * GIB, 1),
    frozenset({"data-src-1"}),
)


def pod(shape: ClusterShape = SHAPE, **changes: Any) -> dict[str, Any]:
    """Return a workspace's pod; ``changes`` are to its run. Nothing of it is shared."""
    run = replace(RUN, **changes)
    made = workspace_pod(run, shape, args=["--debug"], environment={"JUPYTERHUB_USER": "ada"}, base_url="/user/ada/")
    return copy.deepcopy(made)
