"""One run in the foreground of a terminal: everything started, kept running until Ctrl-C, everything ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from torpor_hub.supervisor import orphans
from torpor_hub.supervisor.service import Service
from torpor_hub.supervisor.supervise import Supervisor

# Jobs and workspaces are the server's to end, and need the others for it.
FIRST_TO_END = ("server", "importer", "hub", "proxy")


class Terminal(Protocol):
    """Where progress is shown."""

    def stage(self, title: str) -> AbstractContextManager[None]:
        """Show a stage while the block runs."""
        ...

    def say(self, text: str) -> None:
        """Show a line; never fails."""
        ...


class Foreground:
    """Runs ``services`` in their order, and beside them ``demo``, which ends by itself. Made in the main thread."""

    def __init__(self, services: Sequence[Service], demo: Service | None, state_dir: Path, terminal: Terminal) -> None:
        self._services = services
        self._demo = demo
        self._logs = state_dir / "logs"
        self._terminal = terminal
        self._supervisor = Supervisor(state_dir, terminal.say)
        self._stop = asyncio.Event()

    async def run(self, welcome: Callable[[], None]) -> None:
        """Start everything, call ``welcome``, return after a signal when no process below this one is left.

        Raises:
            StartupError: when a service cannot be started.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop)
        orphans.adopt()
        orphans.watch(self._supervisor.pids)
        work = asyncio.create_task(self._work(welcome))
        asked = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([work, asked], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await self._end()

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            self._supervisor.hurry()
        else:
            self._terminal.say("Ending jobs and workspaces, then the services. Once more Ctrl-C ends them at once.")
            self._stop.set()

    async def _work(self, welcome: Callable[[], None]) -> None:
        for service in self._services:
            with self._terminal.stage(service.name.capitalize()):
                await self._supervisor.start(service)
        welcome()
        await asyncio.gather(self._supervisor.watch(), self._register_demo())

    async def _register_demo(self) -> None:
        if self._demo is not None and await self._supervisor.once(self._demo) != 0:
            log = self._logs / f"{self._demo.name}.log"
            self._terminal.say(f"The example data could not be registered; everything else works. The reason: {log}")

    async def _end(self) -> None:
        await self._supervisor.stop((self._demo.name if self._demo else "", *FIRST_TO_END))
        left = orphans.end_all()
        self._terminal.say(f"Ended, {left} processes of workspaces or jobs by force." if left else "Ended.")
