"""One service: what it is, how its process starts, and how one finds out that it answers."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from torpor_hub.errors import StartupError

PR_SET_PDEATHSIG = 1
LOG_BYTES = 10 * 1024**2
POLL_S = 0.05
ANSWER_S = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Health:
    """A request that a healthy service answers with 200; ``also``: another one, whose answer shows what the service does for others."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    also: str = ""


@dataclass(frozen=True)
class Service:
    """What the supervisor needs to know of a service.

    ``start_s``: how long the first answer may take. ``grace_s``: how long an orderly end may take. ``after_start`` runs after
    each start, beside the service.
    """

    name: str
    command: tuple[str, ...]
    port: int | None = None
    health: Health | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 60.0
    grace_s: float = 10.0
    after_start: Callable[[], Awaitable[None]] | None = None


def launch(service: Service, log: Path) -> subprocess.Popen[bytes]:
    """Start the service in a session of its own; it gets SIGTERM when the calling thread ends, however it ends.

    Raises:
        StartupError: when its program cannot be run.
    """
    rotate(log)
    supervisor = os.getpid()

    def follow() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        # Between fork and prctl the supervisor may have died already: then nothing would ever tell this process.
        if os.getppid() != supervisor:
            os._exit(1)

    with log.open("ab") as stream:
        try:
            return subprocess.Popen(
                service.command,
                env={**os.environ, **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=follow,  # noqa: PLW1509 - the supervisor forks from its one thread
            )
        except OSError as error:
            raise StartupError(f"The {service.name} cannot be started: {error}.") from error


def rotate(log: Path) -> None:
    """Put a log that has grown large aside, over the one before it."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))


async def wait_healthy(service: Service, ended: asyncio.Future[int]) -> bool:
    """Return whether the service answered in time: False as soon as its process ended, or after ``start_s`` seconds."""
    if service.health is None:
        return not ended.done()
    deadline = time.monotonic() + service.start_s
    async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as client:
        while not ended.done() and time.monotonic() < deadline:
            if await _answers(client, service.health):
                return True
            await asyncio.wait([ended], timeout=POLL_S)
    return False


async def _answers(client: httpx.AsyncClient, health: Health) -> bool:
    for url in filter(None, (health.url, health.also)):
        try:
            answer = await client.get(url, headers=dict(health.headers))
        except httpx.TransportError:
            return False
        if answer.status_code != httpx.codes.OK:
            return False
    return True
