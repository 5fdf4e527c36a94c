"""The requests that the API knows, as plain values: no connection, no clock, no environment.

A request goes the same way over a synchronous and an asynchronous HTTP client: ``request.method``, ``request.url(base)``,
``request.headers_for(token)``, and what to send. The contract is ``docs/reference/http-api.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

WIRE_VERSION = "1"
API_PATH = "api/v1"
WIRE_HEADER = "Torpor-Wire"
REQUEST_ID_HEADER = "X-Request-Id"
NEXT_OFFSET_HEADER = "Torpor-Next-Offset"
ATTEMPT_HEADER = "Torpor-Attempt"
SHA256_HEADER = "Torpor-SHA256"
BUNDLE_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """One request: ``path`` below ``api/v1``, already quoted; ``body`` is JSON, ``files`` are multipart parts."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    files: Mapping[str, tuple[str | None, bytes, str]] | None = None

    def url(self, base: str) -> str:
        """Return the address below ``base``, which ends in ``services/torpor/``."""
        query = f"?{urlencode(self.params)}" if self.params else ""
        return f"{base.rstrip('/')}/{API_PATH}/{self.path}{query}"

    def headers_for(self, token: str) -> dict[str, str]:
        """Return all headers, with the token where there is one."""
        credentials = {"Authorization": f"Bearer {token}"} if token else {}
        return {WIRE_HEADER: WIRE_VERSION, "Accept": "application/json, */*", **credentials, **self.headers}

    def with_params(self, **params: str | int | None) -> Request:
        """Return this request with further query parameters; None leaves one away."""
        return replace(self, params={**self.params, **_given(params)})

    def unless_version(self, version: int) -> Request:
        """Return this request so that it answers 304 while the thing still has ``version``."""
        return replace(self, headers={**self.headers, "If-None-Match": f'"{version}"'})


def get(path: str, /, **params: str | int | None) -> Request:
    """Return a read; None leaves a parameter away."""
    return Request("GET", path, _given(params))


def health() -> Request:
    """Return the question whether the API lives; the only one without credentials."""
    return get("health")


def me() -> Request:
    """Return the question who asks."""
    return get("me")


def tenants() -> Request:
    """Return the list of the tenants that one may see, with what they hold."""
    return get("tenants")


def workspaces(*, everyone: bool = False) -> Request:
    """Return the list of one's workspaces, or of everyone's (platform admins)."""
    return get("workspaces", all="true" if everyone else None)


def create_workspace(spec: Mapping[str, Any], *, key: str) -> Request:
    """Return the creation of a workspace: ``name``, ``tenant``, ``profile``, perhaps ``desired``."""
    return Request("POST", "workspaces", headers={"Idempotency-Key": key}, body=spec)


def wish(collection: str, identity: str, **spec: Any) -> Request:
    """Return a change of the wishes for one thing, such as ``wish("jobs", id, desired="cancelled")``."""
    return Request("PATCH", f"{collection}/{quote(identity, safe='')}", body={"spec": spec})


def delete_workspace(identity: str) -> Request:
    """Return the end of a workspace, its environment and its checkpoints."""
    return Request("DELETE", f"workspaces/{quote(identity, safe='')}")


def one(collection: str, identity: str, *below: str) -> Request:
    """Return the read of one thing, or of what lies below it: ``one("jobs", id, "log")``."""
    return get("/".join([collection, quote(identity, safe=""), *below]))


def job_options(workspace: str | None) -> Request:
    """Return the question what a job may be."""
    return get("job-options", workspace=workspace)


def submit_job(spec: Mapping[str, Any], bundle: bytes | None, *, key: str) -> Request:
    """Return the submit of a job, spec and code in one request."""
    files: dict[str, tuple[str | None, bytes, str]] = {"spec": (None, json.dumps(spec).encode(), "application/json")}
    if bundle is not None:
        files["bundle"] = ("bundle.pkl", bundle, "application/octet-stream")
    return Request("POST", "jobs", headers={"Idempotency-Key": key}, files=files)


def jobs(*, tenant: str | None = None, workspace: str | None = None, phase: str | None = None) -> Request:
    """Return the list of jobs, newest first."""
    return get("jobs", tenant=tenant, workspace=workspace, phase=phase)


def datasets(*, tenant: str | None = None, search: str | None = None, name: str | None = None) -> Request:
    """Return the list of datasets; ``name`` is ``tenant/name`` and finds one."""
    return get("datasets", tenant=tenant, search=search, name=name)


def create_dataset(fields: Mapping[str, Any], *, key: str) -> Request:
    """Return the registration of a dataset; its first import is queued."""
    return Request("POST", "datasets", headers={"Idempotency-Key": key}, body=fields)


def import_dataset(identity: str, *, key: str) -> Request:
    """Return a further import of a dataset."""
    return Request("POST", f"datasets/{quote(identity, safe='')}/imports", headers={"Idempotency-Key": key}, body={})


def read_dataset(
    identity: str, columns: Sequence[str] | None, conditions: Sequence[Sequence[Any]], limit: int | None, *, key: str
) -> Request:
    """Return a read of rows; ``conditions`` all hold: ``[["month", "==", 3], …]``."""
    body = {
        "columns": list(columns) if columns is not None else None,
        "filter": [list(condition) for condition in conditions],
        "limit": limit,
    }
    return Request("POST", f"datasets/{quote(identity, safe='')}/reads", headers={"Idempotency-Key": key}, body=body)


def _given(params: Mapping[str, str | int | None]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items() if value is not None}
