"""The loop for imports and reads: what time does to them."""

from __future__ import annotations

import asyncio
import logging
import time

from torpor_hub.controllers.base import Leadership
from torpor_hub.services import sweeps
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs

LOG = logging.getLogger(__name__)
COLLECT_EVERY_S = 60.0


class ImportController:
    """Requeues tasks whose importer went silent, ends what is overdue, and removes blobs that nothing refers to."""

    def __init__(self, store: Store, settings: Settings, leadership: Leadership) -> None:
        self._store = store
        self._settings = settings
        self._lead = leadership
        self._blobs = Blobs(settings.blobs)
        self._collected_at = 0.0

    async def turn(self) -> None:
        """Do what is due; every step may be repeated."""
        silent = await self._lead.record(sweeps.silent)
        overdue = await self._lead.record(lambda tx: sweeps.overdue(tx, self._settings))
        if silent or overdue:
            LOG.info("%d tasks of silent importers, %d overdue", silent, overdue)
        if time.monotonic() - self._collected_at > COLLECT_EVERY_S:
            self._collected_at = time.monotonic()
            await self.collect()

    async def collect(self) -> None:
        """Remove old blobs; each first, then its row, so that a crash leaves a row to try again and never a lost blob."""
        keys = await asyncio.to_thread(self._old)
        for key in keys:
            await asyncio.to_thread(self._blobs.delete, key)
        if keys:
            await self._lead.record(lambda tx: sweeps.forget_uploads(tx, keys))

    def _old(self) -> list[str]:
        with self._store.read() as tx:
            return sweeps.old_uploads(tx)
