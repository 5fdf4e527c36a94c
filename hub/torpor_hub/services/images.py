"""Which image a workspace or a job runs, in a place of containers."""

from __future__ import annotations

from sqlalchemy import select

from torpor_hub.domain.workspaces import Checkpoint as Saved
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.errors import Conflict, PlaceUnready
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Checkpoint, Grant, Profile, Workspace


def of_profile(settings: Settings, row: Profile) -> str:
    """Return the profile's image as a node pulls it: by digest once it was taken over, else as the admin wrote it."""
    return settings.image(repository_of(settings, row), row.digest) if row.digest else row.image


def of_environment(settings: Settings, profile: Profile, saved: Saved | None) -> str:
    """Return the image of a saved environment, the profile's where there is none; empty where processes run."""
    image = settings.image(saved.repository, saved.digest) if saved is not None else ""
    return image or of_profile(settings, profile)


def base_of(tx: UnitOfWork, settings: Settings, workspace: Workspace) -> str:
    """Return ``repository@digest`` of what the workspace's environment began with; ``empty`` where that was nothing.

    A profile's image may have moved on since: what was restored keeps the base of its checkpoint, and what was started the
    image that its grant names.
    """
    grant = tx.session.get(Grant, workspace.grant_id) if workspace.grant_id else None
    if grant is None:
        row = tx.session.get_one(Profile, workspace.profile_id)
        return f"{repository_of(settings, row)}@{row.digest}" if row.digest else "empty"
    run = WorkspaceRun.from_json(grant.run)
    restored = tx.session.get(Checkpoint, run.checkpoint.id) if run.checkpoint is not None else None
    if restored is not None and restored.base:
        return restored.base
    return run.image.removeprefix(f"{settings.registry.host}/") if "@" in run.image else "empty"


def require(tx: UnitOfWork, settings: Settings, workspace: Workspace) -> None:
    """Make sure that the image of the workspace's profile can be run; see ``require_profile``."""
    require_profile(settings, tx.session.get_one(Profile, workspace.profile_id))


def require_profile(settings: Settings, row: Profile) -> None:
    """Make sure that the profile's image can be run.

    Raises:
        Conflict: when it cannot be taken over into the registry; the text says why.
        PlaceUnready: when that has not happened yet.
    """
    if not row.image or not settings.registry.host or row.digest:
        return
    if row.problem:
        raise Conflict(row.problem, next_step="Choose another profile, or tell a platform admin.")
    raise PlaceUnready(f"The image of the profile '{row.name}' is still being copied into the platform's registry.")


def repository_of(settings: Settings, row: Profile) -> str:
    """Return the repository that holds the profile's image."""
    return f"{settings.registry.prefix}/profiles/{row.name}"


def default_profile(tx: UnitOfWork) -> Profile:
    """Return the profile that is taken where nobody chooses."""
    return tx.session.scalars(select(Profile).order_by(Profile.is_default.desc(), Profile.position).limit(1)).one()
