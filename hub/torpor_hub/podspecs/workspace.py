"""A workspace as a pod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.podspecs import names
from torpor_hub.podspecs.pods import ENTRY, Program, pod_spec
from torpor_hub.podspecs.shape import ClusterShape

COMPONENT = "workspace"
GRACE_S = 5
# A probe of its own container costs little, and what waits for the first answer waits for this.
PROBE_EVERY_S = 1
PROBE_WITHIN_S = 2


def workspace_pod(
    run: WorkspaceRun,
    shape: ClusterShape,
    *,
    args: Sequence[str],
    environment: Mapping[str, str],
    base_url: str,
    annotations: Mapping[str, str] | None = None,
    command: Sequence[str] = ENTRY,
) -> dict[str, Any]:
    """Return the whole pod of a workspace, which needs nothing added.

    ``environment`` holds the hub's variables; the run's own win over them. ``base_url`` begins and ends with a slash. There is
    no liveness probe: it would end a workspace that stands frozen while it is saved.

    Raises:
        ClusterError: when an id cannot name an object.
    """
    program = Program(
        component=COMPONENT,
        image=run.image,
        command=command,
        args=args,
        environment=_environment(run, environment),
        amount=run.amount,
        scratch={"runtime": f"{run.root_dir}/runtime", "logs": f"{run.root_dir}/logs", "tmp": "/tmp"},  # noqa: S108
        home_dir=run.home_dir,
        mounts=run.mounts,
        probe={
            "ports": [{"name": "http", "containerPort": shape.workspace_port}],
            "readinessProbe": {
                "httpGet": {"path": f"{base_url}api", "port": shape.workspace_port},
                "periodSeconds": PROBE_EVERY_S,
                "timeoutSeconds": PROBE_WITHIN_S,
            },
        },
    )
    labels = names.managed_labels(
        COMPONENT, run.tenant_id, workspace=run.workspace_id, grant=run.grant_id, user=run.user_id
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.pod(run.workspace_id),
            "namespace": names.namespace(shape.namespace_prefix, run.tenant),
            "labels": labels,
            "annotations": dict(annotations or {}),
        },
        "spec": pod_spec(program, run.user_id, shape, grace_s=GRACE_S),
    }


def _environment(run: WorkspaceRun, environment: Mapping[str, str]) -> dict[str, str]:
    marks = {"TORPOR_WORKSPACE": run.workspace_id, "TORPOR_GRANT": run.grant_id, "HOME": run.home_dir}
    return {**environment, **run.environment, **marks}
