"""What a route works with: the parts of the platform, and one request's unit of work and actor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from torpor_hub.api.identity import Identities, Identity
from torpor_hub.domain.policy import Actor, ActorKind
from torpor_hub.errors import InvalidRequest, VersionConflict
from torpor_hub.services import attempts, people
from torpor_hub.services.proofs import Proofs, SecretProofs
from torpor_hub.services.tokens import Signer
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed

LIMIT = 50
MOST = 200


@dataclass(frozen=True)
class Parts:
    """The parts of the platform that routes use; composed in ``programs``."""

    settings: Settings
    store: Store
    blobs: Blobs
    signer: Signer
    identities: Identities
    feed: ChangeFeed
    proofs: Proofs = field(default_factory=lambda: SecretProofs({}))


@dataclass(frozen=True)
class Context:
    """One request: who sent it, and units of work for it."""

    parts: Parts
    identity: Identity
    request: Request
    request_id: str

    @contextmanager
    def write(self) -> Iterator[tuple[UnitOfWork, Actor]]:
        """Give a unit of work that may write, and the actor with the rights in force now."""
        with self.parts.store.begin(self.identity.name, request_id=self.request_id) as tx:
            yield tx, self._actor(tx)

    @contextmanager
    def read(self) -> Iterator[tuple[UnitOfWork, Actor]]:
        """Give a unit of work for reading, and the actor."""
        with self.parts.store.read() as tx:
            yield tx, self._actor(tx)

    def reply(self, content: dict[str, Any], status: int = 200) -> Response:
        """Return the content with its ETag, or 304 when the asker has just this already."""
        body = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        version = content.get("version", 0)
        tag = f'"{version}-{hashlib.sha256(body).hexdigest()[:12]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if status == 200 and self.request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, status_code=status, headers=headers, media_type="application/json")

    def check_version(self, version: int) -> None:
        """Compare ``If-Match``, when it was sent, with the row's version.

        Raises:
            VersionConflict: when the object has changed since.
        """
        wanted = self.request.headers.get("if-match", "*").strip('"').partition("-")[0]
        if wanted not in ("*", str(version)):
            raise VersionConflict(
                f"The object has version {version}, the request was made for version {wanted}.",
                next_step="Load it again and repeat the change.",
            )

    def _actor(self, tx: UnitOfWork) -> Actor:
        actor = self.identity.actor
        if actor is not None:
            return attempts.owner(tx, actor.name) if actor.kind is ActorKind.READER else actor
        return people.person(tx, self.identity.name, can_write=self.identity.can_write)


async def context(request: Request) -> Context:
    """Return the context of a request, authenticated."""
    parts: Parts = request.app.state.parts
    identity = await parts.identities.of(request)
    return Context(parts, identity, request, request.state.request_id)


Ctx = Annotated[Context, Depends(context)]


def page(items: list[dict[str, Any]], limit: int, offset: int) -> dict[str, Any]:
    """Return one page of a list that was read with one item more than ``limit``."""
    more = len(items) > limit
    return {"items": items[:limit], "next": str(offset + limit) if more else None}


def bounds(limit: int = LIMIT, cursor: str = "0") -> tuple[int, int]:
    """Return limit and offset of a page.

    Raises:
        InvalidRequest: when the cursor is not one that a list gave.
    """
    if not cursor.isdigit():
        raise InvalidRequest(
            "The cursor is not one that a list gave.", next_step="Start without a cursor.", pointer="/cursor"
        )
    return max(1, min(limit, MOST)), int(cursor)


Bounds = Annotated[tuple[int, int], Depends(bounds)]
