"""Long polls: wait for a change without holding a thread or a database connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request

from torpor_hub.stores.changes import ChangeFeed, Seen

T = TypeVar("T")


class Doorbell:
    """Rings when a change of one of the kinds was committed; ``end`` it after use."""

    def __init__(self, feed: ChangeFeed, kinds: tuple[str, ...]) -> None:
        self._kinds = kinds
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self.end = feed.listen(self._seen)

    async def first(self, look: Callable[[], Awaitable[T | None]], wait_s: float) -> T | None:
        """Return what ``look`` finds, asking again after each ring; None when there is nothing for ``wait_s`` seconds."""
        deadline = self._loop.time() + wait_s
        while True:
            self._rung.clear()
            found = await look()
            left = deadline - self._loop.time()
            if found is not None or left <= 0:
                return found
            await self.wait(left)

    async def wait(self, timeout_s: float) -> bool:
        """Return whether it rang within ``timeout_s``."""
        try:
            await asyncio.wait_for(self._rung.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def _seen(self, change: Seen) -> None:
        if change.kind in self._kinds:
            self._loop.call_soon_threadsafe(self._rung.set)


async def disconnected(request: Request) -> None:
    """Return when whoever sent the request has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
