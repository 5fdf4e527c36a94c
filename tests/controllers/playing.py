"""One loop per test: a world is made in it, worked in, and closed, whatever becomes of the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

Play = Callable[..., None]


class World(Protocol):
    """What is closed in the loop that it was made in."""

    async def aclose(self) -> None: ...


W = TypeVar("W", bound=World)


def player(make: Callable[..., W]) -> Play:
    """Return what runs a test's work in a new world; further values go to the world's making."""

    def run(work: Callable[[W], Awaitable[None]], **values: Any) -> None:
        async def inside() -> None:
            world = make(**values)
            try:
                await work(world)
            finally:
                await world.aclose()

        asyncio.run(inside())

    return run
