"""What an agent stands on: where environments are, how they are frozen, and what saves them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torpor_hub.capture.base import Capture, CaptureTask


@dataclass
class Claim:
    """What was claimed, and how far it is; times are the event loop's. ``freezing`` is the freeze, from its begin on."""

    content: Mapping[str, Any]
    begun: float = 0.0
    frozen_at: float | None = None
    step: str = "QUIESCE"
    done: int = 0
    total: int = 0
    freezing: asyncio.Future[None] | None = None
    frozen_until: float | None = None

    @property
    def operation(self) -> str:
        """The operation's id."""
        return str(self.content["operation"])

    @property
    def fence(self) -> int:
        """Which claim of the operation this is."""
        return int(self.content["fence"])

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return Path(self.content["root"])

    @property
    def handle(self) -> str:
        """The start that runs; empty when nothing does."""
        return str(self.content["handle"])

    @property
    def thaw_after_s(self) -> float:
        """For how long the workspace may be frozen, in seconds."""
        return float(self.content["thaw_after_s"])

    def task(self, source: Path, image: str | None = None) -> CaptureTask:
        """Return what a capture is asked: to save ``source``, a change of ``image``."""
        held = self.content
        return CaptureTask(
            operation=self.operation,
            source=source,
            repository=held["repository"],
            tag=held["tag"],
            parent_digest=held["parent_digest"],
            annotations=held["annotations"],
            image=image,
        )


@dataclass(frozen=True)
class Subject:
    """What is to be saved, and by what."""

    task: CaptureTask
    capture: Capture


@dataclass(frozen=True)
class Left:
    """Something that was left frozen for its removal."""

    operation: str
    fence: int
    container: str


class Ground(Protocol):
    """Where environments are. Freezing and thawing may be repeated."""

    async def locate(self, claim: Claim) -> Subject:
        """Return what the claim is about.

        Raises:
            PlaceError: when it is not here, or cannot be saved from here.
        """
        ...

    async def freeze(self, claim: Claim) -> None:
        """Stop all processes of the workspace; something else thaws them after ``claim.thaw_after_s`` by itself.

        Raises:
            PlaceError: when they do not stop; then they run on.
        """
        ...

    async def thaw(self, claim: Claim) -> None:
        """Let them go on; gone, or not frozen, is success."""
        ...

    async def promise(self, claim: Claim) -> float:
        """Return for how many seconds the workspace stays frozen by itself, which the platform is about to be told.

        Raises:
            PlaceError: when it was thawed since it was frozen, so that what was saved is of no use.
        """
        ...

    async def thaw_all(self) -> Sequence[Left]:
        """Thaw what any agent on this ground has frozen, but for what the platform was promised, which is returned."""
        ...

    async def thaw_left(self, left: Left) -> None:
        """Thaw one of those after all."""
        ...
