"""The controller's composition: which place, runner and images there are is chosen here and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from torpor_hub.controllers.base import Leadership, Waker, loop
from torpor_hub.controllers.hub import Hub
from torpor_hub.controllers.imports import ImportController
from torpor_hub.controllers.jobs import JobController
from torpor_hub.controllers.workspaces import WorkspaceController
from torpor_hub.domain.units import Amount
from torpor_hub.errors import LeaseLost, PlaceError
from torpor_hub.programs.control_parts import Around, ControlParts
from torpor_hub.services import ledger
from torpor_hub.services.tokens import Signer
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed

LOG = logging.getLogger(__name__)
MEASURE_S = 30.0


def _processes(around: Around) -> ControlParts:
    from torpor_hub.programs.control_processes import parts

    return parts(around)


def _cluster(around: Around) -> ControlParts:
    from torpor_hub.programs.control_cluster import parts

    return parts(around)


# Each imports what the other one does not need.
MODES: Mapping[str, Callable[[Around], ControlParts]] = {"process": _processes, "kubernetes": _cluster}


class Control:
    """All loops of the controller."""

    def __init__(self, settings: Settings, store: Store, blobs: Blobs, signer: Signer, feed: ChangeFeed) -> None:
        self._settings = settings
        self._feed = feed
        self._lead = Leadership(store, lifetime_s=settings.limits.lease_s)
        self._parts = parts = MODES[settings.mode](Around(settings, store, feed, self._lead))
        self._hub = Hub(settings.hub_api_url, settings.secret("hub-service-token"))
        self._workspaces = WorkspaceController(store, settings, parts.place, parts.images, self._hub, self._lead)
        self._jobs = JobController(store, settings, blobs, signer, parts.runner, self._lead)
        self._imports = ImportController(store, settings, self._lead)
        feed.listen(self._workspaces.welcome)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return everything that runs beside the api, for ever."""
        return [
            self._lead.keep(),
            self._lent(),
            loop("workspaces", self._workspaces.turn, Waker(self._feed, ("workspace",)), self._lead),
            loop("jobs", self._jobs.turn, Waker(self._feed, ("job", "workspace")), self._lead),
            loop("imports", self._imports.turn, Waker(self._feed, ("import", "read")), self._lead),
            *self._parts.loops(),
        ]

    async def end(self) -> None:
        """End what nothing carries on, in order: jobs wait for the next start, environments are kept."""
        if self._parts.ends_with_platform:
            await self._jobs.end_all()
            await self._workspaces.end_all()
        await self._hub.close()
        await self._parts.close()
        await asyncio.to_thread(self._lead.drop)

    async def _lent(self) -> None:
        """Record what the place lends, whenever it has changed."""
        pool, known = self._settings.pool, None
        floor = Amount(pool.workspace_floor_cpu_milli, pool.workspace_floor_memory_bytes)
        while True:
            while self._lead.epoch is None:
                await asyncio.sleep(0.05)
            try:
                capacity = await self._parts.place.capacity()
                if capacity != known:
                    await self._lead.record(partial(_set_pool, capacity, floor))
                    known = capacity
            except (PlaceError, LeaseLost) as error:
                LOG.warning("what can be lent is not known now: %s", error)
            await asyncio.sleep(MEASURE_S)


def _set_pool(capacity: Amount, floor: Amount, tx: UnitOfWork) -> None:
    ledger.set_pool(tx, capacity, floor)
