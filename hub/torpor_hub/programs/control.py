"""The controller's composition: which place, runner and capture there are is chosen here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from torpor_hub.agent.folders import FolderGround
from torpor_hub.agent.tasks import Tasks
from torpor_hub.agent.work import Agent
from torpor_hub.capture.directory import DirectoryCapture
from torpor_hub.controllers.base import Leadership, Waker, loop
from torpor_hub.controllers.hub import Hub
from torpor_hub.controllers.imports import ImportController
from torpor_hub.controllers.jobs import JobController
from torpor_hub.controllers.workspaces import WorkspaceController
from torpor_hub.domain.units import Amount
from torpor_hub.oci.layout import Layout
from torpor_hub.places.process import ProcessPlace
from torpor_hub.processes import layering
from torpor_hub.processes.freezer import ProcessFreezer
from torpor_hub.runners.process import ProcessRunner
from torpor_hub.services import ledger
from torpor_hub.services.tokens import Signer
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed

NODE = ""
AGENTS = 2
COLLECT_S = 3600


class Control:
    """All loops of the controller over local processes, and the agents of this node."""

    def __init__(self, settings: Settings, store: Store, blobs: Blobs, signer: Signer, feed: ChangeFeed) -> None:
        self._settings = settings
        self._feed = feed
        self._lead = Leadership(store, lifetime_s=settings.limits.lease_s)
        layout, platform = Layout(settings.images_dir), layering.here()
        self._layout = layout
        capacity = Amount(settings.pool_cpu_milli(), settings.pool_memory_bytes())
        self._place = ProcessPlace(settings.state_dir, layout, platform, capacity)
        self._hub = Hub(settings.hub_api_url, settings.secret("hub-service-token"))
        self._tasks = Tasks(settings.api_url, partial(settings.secret, "agent-proof"))
        self._workspaces = WorkspaceController(store, settings, self._place, layout, self._hub, self._lead)
        self._jobs = JobController(store, settings, blobs, signer, _runner(settings, layout, platform), self._lead)
        self._imports = ImportController(store, settings, self._lead)
        ground = FolderGround(DirectoryCapture(layout), ProcessFreezer())
        self._agents = [Agent(self._tasks, ground, name=f"local-{number}", node=NODE) for number in range(AGENTS)]

        feed.listen(self._workspaces.welcome)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return everything that runs beside the api, for ever."""
        return [
            self._lead.keep(),
            self._lent(),
            self._collect(),
            loop("workspaces", self._workspaces.turn, Waker(self._feed, ("workspace",)), self._lead),
            loop("jobs", self._jobs.turn, Waker(self._feed, ("job", "workspace")), self._lead),
            loop("imports", self._imports.turn, Waker(self._feed, ("import", "read")), self._lead),
            *(agent.run() for agent in self._agents),
        ]

    async def end(self) -> None:
        """End jobs and workspaces in order: jobs wait for the next start, environments are kept."""
        await self._jobs.end_all()
        await self._workspaces.end_all()
        await self._hub.close()
        await self._tasks.close()
        await asyncio.to_thread(self._lead.drop)

    async def _collect(self) -> None:
        """Remove, now and then, the blobs of images that were deleted a day ago or more."""
        while True:
            await asyncio.sleep(COLLECT_S)
            await asyncio.to_thread(self._layout.collect)

    async def _lent(self) -> None:
        """Record once what this machine lends."""
        pool, capacity = self._settings.pool, await self._place.capacity()
        floor = Amount(pool.workspace_floor_cpu_milli, pool.workspace_floor_memory_bytes)

        def write(tx: UnitOfWork) -> None:
            ledger.set_pool(tx, capacity, floor)

        while self._lead.epoch is None:
            await asyncio.sleep(0.05)
        await self._lead.record(write)


def _runner(settings: Settings, layout: Layout, platform: layering.Platform) -> ProcessRunner:
    return ProcessRunner(settings.state_dir, layout, platform, java_home=settings.java_home)
