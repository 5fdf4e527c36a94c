"""Torpor's SDK: data and jobs of the platform, from notebooks and programs.

    import torpor

    flights = torpor.dataset("research/flights")
    flights.sample(5)

    job = torpor.submit(train, flights.path, cores=2, memory="4GiB")
    job.result()

In a workspace and in a job nothing needs to be configured. What is listed in ``__all__`` is the whole surface, besides
``torpor.widgets``; every other module is private.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from torpor.client import Client
from torpor.dataset_handle import Dataset, Schema
from torpor.errors import (
    ApiError,
    BundleError,
    BundleTooLarge,
    Busy,
    ConfigurationError,
    Conflict,
    Forbidden,
    IncompleteStream,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    NotFound,
    NotSignedIn,
    PlatformUnreachable,
    Problem,
    ServerError,
    TorporError,
    WaitTimeout,
)
from torpor.job_handle import Job, RemoteTraceback
from torpor.models import Column, DatasetStatus, JobStatus, Resource, WorkspaceStatus
from torpor.workspace_handle import Workspace

__all__ = [
    "ApiError",
    "BundleError",
    "BundleTooLarge",
    "Busy",
    "Client",
    "Column",
    "ConfigurationError",
    "Conflict",
    "Dataset",
    "DatasetStatus",
    "Forbidden",
    "IncompleteStream",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobStatus",
    "NotFound",
    "NotSignedIn",
    "PlatformUnreachable",
    "Problem",
    "RemoteTraceback",
    "Resource",
    "Schema",
    "ServerError",
    "TorporError",
    "WaitTimeout",
    "Workspace",
    "WorkspaceStatus",
    "dataset",
    "datasets",
    "job",
    "jobs",
    "submit",
    "workspace",
]


def dataset(name: str) -> Dataset:
    """Return the dataset with that id or ``tenant/name``. Raises NotFound."""
    return _client().dataset(name)


def datasets(*, tenant: str | None = None, search: str | None = None, limit: int | None = None) -> list[Dataset]:
    """Return the datasets that one may see, of one tenant or with a word in them."""
    return _client().datasets(tenant=tenant, search=search, limit=limit)


def submit(
    fn_or_argv: Callable[..., Any] | Sequence[str],
    *args: Any,
    kind: str | None = None,
    name: str | None = None,
    cores: float | None = None,
    memory: str | int | None = None,
    environment: str | None = None,
    timeout: float | None = None,
    retries: int | None = None,
    wait: bool = False,
    **kwargs: Any,
) -> Job:
    """Return the job that runs a function with its arguments, or a command given as a list of words.

    ``kind`` is ``command`` (the default) or ``spark``; ``cores`` and ``memory`` (``"2GiB"``, ``"512 MiB"``, or bytes) what it gets,
    by default what the platform offers; ``environment`` is ``workspace`` (the default in a workspace: what is installed here now),
    ``profile`` (nothing installed) or a digest; ``timeout`` in seconds; ``retries`` how often it may begin again. With ``wait`` the
    call returns when the job has ended. Raises BundleError for what cannot be sent.
    """
    return _client().submit(
        fn_or_argv,
        *args,
        kind=kind,
        name=name,
        cores=cores,
        memory=memory,
        environment=environment,
        timeout=timeout,
        retries=retries,
        wait=wait,
        **kwargs,
    )


def job(name: str) -> Job:
    """Return the job with that id, or the newest with that name. Raises NotFound."""
    return _client().job(name)


def jobs(
    *, tenant: str | None = None, workspace: str | None = None, phase: str | None = None, limit: int | None = 50
) -> list[Job]:
    """Return jobs, newest first; ``limit`` None returns all."""
    return _client().jobs(tenant=tenant, workspace=workspace, phase=phase, limit=limit)


def workspace(name: str | None = None) -> Workspace:
    """Return the workspace with that id or name; without one, that in which this code runs. Raises NotFound."""
    return _client().workspace(name)


def _client() -> Client:
    """Return a client for what the environment says now; the same one while it says the same."""
    relevant = ("HOME", "XDG_CONFIG_HOME", "JUPYTERHUB_API_TOKEN")
    chosen = {name: value for name, value in os.environ.items() if name.startswith("TORPOR_") or name in relevant}
    return _client_for(frozenset(chosen.items()))


@functools.lru_cache(maxsize=4)
def _client_for(environ: frozenset[tuple[str, str]]) -> Client:
    return Client(environ=dict(environ))
