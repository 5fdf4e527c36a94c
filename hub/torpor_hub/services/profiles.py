"""Images of profiles: which are wished for, and what was taken over of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from torpor_hub.services import images
from torpor_hub.settings import Settings
from torpor_hub.stores.base import UnitOfWork
from torpor_hub.stores.tables import Profile


@dataclass(frozen=True)
class Wish:
    """A profile's image as an admin wrote it, where its copy belongs, and the digest of the copy that is in use."""

    profile_id: str
    name: str
    image: str
    repository: str
    digest: str
    problem: str


def wishes(tx: UnitOfWork, settings: Settings) -> list[Wish]:
    """Return the profiles that name an image."""
    rows = tx.session.scalars(select(Profile).where(Profile.image != "").order_by(Profile.position))
    return [
        Wish(row.id, row.name, row.image, images.repository_of(settings, row), row.digest, row.problem) for row in rows
    ]


def taken_over(tx: UnitOfWork, wish: Wish, digest: str, kinds: Sequence[str] | None) -> None:
    """Record the copy that the profile's workspaces begin with from now on; ``kinds`` None: the image does not say.

    A wish that has changed meanwhile is left to the next look.
    """
    row = tx.session.get(Profile, wish.profile_id)
    if row is None or row.image != wish.image:
        return
    known = list(kinds) if kinds is not None else row.kinds
    if (row.digest, row.problem, row.kinds) == (digest, "", known):
        return
    row.digest, row.problem, row.kinds = digest, "", known
    tx.touch(row)
    tx.change("profile", row.id, "image", digest=digest, image=row.image)


def problem(tx: UnitOfWork, wish: Wish, sentence: str) -> None:
    """Record why the profile's image cannot be taken over; the same one is recorded once."""
    row = tx.session.get(Profile, wish.profile_id)
    if row is None or row.image != wish.image or row.problem == sentence:
        return
    row.problem = sentence
    tx.touch(row)
    tx.change("profile", row.id, "image-problem", message=sentence)
