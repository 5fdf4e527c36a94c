"""The importer's loop: claim while there is room for another child."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from typing import Any

from torpor_hub.errors import PlatformError, StaleFence, Unavailable
from torpor_hub.importer.task import Task
from torpor_hub.importer.wire import Api, pauses

LOG = logging.getLogger(__name__)
MOST_CHILDREN = 4
WAIT_S = 20.0


def new_name() -> str:
    """Return a name for this start of the importer; another start has another one."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


async def serve(api: Api, roots: list[str], stop: asyncio.Event) -> None:
    """Claim and run tasks, at most four at once, until ``stop``; then kill the children, whose tasks others take up."""
    name, running = new_name(), set[asyncio.Task[None]]()
    ending = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            if len(running) >= MOST_CHILDREN:
                await asyncio.wait((ending, *running), return_when=asyncio.FIRST_COMPLETED)
            else:
                claim = await _claim(api, name, ending)
                if claim is not None:
                    running.add(asyncio.create_task(Task(api, claim, roots).run()))
            running = {task for task in running if not task.done()}
    finally:
        ending.cancel()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _claim(api: Api, name: str, ending: asyncio.Task[Any]) -> dict[str, Any] | None:
    """Return a task, or None when there was none, or it is time to end; while the api is away, keep trying."""
    pause = pauses()
    while not ending.done():
        asking = asyncio.create_task(api.claim(name, WAIT_S))
        await asyncio.wait((ending, asking), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, Unavailable, PlatformError, StaleFence):
                await asking
            return None
        try:
            return asking.result()
        except (Unavailable, PlatformError, StaleFence) as error:
            LOG.warning("no claim: %s", error)
            await asyncio.wait((ending,), timeout=pause())
    return None
