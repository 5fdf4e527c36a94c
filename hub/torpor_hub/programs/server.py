"""`torpor-server`: the api, the controller, or both in one process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from cryptography.fernet import Fernet, MultiFernet
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from torpor_hub.api.app import create_app
from torpor_hub.api.context import Parts
from torpor_hub.api.identity import Identities
from torpor_hub.api.pages import pages
from torpor_hub.errors import StartupError
from torpor_hub.programs import identity
from torpor_hub.programs.control import Control
from torpor_hub.services.seeding import seed
from torpor_hub.services.tokens import Signer
from torpor_hub.settings import Settings, load
from torpor_hub.stores import migrations
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed

ROLES = ("api", "controller")
UPGRADED_WITHIN_S = 120.0
LOOK_AGAIN_S = 1.0
SHUTDOWN_S = 2


def main() -> None:
    """Run the server until SIGTERM."""
    parser = argparse.ArgumentParser(prog="torpor-server", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--roles", default="api,controller", help="api, controller, or both with a comma")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        serve(load(arguments.settings), frozenset(arguments.roles.split(",")))
    except StartupError as error:
        sys.exit(str(error))


def serve(settings: Settings, roles: frozenset[str]) -> None:
    """Run the roles in this process until it is asked to end.

    Raises:
        StartupError: when a role is unknown, or the database has a schema that this program does not know.
    """
    if not roles or not roles <= frozenset(ROLES):
        raise StartupError(f"Roles are {' and '.join(ROLES)}, not '{','.join(sorted(roles))}'.")
    if "controller" in roles:
        _make_records(settings)
    parts = compose(settings)
    _wait_for_upgrade(parts.store)
    app = create_app(parts, pages.router, lambda app: _living(app, parts, roles))
    uvicorn.run(
        app,
        host=settings.server.host,
        port=settings.server.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        proxy_headers=False,
    )


def compose(settings: Settings) -> Parts:
    """Return the parts of the platform that the settings describe."""
    store = Store(settings.database)
    signer = Signer(settings.secret("signing-key"))
    cookies = MultiFernet([Fernet(settings.secret("fernet-key").encode())])
    identities = Identities(
        settings.hub_api_url, signer, cookies, cache_s=settings.limits.token_cache_s, origin=settings.public_url
    )
    feed, proofs = ChangeFeed(store), identity.proofs_of(settings)
    return Parts(settings, store, Blobs(settings.blobs), signer, identities, feed, proofs)


def _make_records(settings: Settings) -> None:
    """Bring the database to this version and make the first records that it lacks; passwords are given later.

    Raises:
        StartupError: when it cannot be reached, or is of a later version.
    """
    migrations.upgrade(settings.database)
    store = Store(settings.database)
    try:
        with store.begin("torpor-server") as tx:
            seed(tx, settings)
    finally:
        store.close()


def _wait_for_upgrade(store: Store) -> None:
    """Return once the database has this program's schema; where the controller is another process, it may take a while.

    Raises:
        StartupError: when it has not after two minutes.
    """
    deadline = time.monotonic() + UPGRADED_WITHIN_S
    while True:
        try:
            return migrations.check(store.engine)
        except (StartupError, SQLAlchemyError) as error:
            if time.monotonic() > deadline:
                raise StartupError(str(error)) from error
            logging.warning("waiting for the database: %s", error)
        time.sleep(LOOK_AGAIN_S)


async def _living(_app: FastAPI, parts: Parts, roles: frozenset[str]) -> AsyncIterator[None]:
    """Run the feed, and with the role the controller, beside the application."""
    await asyncio.to_thread(parts.feed.start)
    control = (
        Control(parts.settings, parts.store, parts.blobs, parts.signer, parts.feed) if "controller" in roles else None
    )
    tasks = [asyncio.create_task(part) for part in (control.loops() if control else ())]
    for task in tasks:
        task.add_done_callback(_end_with)
    try:
        yield
    finally:
        await _end(tasks)
        if control is not None:
            await control.end()
        await parts.identities.close()
        await parts.proofs.close()
        await asyncio.to_thread(parts.feed.stop)
        parts.store.close()


def _end_with(task: asyncio.Task[Any]) -> None:
    """End the process with a loop that broke: its supervisor starts a whole one, and workspaces and jobs live on meanwhile.

    At once, because an orderly end would stop them.
    """
    if not task.cancelled() and task.exception() is not None:
        logging.critical("a loop of the controller broke", exc_info=task.exception())
        logging.shutdown()
        os._exit(1)


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    main()
