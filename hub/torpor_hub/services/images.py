"""Which image a workspace or a job runs, in a place of containers."""

from __future__ import annotations

from sqlalchemy import select

from torpor_hub.domain.workspaces import Checkpoint as Saved
from torpor_hub.errors import Conflict, PlaceUnready
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Profile, Workspace


def of_profile(settings: Settings, row: Profile) -> str:
    """Return the profile's image as a node pulls it: by digest once it was taken over, else as the admin wrote it."""
    return settings.image(repository_of(settings, row), row.digest) if row.digest else row.image


def of_environment(settings: Settings, profile: Profile, saved: Saved | None) -> str:
    """Return the image of a saved environment, the profile's where there is none; empty where processes run."""
    image = settings.image(saved.repository, saved.digest) if saved is not None else ""
    return image or of_profile(settings, profile)


def base_of(settings: Settings, row: Profile) -> str:
    """Return ``repository@digest`` of what environments of the profile begin with; ``empty`` where they begin with nothing."""
    return f"{repository_of(settings, row)}@{row.digest}" if row.digest else "empty"


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
