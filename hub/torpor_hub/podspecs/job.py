"""An attempt of a job as a Job."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Mount
from torpor_hub.podspecs import names
from torpor_hub.podspecs.pods import ENTRY, Program, pod_spec
from torpor_hub.podspecs.shape import ClusterShape

COMPONENT = "job"
# Long enough for the wrapper to send what it has; it ends the job's own code at once.
GRACE_S = 30
LONGEST_S = 7 * 24 * 3600
# The wrapper ends an attempt that takes too long and says so. The cluster does where there is no wrapper any more.
BEYOND_WRAPPER_S = 3600
# What the kubelet keeps of a container that ended. Source: the default of ``terminationMessagePath``.
LAST_WORDS = "/dev/termination-log"
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


class Attempt(Protocol):
    """What is asked of a ``runners.base.JobRun``."""

    @property
    def name(self) -> str:
        """The attempt's name, unique for ever."""

    @property
    def job_id(self) -> str:
        """The job's id."""

    @property
    def tenant(self) -> str:
        """The tenant's name."""

    @property
    def tenant_id(self) -> str:
        """The tenant's id."""

    @property
    def user_id(self) -> str:
        """The submitter's id."""

    @property
    def image(self) -> str:
        """The image of the environment, by digest."""

    @property
    def amount(self) -> Amount:
        """What each rank gets."""

    @property
    def ranks(self) -> int:
        """How many pods run at once."""

    @property
    def timeout_s(self) -> float | None:
        """After how long the wrapper ends the job's code."""

    @property
    def told(self) -> Mapping[str, str]:
        """The variables that say to the wrapper what it wraps."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """The variables that belong into no record."""

    @property
    def mounts(self) -> Sequence[Mount]:
        """The data that the job may read."""


def job_object(run: Attempt, shape: ClusterShape, *, command: Sequence[str] = ENTRY) -> dict[str, Any]:
    """Return the whole Job of one attempt. A pod that fails is not replaced: the controller decides whether to try again.

    Its pods wait for ``job_secret``. The Job stays until the controller has taken up what it left; the cluster removes none
    by itself.

    Raises:
        ClusterError: when an id cannot name an object.
    """
    metadata = _metadata(run, shape)
    spec = pod_spec(_program(run, shape, command), run.user_id, shape, grace_s=GRACE_S)
    (container,) = spec["containers"]
    container["env"].append(_rank(run.ranks))
    container["envFrom"] = [{"secretRef": {"name": metadata["name"]}}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "parallelism": run.ranks,
            "completions": run.ranks,
            "completionMode": "Indexed",
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": int(run.timeout_s or LONGEST_S) + BEYOND_WRAPPER_S,
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": spec},
        },
    }


def job_secret(run: Attempt, shape: ClusterShape, job_uid: str) -> dict[str, Any]:
    """Return the attempt's secrets, which go when its Job goes. They are made after it, so that none is ever left behind.

    Raises:
        ClusterError: when an id cannot name an object.
    """
    metadata = _metadata(run, shape)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": job_uid}
    content = {name: base64.b64encode(value.encode()).decode() for name, value in run.secrets.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {**metadata, "ownerReferences": [owner]}, "data": content}


def _metadata(run: Attempt, shape: ClusterShape) -> dict[str, Any]:
    return {
        "name": names.job(run.name),
        "namespace": names.namespace(shape.namespace_prefix, run.tenant),
        "labels": names.managed_labels(COMPONENT, run.tenant_id, job=run.job_id, attempt=run.name, user=run.user_id),
    }


def _program(run: Attempt, shape: ClusterShape, command: Sequence[str]) -> Program:
    return Program(
        component=COMPONENT,
        image=run.image,
        command=command,
        args=("job",),
        environment={
            **run.told,
            "HOME": shape.home_dir,
            "TORPOR_FOLDER": shape.scratch_dir,
            "TORPOR_HOME": shape.home_dir,
            "TORPOR_LAST_WORDS": LAST_WORDS,
        },
        amount=run.amount,
        scratch={
            "runtime": f"{shape.workspace_root}/runtime",
            "logs": f"{shape.workspace_root}/logs",
            "tmp": "/tmp",  # noqa: S108 # the container's own
            "scratch": shape.scratch_dir,
        },
        home_dir=shape.home_dir,
        mounts=run.mounts,
    )


def _rank(ranks: int) -> dict[str, Any]:
    if ranks == 1:
        return {"name": "TORPOR_RANK", "value": "0"}
    return {"name": "TORPOR_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}}
