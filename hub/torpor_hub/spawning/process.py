"""Workspaces as local processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from jupyterhub.spawner import Spawner, SpawnException
from traitlets import default

from torpor_hub import failpoints
from torpor_hub.domain.diagnose import diagnose
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.errors import PlaceError
from torpor_hub.processes import identity, launch, ports
from torpor_hub.processes.records import RunRecord
from torpor_hub.spawning.mixin import TorporSpawner
from torpor_hub.spawning.platform import CHECK_AGAIN, Grant
from torpor_hub.spawning.refusals import refused

HOST = "127.0.0.1"
SETTLE_S = 0.1
ANSWER_S = 2.0
GIVE_UP_S = 1
LAST_LINES = 15
# Isolated: neither the user's folder nor their own packages may stand in for a module of the platform.
COMMAND = (sys.executable, "-I", "-m", "jupyterhub.singleuser")


class TorporProcessSpawner(TorporSpawner, Spawner):  # type: ignore[misc] # jupyterhub has no types
    """Runs a workspace's server under a reaper of its own, which outlives the hub."""

    root_dir = ""
    handle = ""

    @default("env_keep")
    def _kept_of_the_hub(self) -> list[str]:
        return ["LANG", "LC_ALL", "PATH", "TZ"]

    @default("args")
    def _args_of_root(self) -> list[str]:
        return ["--allow-root"] if os.geteuid() == 0 else []

    async def bring_up(self, grant: Grant) -> str:
        """Start the run or adopt it, and return its URL once it answers."""
        self.root_dir = grant.run.root_dir
        self.save_state()
        try:
            record = launch.read_run(Path(self.root_dir))
            if record is not None and launch.is_running(record):
                self.use_own_token(record.grant_id)
                self._take_up(record)
            else:
                await self._launch(grant.run)
        except PlaceError as error:
            raise self._not_started(error) from error
        self.save_state()
        await self._wait_until_it_answers()
        return self._url()

    def is_running(self) -> bool | None:
        """Return whether the server runs; None where nobody can tell."""
        if not self.handle:
            return False
        record = self._record()
        if record is not None:
            return launch.is_running(record)
        # Its record is gone, unreadable or another start's: the process itself still tells.
        return identity.alive(identity.parse(self.handle))

    def exit_status(self) -> int:
        """Return the exit status of a server that has ended; 0 where it is unknown."""
        record = self._record()
        return 0 if record is None or record.exit_code is None else record.exit_code

    async def get_url(self) -> str:
        """Return the server's URL at the start of a hub, once it answers.

        JupyterHub waits for its answer next and would not notice its end; one that has ended is given up at once.
        """
        if not await self._answers_before_it_ends(until=float("inf")):
            self.http_timeout = GIVE_UP_S
        return self._url()

    def get_state(self) -> dict[str, Any]:
        """Return what a restarted hub needs to know the server again."""
        own = {"root_dir": self.root_dir, "handle": self.handle, "port": self.port} if self.root_dir else {}
        return super().get_state() | own

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what ``get_state`` returned."""
        super().load_state(state)
        self.root_dir, self.handle = state.get("root_dir", ""), state.get("handle", "")
        self.port = state.get("port", 0)
        # A hub that ended between the launch and the note of its handle: what runs in the folder is what it launched.
        record = self._record() if self.root_dir else None
        if record is not None and launch.is_running(record):
            self._take_up(record)
            self.know_token(record.grant_id)

    def clear_state(self) -> None:
        """Forget the server."""
        super().clear_state()
        self.root_dir = self.handle = ""

    async def _launch(self, run: WorkspaceRun) -> None:
        self.use_own_token(run.grant_id)
        self.ip, self.port = HOST, ports.choose(HOST)
        command = [*COMMAND, *self.get_args()]
        environment = self.get_env() | {"USER": self.user.name, "JUPYTERHUB_ROOT_DIR": run.home_dir}
        started = await asyncio.to_thread(launch.launch, run, command, environment, self.port, log=self._log_file())
        await asyncio.to_thread(failpoints.hit, "spawner.launched")
        self.handle = started.handle()

    async def _wait_until_it_answers(self) -> None:
        within_s = self.platform.settings.limits.start_s
        if await self._answers_before_it_ends(until=time.monotonic() + within_s):
            return
        lines = launch.last_lines(self._log_file(), LAST_LINES)
        if self.is_running() is False:
            record = self._record()
            cause = diagnose(record.exit_code if record else None, lines, had_answered=False)
            raise refused(cause.message, cause.next_step, reason=cause.reason, status=500, log=lines)
        sentence = f"The workspace's server has not answered within {within_s:.0f} seconds."
        raise refused(sentence, "It goes on, and the next start takes it up.", reason="timeout", status=500, log=lines)

    async def _answers_before_it_ends(self, *, until: float) -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_S) as client:
            while time.monotonic() < until and self.is_running() is not False:
                if await _answers(client, f"{self._url()}api"):
                    return True
                await asyncio.sleep(SETTLE_S)
        return False

    def _not_started(self, error: PlaceError) -> SpawnException:
        self.log.error("%s: not started: %s", self.workspace_id, error)
        sentence = "The workspace's server could not be started."
        return refused(sentence, CHECK_AGAIN, reason="place", status=500, log=str(error))

    def _take_up(self, record: RunRecord) -> None:
        self.handle, self.port = record.handle, record.port

    def _record(self) -> RunRecord | None:
        """Return the record of the start that this spawner knows, of any while it knows none; None if it cannot be read."""
        try:
            record = launch.read_run(Path(self.root_dir))
        except PlaceError as error:
            self.log.warning("%s: %s", self.workspace_id, error)
            return None
        return record if record is not None and self.handle in ("", record.handle) else None

    def _url(self) -> str:
        return f"http://{HOST}:{self.port}{self.server.base_url}"

    def _log_file(self) -> Path:
        return Path(self.root_dir) / launch.LOG_FILE


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return not (await client.get(url)).is_server_error
    except httpx.HTTPError:
        return False
