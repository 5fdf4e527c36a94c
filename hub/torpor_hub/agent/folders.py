"""The ground of process mode: environments are folders of this machine, and a workspace's reaper thaws it at its deadline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torpor_hub.agent.ground import Claim, Left, Subject
from torpor_hub.capture.base import Capture


class Freezer(Protocol):
    """Stops and continues all processes of a workspace. Both may be repeated."""

    async def freeze(self, workspace_root: Path, handle: str, thaw_after_s: float) -> None:
        """Stop them; something on the node thaws them after ``thaw_after_s`` by itself."""
        ...

    async def left_s(self, workspace_root: Path, handle: str) -> float:
        """Return for how many seconds they stay stopped by themselves; raise PlaceError when they run."""
        ...

    async def thaw(self, workspace_root: Path, handle: str) -> None:
        """Let them go on; gone, or not frozen, is success."""
        ...


class FolderGround:
    """Environments in folders, saved by ``capture``."""

    def __init__(self, capture: Capture, freezer: Freezer) -> None:
        self._capture = capture
        self._freezer = freezer

    async def locate(self, claim: Claim) -> Subject:
        """Return the folder that the claim names."""
        return Subject(claim.task(Path(claim.content["source"])), self._capture)

    async def freeze(self, claim: Claim) -> None:
        """Stop every process of the workspace's start."""
        await self._freezer.freeze(claim.root, claim.handle, claim.thaw_after_s)

    async def thaw(self, claim: Claim) -> None:
        """Let every process go on."""
        if claim.handle:
            await self._freezer.thaw(claim.root, claim.handle)

    async def promise(self, claim: Claim) -> float:
        """Return for how long the reaper leaves the workspace frozen."""
        return await self._freezer.left_s(claim.root, claim.handle)

    async def thaw_all(self) -> Sequence[Left]:
        """Leave everything to the reapers, which outlive the agent."""
        return ()

    async def thaw_left(self, left: Left) -> None:
        """Leave everything to the reapers."""
        del left
