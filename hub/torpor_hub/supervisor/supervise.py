"""The supervisor: starts services in order, starts again what dies, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torpor_hub import failpoints
from torpor_hub.errors import StartupError
from torpor_hub.processes import identity
from torpor_hub.processes.files import write_atomically
from torpor_hub.processes.identity import Identity
from torpor_hub.processes.launch import last_lines
from torpor_hub.processes.trees import wait_until
from torpor_hub.supervisor.backoff import Backoff
from torpor_hub.supervisor.service import Service, launch, wait_healthy

LEFTOVER_S = 35.0
LAST_LINES = 20


class Running:
    """The process of a service from its start to its end."""

    def __init__(self, service: Service, process: subprocess.Popen[bytes]) -> None:
        self.service = service
        self.process = process
        self.identity = identity.of(process.pid)
        self.lived_s = 0.0
        self._started_at = time.monotonic()
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = loop.create_future()
        self._descriptor = os.pidfd_open(process.pid)
        loop.add_reader(self._descriptor, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        # What the service forked into its own group is of no use without it, and may hold its port.
        self.signal_group(signal.SIGKILL)
        self.lived_s = time.monotonic() - self._started_at
        self.ended.set_result(self.process.wait())

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the service and to what it forked without a session of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Supervisor:
    """Owns the services of one state folder. All methods run in one thread, the one that services are forked from."""

    def __init__(self, state_dir: Path, say: Callable[[str], None]) -> None:
        self._logs = state_dir / "logs"
        self._record = state_dir / "run" / "services.json"
        self._say = say
        self._running: dict[str, Running] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._followers: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()

    def pids(self) -> set[int]:
        """Return the process ids of services that have not been reaped."""
        return {running.process.pid for running in self._running.values() if not running.ended.done()}

    async def start(self, service: Service) -> None:
        """Start one service for the first time, wait until it answers, and watch it from then on.

        Raises:
            StartupError: when it ends or does not answer in time; the text has the last lines of its log.
        """
        running = self._launch(service)
        if not await wait_healthy(service, running.ended):
            raise StartupError(self._why_not_started(running))
        self._started(running)
        self._watchers[service.name] = asyncio.create_task(self._watch(service))

    async def once(self, service: Service) -> int:
        """Run a service that ends by itself, and return its exit status."""
        code = await asyncio.shield(self._launch(service).ended)
        del self._running[service.name]
        self._write_record()
        return code

    async def watch(self) -> None:
        """Return never; the services are started again as they die.

        Raises:
            TorporError: what kept the supervisor itself from going on.
        """
        await asyncio.gather(*self._watchers.values())

    async def stop(self, order: Iterable[str]) -> None:
        """End all services, those named in ``order`` first and in that order; none is left."""
        for task in (*self._watchers.values(), *self._followers):
            task.cancel()
        await asyncio.gather(*self._watchers.values(), *self._followers, return_exceptions=True)
        names = [*order, *self._running]
        for name in dict.fromkeys(names):
            if name in self._running:
                await self._end(self._running[name])
        self._record.unlink(missing_ok=True)

    def hurry(self) -> None:
        """Cut every wait of ``stop`` short: what has not ended is killed."""
        self._hurry.set()

    def _launch(self, service: Service) -> Running:
        self._logs.mkdir(exist_ok=True)
        running = Running(service, launch(service, self._logs / f"{service.name}.log"))
        self._running[service.name] = running
        self._write_record()
        return running

    def _started(self, running: Running) -> None:
        failpoints.hit("supervisor.service_started")
        if running.service.after_start is not None:
            follower = asyncio.ensure_future(running.service.after_start())
            task = asyncio.create_task(self._follow(running, follower))
            self._followers.add(task)
            task.add_done_callback(self._followers.discard)

    async def _follow(self, running: Running, follower: asyncio.Future[None]) -> None:
        """Let a service's ``after_start`` end with the service."""
        try:
            either: list[asyncio.Future[Any]] = [follower, running.ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            follower.cancel()

    async def _watch(self, service: Service) -> None:
        """Start the service again whenever it dies or does not answer after a start."""
        backoff = Backoff()
        while True:
            ended = self._running[service.name]
            code = await asyncio.shield(ended.ended)
            delay_s, backoff = backoff.after_death(ended.lived_s)
            self._say(f"The {service.name} ended ({outcome(code)}); it starts again in {delay_s:.1f} s.")
            await asyncio.sleep(delay_s)
            await self._restart(service)

    async def _restart(self, service: Service) -> None:
        try:
            running = self._launch(service)
        except StartupError as error:
            self._say(str(error))
            return
        if await wait_healthy(service, running.ended):
            self._started(running)
            # Without a health check nobody knows yet whether it stays.
            if service.health is not None:
                self._say(f"The {service.name} is back.")
        elif not running.ended.done():
            self._say(
                f"The {service.name} does not answer after {service.start_s:.0f} s. Its log: {self._log(service)}"
            )
            running.signal_group(signal.SIGKILL)

    async def _end(self, running: Running) -> None:
        """Ask for an orderly end, wait for the service's grace or a second Ctrl-C, then kill."""
        if not running.ended.done():
            running.process.send_signal(signal.SIGTERM)
            hurried = asyncio.ensure_future(self._hurry.wait())
            either: list[asyncio.Future[Any]] = [running.ended, hurried]
            await asyncio.wait(either, timeout=running.service.grace_s, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
        if not running.ended.done():
            if not self._hurry.is_set():
                self._say(
                    f"The {running.service.name} did not end within {running.service.grace_s:.0f} s and is killed."
                )
            running.signal_group(signal.SIGKILL)
        await running.ended

    def _why_not_started(self, running: Running) -> str:
        service, log = running.service, self._log(running.service)
        if running.ended.done():
            what = f"The {service.name} ended at its start ({outcome(running.ended.result())})"
        else:
            what = f"The {service.name} did not answer within {service.start_s:.0f} s"
        return f"{what}. The last lines of {log}:\n{last_lines(log, LAST_LINES)}"

    def _log(self, service: Service) -> Path:
        return self._logs / f"{service.name}.log"

    def _write_record(self) -> None:
        rows = [
            {
                "name": running.service.name,
                "pid": running.process.pid,
                "started": running.identity.started if running.identity else None,
                "handle": running.identity.handle() if running.identity else None,
                "port": running.service.port,
            }
            for running in self._running.values()
        ]
        self._record.parent.mkdir(exist_ok=True)
        write_atomically(self._record, (json.dumps(rows, indent=2) + "\n").encode())


def outcome(code: int) -> str:
    """Return how a process ended, for people: an exit status or the signal's name."""
    return f"status {code}" if code >= 0 else signal.Signals(-code).name


def leftovers(state_dir: Path) -> list[Identity]:
    """Return the services that an earlier supervisor recorded and that still live."""
    file = state_dir / "run" / "services.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    recorded = [identity.parse(row["handle"]) for row in rows if row["handle"]]
    return [each for each in recorded if identity.alive(each)]


def end_leftovers(state_dir: Path) -> int:
    """Wait for services that an earlier, killed supervisor left ending, kill them at last; return how many there were."""
    found = leftovers(state_dir)
    for each in found:
        identity.send(each, signal.SIGTERM)
    if not wait_until(lambda: not any(map(identity.alive, found)), LEFTOVER_S):
        for each in found:
            identity.send(each, signal.SIGKILL)
        wait_until(lambda: not any(map(identity.alive, found)), LEFTOVER_S)
    return len(found)
