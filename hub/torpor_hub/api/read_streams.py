"""The rows of a read, passed on piece by piece as an importer sends them: no thread is held between two pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

from torpor_hub.api.context import Context
from torpor_hub.api.waiting import Doorbell
from torpor_hub.domain.policy import Action
from torpor_hub.errors import SourceFailed
from torpor_hub.services import reads
from torpor_hub.services.reads import Ended
from torpor_hub.stores.base import UnitOfWork

AGAIN_S = 30.0
T = TypeVar("T")
# The event loop holds its tasks only weakly.
_farewells: set[asyncio.Task[None]] = set()


@dataclass(frozen=True)
class Sent:
    """A piece of a read with its bytes, and the claim that it came from."""

    fence: int
    content: bytes


async def pieces(ctx: Context, read_id: str) -> AsyncIterator[bytes]:
    """Yield the pieces of a read as they arrive; who stops to listen cancels the read.

    Raises:
        NotFound: when there is no such read, or it is not the asker's.
        SourceFailed: when the read fails. Before the first piece this is an answer; later it ends the connection, and the
            stream lacks its end.
    """
    await asyncio.to_thread(_check, ctx, read_id)
    bell = Doorbell(ctx.parts.feed, ("read",))
    index, fence, whole = 0, None, False
    try:
        while not whole:
            sent = await _next(ctx, read_id, bell, index, fence)
            whole = sent is None
            if sent is not None:
                yield sent.content
                index, fence = index + 1, sent.fence
    finally:
        bell.end()
        if not whole:
            _leave(ctx, read_id)


async def begun(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return the stream once it has its first piece, so that an earlier failure can still be an answer."""
    first = await anext(stream, b"")

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for piece in stream:
            yield piece

    return whole()


async def _next(ctx: Context, read_id: str, bell: Doorbell, index: int, fence: int | None) -> Sent | None:
    """Return the next piece, waiting for it, or None at the end."""

    def look() -> Sent | Ended | None:
        found = _in_read(ctx, lambda tx: reads.look(tx, read_id, index, fence))
        return found if found is None or isinstance(found, Ended) else Sent(found.fence, ctx.parts.blobs.get(found.key))

    found: Sent | Ended | None = None
    while found is None:
        found = await bell.first(lambda: asyncio.to_thread(look), AGAIN_S)
    if isinstance(found, Sent):
        return found
    if found.code:
        raise SourceFailed(f"source_{found.code.lower()}", found.message, found.next_step)
    return None


def _check(ctx: Context, read_id: str) -> None:
    with ctx.read() as (tx, actor):
        reads.find(tx, actor, read_id, Action.READ)


def _in_read(ctx: Context, ask: Callable[[UnitOfWork], T]) -> T:
    with ctx.parts.store.read() as tx:
        return ask(tx)


def _leave(ctx: Context, read_id: str) -> None:
    """Cancel the read beside this request, which may itself be cancelled already."""

    def cancel() -> None:
        with ctx.parts.store.begin(ctx.identity.name, request_id=ctx.request_id) as tx:
            reads.cancel(tx, read_id)

    task = asyncio.create_task(asyncio.to_thread(cancel))
    _farewells.add(task)
    task.add_done_callback(_farewells.discard)
