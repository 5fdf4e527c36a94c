"""Jobs as resources, and what a form may offer."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from torpor_hub.domain import saving
from torpor_hub.domain.job_specs import KINDS
from torpor_hub.domain.policy import Action, Actor, Object
from torpor_hub.domain.units import Amount
from torpor_hub.services import jobs, workspaces
from torpor_hub.services.access import check
from torpor_hub.services.resources import amount, iso, resource, status
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Job, LogSegment, Tenant, User, Workspace

DEFAULT = Amount(1000, 1024**3)
PROFILE = {"value": "profile", "title": "As the profile has it: nothing that you installed"}


def job(tx: UnitOfWork, row: Job) -> dict[str, Any]:
    """Return a job as a resource."""
    tenant, user = tx.session.get_one(Tenant, row.tenant_id), tx.session.get_one(User, row.user_id)
    return resource(
        "job",
        row,
        tenant=tenant.name,
        owner=user.name,
        spec={
            **row.spec,
            "kind": row.kind,
            "workspace": row.workspace_id,
            "amount": amount(row.cpu_milli, row.memory_bytes),
            "ranks": row.ranks,
            "desired": row.desired,
        },
        status=status(
            row,
            attempt=row.attempt,
            position=row.position,
            parts=row.parts,
            notice=row.notice,
            environment=row.environment_digest,
            exit_code=row.exit_code,
            started_at=iso(row.started_at),
            ended_at=iso(row.ended_at),
            result=_result(row),
            exception=row.exception,
            log_bytes=_log_bytes(tx, row),
        ),
    )


def options(tx: UnitOfWork, settings: Settings, actor: Actor, workspace_key: str | None) -> dict[str, Any]:
    """Return what a form for jobs may offer.

    Raises:
        NotFound: when the workspace is not there, or not to be seen.
    """
    workspace = workspaces.find(tx, actor, workspace_key, Action.SEE) if workspace_key else None
    tenant = jobs.tenant_of(tx, actor, workspace)
    check(actor, Action.SEE, Object("tenant", tenant.id, tenant.id))
    most = _smaller(*jobs.most(tx, tenant))
    default = _smaller(DEFAULT, most)
    here = workspace is not None
    environments = [_as_here(workspace), PROFILE] if workspace and settings.save_environments else [PROFILE]
    kinds = [kind for kind in jobs.profile_of(tx, workspace).kinds if kind in KINDS]
    return {
        "kinds": [{"kind": kind, "title": KINDS[kind][0], "description": KINDS[kind][1]} for kind in kinds],
        "environments": environments,
        "default": {
            "kind": kinds[0] if kinds else None,
            "amount": amount(default.cpu_milli, default.memory_bytes),
            "environment": environments[0]["value"],
        },
        "most": amount(most.cpu_milli, most.memory_bytes),
        "tenant": tenant.name,
        "notice": saving.JOBS if here and not settings.save_environments else "",
    }


def _as_here(workspace: Workspace) -> dict[str, str]:
    return {"value": "workspace", "title": f"As in '{workspace.name}' now, with what you installed"}


def _smaller(one: Amount, other: Amount | None) -> Amount:
    if other is None:
        return one
    return Amount(min(one.cpu_milli, other.cpu_milli), min(one.memory_bytes, other.memory_bytes))


def _result(row: Job) -> dict[str, Any] | None:
    if not row.result_key:
        return None
    kind = "exception" if row.exception else "value"
    return {"size_bytes": row.result_bytes, "sha256": row.result_sha256, "type": kind}


def _log_bytes(tx: UnitOfWork, row: Job) -> int:
    end = func.coalesce(func.max(LogSegment.start + LogSegment.size_bytes), 0)
    query = select(end).where(LogSegment.job_id == row.id, LogSegment.attempt == row.attempt, LogSegment.rank == 0)
    return int(tx.session.scalar(query) or 0)
