"""The first records: tenants, users, profiles. Later starts add what is new and leave the rest alone."""

from __future__ import annotations

from sqlalchemy import select

from torpor_hub.domain import ids
from torpor_hub.services.people import new_password
from torpor_hub.settings import ProfileSeed, Settings, TenantSeed, UserSeed
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Membership, Profile, Tenant, User

ISSUER = "torpor"


def seed(tx: UnitOfWork, settings: Settings) -> list[tuple[str, str]]:
    """Make what the settings name and the database lacks; return the new users with their passwords, to be shown once.

    Of what is there already, only the images of profiles follow the settings.
    """
    tenants = {item.name: _tenant(tx, item) for item in settings.seed.tenants}
    for position, item in enumerate(settings.seed.profiles):
        _profile(tx, item, position)
    made = [_user(tx, item, tenants) for item in settings.seed.users]
    return [pair for pair in made if pair is not None]


def _tenant(tx: UnitOfWork, item: TenantSeed) -> Tenant:
    found = tx.session.scalar(select(Tenant).where(Tenant.name == item.name))
    if found is not None:
        return found
    row = Tenant(
        id=ids.new("tn"),
        name=item.name,
        created_at=tx.now,
        title=item.title or item.name,
        cpu_milli=item.cpu_milli,
        memory_bytes=item.memory_bytes,
        gpu_count=item.gpu_count,
    )
    tx.session.add(row)
    tx.change("tenant", row.id, "created", tenant_id=row.id)
    return row


def _profile(tx: UnitOfWork, item: ProfileSeed, position: int) -> None:
    found = tx.session.scalar(select(Profile).where(Profile.name == item.name))
    if found is not None:
        _take_up_image(tx, found, item.image)
        return
    row = Profile(
        id=ids.new("pf"),
        name=item.name,
        created_at=tx.now,
        title=item.title,
        description=item.description,
        cpu_milli=item.cpu_milli,
        memory_bytes=item.memory_bytes,
        gpu_count=item.gpu_count,
        image=item.image,
        kinds=list(item.kinds),
        is_default=item.default,
        position=position,
    )
    tx.session.add(row)
    tx.change("profile", row.id, "created")


def _take_up_image(tx: UnitOfWork, row: Profile, image: str) -> None:
    """Let a profile have the image that the settings name now; an upgrade names a newer one."""
    if image and row.image != image:
        row.image, row.problem = image, ""
        tx.touch(row)
        tx.change("profile", row.id, "image-wished", image=image)


def _user(tx: UnitOfWork, item: UserSeed, tenants: dict[str, Tenant]) -> tuple[str, str] | None:
    if tx.session.scalar(select(User).where(User.name == item.name)) is not None:
        return None
    row = User(id=ids.new("us"), name=item.name, created_at=tx.now, issuer=ISSUER, subject=item.name, admin=item.admin)
    password = new_password(row)
    tx.session.add(row)
    tx.session.flush()
    for tenant, role in item.tenants.items():
        tx.session.add(Membership(tenant_id=tenants[tenant].id, user_id=row.id, role=role, origin="admin"))
    tx.change("user", row.id, "created", owner_id=row.id)
    return item.name, password
