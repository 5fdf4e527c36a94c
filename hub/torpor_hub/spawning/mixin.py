"""What the spawners of every place share: a start needs the platform's grant, a stop is the platform's own affair."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any

from torpor_hub import errors, failpoints
from torpor_hub.domain.diagnose import Cause
from torpor_hub.spawning import tokens
from torpor_hub.spawning.platform import Grant, Platform, WorkspaceState
from torpor_hub.spawning.refusals import refused, refused_by

REPEAT_S = 0.5
AWAY_S = 60.0
SLEEP_MARGIN_S = 60.0
GRANTED_PROGRESS = 80
OPTIONS = ("tenant", "profile", "environment")
ONCE = "environment"
Event = dict[str, Any]


def chosen(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that a start knows, each a text; a form and a query send lists of texts."""
    values = {name: options[name] for name in OPTIONS if options.get(name)}
    return {name: str(value[0]) if isinstance(value, list) else str(value) for name, value in values.items()}


def lasting(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JupyterHub may keep for the next start: a rescue environment is asked for once."""
    return {name: value for name, value in options.items() if name != ONCE}


def sleep_is_over(workspace: WorkspaceState, seen_operating: bool) -> bool:
    """Return whether a sleep that was asked for has come to an end, be it that it failed or that the user came back."""
    return workspace.desired != "asleep" or (
        not workspace.operating and (seen_operating or workspace.phase != "RUNNING")
    )


class Progress:
    """The events of one start, for any number of pages that watch it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._more = asyncio.Event()

    def tell(self, progress: int, message: str) -> None:
        """Add an event, unless it says what the last one said."""
        event = {"progress": progress, "message": message}
        if message and (not self._events or self._events[-1] != event):
            self._events.append(event)
            self._more.set()
            self._more = asyncio.Event()

    async def follow(self) -> AsyncIterator[Event]:
        """Yield every event, those of the past too, until the caller stops."""
        position = 0
        while True:
            more = self._more
            for event in self._events[position:]:
                position += 1
                yield dict(event)
            await more.wait()


class TorporSpawner:
    """Mix into a ``jupyterhub.spawner.Spawner``, before it. The place adds ``bring_up`` and ``is_running``."""

    stop_asked = False
    workspace_id = ""
    grant_id = ""

    # Of JupyterHub's Spawner.
    log: Any
    user: Any
    name: str
    authenticator: Any
    orm_spawner: Any
    api_token: Any

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self._progress = Progress()
        self._options: dict[str, str] = {}

    @abstractmethod
    async def bring_up(self, grant: Grant) -> str:
        """Start the granted run, or adopt it where it runs already, and return its URL once it answers."""
        ...

    @abstractmethod
    def is_running(self) -> bool | None:
        """Return whether the server runs; None where nobody can tell."""
        ...

    @property
    def platform(self) -> Platform:
        """The hub's client of the platform's api."""
        platform: Platform = self.authenticator.platform
        return platform

    @property
    def will_resume(self) -> bool:
        """Whether the hub keeps the server's token and OAuth client when it takes it for stopped: while it may still run."""
        return self.is_running() is not False

    def tell(self, progress: int, message: str) -> None:
        """Show a sentence to everybody who watches this start."""
        self._progress.tell(progress, message)

    async def progress(self) -> AsyncIterator[Event]:
        """Yield the events of the start; JupyterHub ends this when the start ends."""
        async for event in self._progress.follow():
            yield event

    def apply_user_options(self, _: Any, options: Mapping[str, Any]) -> None:
        """Take the options of the start that comes; JupyterHub would give all of them to the next one too."""
        self._options = chosen(options)
        self.orm_spawner.user_options = lasting(options)
        self.user.db.commit()

    async def start(self) -> str:
        """Return the URL of the server once it runs.

        Raises:
            SpawnException: with the sentence that says why it does not.
        """
        self._progress = Progress()
        self.stop_asked = False
        if not self.name:
            page = self.platform.settings.service_path
            raise refused(
                "Workspaces have names here, and this start names none.",
                f"Choose or make one on the platform's page, {page}.",
                reason="unnamed",
            )
        grant = await self._ask_for_grant()
        await asyncio.to_thread(failpoints.hit, "spawner.granted")
        self.tell(GRANTED_PROGRESS, grant.notice or "Starting JupyterLab.")
        self.workspace_id = grant.run.workspace_id
        return await self.bring_up(grant)

    async def stop(self, now: bool = False) -> None:
        """Wait for the end of the sleep that a person has asked for by this stop; do nothing where nobody has.

        Never raises, because the hub has dropped the route by then. What still runs is adopted by the next start.
        """
        asked, self.stop_asked = self.stop_asked, False
        if not asked or not self.workspace_id:
            self.log.info("%s: not ended, because nobody asked for it.", self.workspace_id or self.name)
            return
        try:
            await self._wait_for_sleep()
        except errors.UserError as error:
            self.log.warning("%s: its sleep cannot be followed: %s", self.workspace_id, error)

    async def poll(self) -> int | None:
        """Return None while the server runs or nobody can tell, else its exit status, 0 where it is unknown."""
        return None if self.is_running() is not False else self.exit_status()

    def exit_status(self) -> int:
        """Return the exit status of a server that has ended; 0 where it is unknown."""
        return 0

    def use_own_token(self, grant_id: str) -> None:
        """Make the token of this start, or that of the earlier start that is adopted, the server's."""
        tokens.register(self, self.own_token(grant_id))
        self.grant_id = grant_id

    def know_token(self, grant_id: str) -> None:
        """Take up the token of a start again, which the hub does not keep: it would leave it valid when the server has ended."""
        self.grant_id, self.api_token = grant_id, self.own_token(grant_id)

    def own_token(self, grant_id: str) -> str:
        """Return the token of a start of this workspace, which any hub with the same key finds again."""
        key = self.platform.settings.secret(tokens.KEY)
        return tokens.derive(key, self.user.name, self.name, self.workspace_id, grant_id)

    def save_state(self) -> None:
        """Record the state now: JupyterHub does it after the start only, and a hub that ends before would know nothing."""
        self.orm_spawner.state = self.get_state()
        self.user.db.commit()

    def get_state(self) -> dict[str, Any]:
        """Return what a restarted hub needs to know the server again, and the workspace's id also while it does not run."""
        state: dict[str, Any] = super().get_state()  # type: ignore[misc] # of JupyterHub's Spawner
        own = {"workspace_id": self.workspace_id, "grant_id": self.grant_id}
        return state | {name: value for name, value in own.items() if value}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what ``get_state`` returned."""
        super().load_state(state)  # type: ignore[misc] # of JupyterHub's Spawner
        self.workspace_id = state.get("workspace_id", "")
        if state.get("grant_id"):
            self.know_token(state["grant_id"])

    def clear_state(self) -> None:
        """Forget the server, but not the workspace."""
        super().clear_state()  # type: ignore[misc] # of JupyterHub's Spawner
        self.grant_id = ""

    async def _ask_for_grant(self, hindrance: Cause | None = None) -> Grant:
        """Return the grant of this start; ``hindrance`` is what keeps it from being used, for all who look at the workspace."""
        heard_at = time.monotonic()
        while True:
            try:
                answer = await self.platform.start_workspace(self.user.name, self.name, self._options, hindrance)
            except errors.Unavailable as error:
                if time.monotonic() - heard_at > AWAY_S:
                    raise refused_by(error) from error
                self.tell(0, f"{error.message} Trying again.")
            except errors.UserError as error:
                raise refused_by(error) from error
            else:
                if isinstance(answer, Grant):
                    return answer
                heard_at = time.monotonic()
                self.tell(answer.progress * GRANTED_PROGRESS // 100, answer.message)
            await asyncio.sleep(REPEAT_S)

    async def _give_up(self, cause: Cause) -> None:
        """Tell the platform that this start has ended without a server, and why; what was reserved for it is free then."""
        try:
            await self.platform.give_up_start(self.user.name, self.name, cause)
        except errors.UserError as error:
            self.log.warning("%s: its end was not recorded: %s", self.workspace_id, error)

    async def _wait_for_sleep(self) -> None:
        until = time.monotonic() + self.platform.settings.limits.sleep_s + SLEEP_MARGIN_S
        seen_operating = False
        while time.monotonic() < until and await self.poll() is None:
            try:
                workspace = await self.platform.workspace(self.workspace_id)
            except errors.Unavailable as error:
                self.log.warning("%s: its sleep cannot be followed now: %s", self.workspace_id, error)
            else:
                seen_operating = seen_operating or workspace.operating
                if sleep_is_over(workspace, seen_operating):
                    return
            await asyncio.sleep(REPEAT_S)
