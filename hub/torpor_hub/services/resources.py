"""The shape of every resource."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol


class HasStatus(Protocol):
    """A row with a status."""

    phase: Any
    reason: Any
    message: Any
    next_step: Any
    since: Any


class HasVersion(Protocol):
    """A row that is a resource."""

    id: Any
    name: Any
    version: Any
    created_at: Any


def iso(moment: datetime | None) -> str | None:
    """Return a moment as ISO 8601 in UTC with milliseconds, or None."""
    if moment is None:
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def resource(
    kind: str, row: HasVersion, *, tenant: str | None, owner: str | None, spec: dict[str, Any], status: dict[str, Any]
) -> dict[str, Any]:
    """Return a row as a resource; ``tenant`` and ``owner`` are names."""
    return {
        "id": row.id,
        "kind": kind,
        "name": row.name,
        "tenant": tenant,
        "owner": owner,
        "version": row.version,
        "created_at": iso(row.created_at),
        "spec": spec,
        "status": status,
    }


def status(row: HasStatus, **more: Any) -> dict[str, Any]:
    """Return the status of a row with what its kind adds."""
    return {
        "phase": row.phase,
        "reason": row.reason,
        "message": row.message,
        "since": iso(row.since),
        "next_step": row.next_step,
        **more,
    }


def amount(cpu_milli: int, memory_bytes: int, gpu_count: int = 0) -> dict[str, int]:
    """Return an amount as JSON."""
    return {"cpu_milli": cpu_milli, "memory_bytes": memory_bytes, "gpu_count": gpu_count}
