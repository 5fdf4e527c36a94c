"""Freezing for callers on an event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from torpor_hub.errors import PlaceError
from torpor_hub.processes import freeze


class ProcessFreezer:
    """Freezes and thaws workspaces that are local process trees."""

    async def freeze(self, workspace_root: Path, handle: str, thaw_after_s: float) -> None:
        """Stop every process of the start that ``handle`` names; its reaper thaws it after ``thaw_after_s`` by itself.

        Raises:
            PlaceError: when that start is gone or its processes do not come to rest.
        """
        await asyncio.to_thread(freeze.freeze, workspace_root, handle, thaw_after_s)

    async def left_s(self, workspace_root: Path, handle: str) -> float:
        """Return for how many seconds the start stays frozen by itself.

        Raises:
            PlaceError: when it is not frozen any more.
        """
        lease = await asyncio.to_thread(freeze.read_lease, workspace_root)
        left_s = lease.deadline - freeze.boot_time() if lease is not None and lease.handle == handle else 0.0
        if left_s <= 0:
            raise PlaceError("The workspace was thawed before it was saved.")
        return left_s

    async def thaw(self, workspace_root: Path, handle: str) -> None:
        """Let every process go on; a start that is gone, or that was not frozen, is success."""
        await asyncio.to_thread(freeze.thaw, workspace_root, handle)
