"""The protocol of a place. One contract suite runs over every implementation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Checkpoint, Fact


@dataclass(frozen=True)
class Preparation:
    """What a workspace's environment has to be before its start.

    ``checkpoint`` None with ``fresh`` means the profile's own, empty environment; None without ``fresh`` keeps what is there
    (a ``STOPPED`` workspace) and makes an empty one where nothing is. ``fresh`` with a checkpoint restores it even where it was
    restored before and changed since: somebody wants to leave what is there.
    """

    workspace_id: str
    tenant: str
    user: str
    tenant_id: str = ""
    user_id: str = ""
    checkpoint: Checkpoint | None = None
    fresh: bool = False


class Place(Protocol):
    """Where workspaces run. Everything may be repeated; nothing here decides.

    ``keeps_environments``: whether the environment of a workspace that ended is still there, saved or not.
    """

    @property
    def keeps_environments(self) -> bool:
        """Whether an environment outlives its server."""
        ...

    async def facts(self) -> Mapping[str, Fact]:
        """Return every start that the place knows, by workspace id; it may lag behind by a moment.

        Whoever acts on what is missing here, or on what should be missing, asks :meth:`find` first.

        Raises:
            PlaceError: when the place cannot be listed. Callers then know nothing; they must not assume that nothing runs.
        """
        ...

    async def find(self, workspace_id: str) -> Fact | None:
        """Return what runs of a workspace at this moment, from a live list; None where nothing does.

        Raises:
            PlaceError: when nobody can tell.
        """
        ...

    async def prepare(self, preparation: Preparation) -> None:
        """Make folders, home and environment ready; restoring an environment publishes it by one rename.

        Raises:
            CorruptImage: when the checkpoint does not read back.
            PlaceUnready: when something that it needs is not there yet, or does not answer; it may be repeated.
            PlaceError: when the place cannot hold it.
        """
        ...

    async def remove(self, workspace_id: str, handle: str, *, grace_s: float) -> None:
        """End exactly the start that ``handle`` names, with every process of it; gone already is success.

        Raises:
            PlaceError: when it does not end, or nobody can tell that it has.
        """
        ...

    async def discard(self, workspace_id: str) -> None:
        """Remove what the place keeps of a workspace that does not run: its environment and its records, never its home."""
        ...

    async def discard_environment(self, workspace_id: str) -> None:
        """Remove the environment of a workspace that does not run and is saved; its logs stay."""
        ...

    async def last_lines(self, workspace_id: str, count: int) -> str:
        """Return the last lines of the workspace's log; empty when there are none."""
        ...

    async def capacity(self) -> Amount:
        """Return what the place can lend in all."""
        ...
