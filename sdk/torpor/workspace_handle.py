"""A workspace: its state, and the wishes that its owner may have for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from torpor import units, wire
from torpor.errors import TorporError, WaitTimeout
from torpor.models import Resource, WorkspaceStatus
from torpor.polling import Pace

if TYPE_CHECKING:
    from torpor.connection import Connection

# Where a wish ends, and where it can no longer come true.
GOALS = {
    "running": frozenset({"RUNNING"}),
    "asleep": frozenset({"ASLEEP"}),
    "stopped": frozenset({"STOPPED", "ASLEEP", "NEW"}),
}


class Workspace:
    """A workspace. Its methods record a wish and return at once; ``wait`` waits until it came true."""

    def __init__(self, connection: Connection, resource: Resource) -> None:
        self._connection = connection
        self._resource = resource

    @property
    def id(self) -> str:
        """Return the id."""
        return self._resource.id

    @property
    def name(self) -> str:
        """Return the name."""
        return self._resource.name

    @property
    def resource(self) -> Resource:
        """Return the workspace as last heard of, with its spec."""
        return self._resource

    @property
    def last_status(self) -> WorkspaceStatus:
        """Return the state as last heard of, without asking."""
        return WorkspaceStatus.parse(self._resource.status)

    @property
    def status(self) -> WorkspaceStatus:
        """Return the state now."""
        answer = self._connection.send(wire.one("workspaces", self.id).unless_version(self._resource.version))
        if answer.status_code != 304:
            self._resource = Resource.parse(answer.json())
        return self.last_status

    def start(self, environment: str | None = None) -> WorkspaceStatus:
        """Return the state after the wish to run was recorded; wakes a sleeping workspace.

        ``environment``: ``current``, ``previous`` (the checkpoint before the current one) or ``profile`` (nothing installed).
        """
        return self._wish(desired="running", **({"environment": environment} if environment else {}))

    def sleep(self) -> WorkspaceStatus:
        """Return the state after the wish to sleep was recorded; the environment is saved first."""
        return self._wish(desired="asleep")

    def stop(self, *, discard: bool = False) -> WorkspaceStatus:
        """Return the state after the wish to stop was recorded. ``discard`` gives up what was installed since the last checkpoint."""
        return self._wish(desired="stopped", **({"discard": True} if discard else {}))

    def delete(self) -> None:
        """End the workspace and remove its environment and checkpoints. The home stays."""
        self._connection.send(wire.delete_workspace(self.id))

    def log(self, lines: int = 200) -> str:
        """Return the last ``lines`` of a server that failed or ended; empty while one runs."""
        answer = self._connection.json(wire.one("workspaces", self.id, "log").with_params(lines=lines))
        return str(answer["text"])

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return the saved environments, newest first."""
        return [dict(item) for item in self._connection.items(wire.one("workspaces", self.id, "checkpoints"))]

    def wait(
        self, desired: str, timeout: float | None = None, *, seen: Callable[[WorkspaceStatus], object] | None = None
    ) -> WorkspaceStatus:
        """Return the state once the wish ``desired`` (``running``, ``asleep``, ``stopped``) came true.

        ``timeout`` is in seconds; ``seen`` is called with every state on the way. Raises TorporError, with the platform's own words,
        when the workspace failed or somebody wished otherwise meanwhile, and WaitTimeout.
        """
        pace, goal = Pace(timeout), GOALS[desired]
        while (status := self.status).phase not in goal:
            if seen is not None:
                seen(status)
            self._refuse_lost_wish(desired, status, goal)
            if not pace.rest():
                raise WaitTimeout(
                    f"Workspace {self.name} is not {desired} after {units.duration(timeout or 0)}; it is {status}"
                )
        return status

    def _refuse_lost_wish(self, desired: str, status: WorkspaceStatus, goal: Collection[str]) -> None:
        wished = self._resource.spec.get("desired", desired)
        if status.phase == "FAILED" or wished != desired:
            message = status.message or f"Workspace {self.name} is {status.phase}, and now meant to be {wished}."
            raise TorporError(message, next_step=status.next_step)

    def _wish(self, **spec: Any) -> WorkspaceStatus:
        self._resource = Resource.parse(self._connection.json(wire.wish("workspaces", self.id, **spec)))
        return self.last_status

    def __repr__(self) -> str:
        return f"<torpor.Workspace {self.id} {self.name!r} {self.last_status.phase}>"
