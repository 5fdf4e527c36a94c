"""An attempt of a job as a Job."""

from __future__ import annotations

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
    def token(self) -> str:
        """The attempt's token for the api."""

    @property
    def api_url(self) -> str:
        """The root of the REST api."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Variables of the job's own."""

    @property
    def mounts(self) -> Sequence[Mount]:
        """The data that the job may read."""


def job_object(run: Attempt, shape: ClusterShape, *, command: Sequence[str] = ENTRY) -> dict[str, Any]:
    """Return the whole Job of one attempt. A pod that fails is not replaced: the controller decides whether to try again.

    The Job stays until the controller has taken up what it left; the cluster removes none by itself.

    Raises:
        ClusterError: when an id cannot name an object.
    """
    labels = names.managed_labels(COMPONENT, run.tenant_id, job=run.job_id, attempt=run.name, user=run.user_id)
    spec = pod_spec(_program(run, shape, command), run.user_id, shape, grace_s=GRACE_S)
    spec["containers"][0]["env"].append(_rank(run.ranks))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job(run.name),
            "namespace": names.namespace(shape.namespace_prefix, run.tenant),
            "labels": labels,
        },
        "spec": {
            "backoffLimit": 0,
            "parallelism": run.ranks,
            "completions": run.ranks,
            "completionMode": "Indexed",
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": int(run.timeout_s or LONGEST_S) + BEYOND_WRAPPER_S,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _program(run: Attempt, shape: ClusterShape, command: Sequence[str]) -> Program:
    return Program(
        component=COMPONENT,
        image=run.image,
        command=command,
        args=("job",),
        environment=_environment(run, shape),
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


def _environment(run: Attempt, shape: ClusterShape) -> dict[str, str]:
    return {
        **run.variables,
        "HOME": shape.home_dir,
        "TORPOR_URL": run.api_url.removesuffix("/").removesuffix("api/v1"),
        "TORPOR_TENANT": run.tenant,
        "TORPOR_JOB": run.job_id,
        "TORPOR_ATTEMPT": run.name,
        "TORPOR_JOB_TOKEN": run.token,
        "TORPOR_FOLDER": shape.scratch_dir,
        "TORPOR_HOME": shape.home_dir,
    }


def _rank(ranks: int) -> dict[str, Any]:
    if ranks == 1:
        return {"name": "TORPOR_RANK", "value": "0"}
    return {"name": "TORPOR_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}}
