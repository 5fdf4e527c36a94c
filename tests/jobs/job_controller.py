"""The controller's loop for jobs beside a test, or in a process of its own that a test kills."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support.installation import settings_in
from torpor_hub.controllers.base import Leadership, Waker, loop
from torpor_hub.controllers.jobs import JobController
from torpor_hub.oci.layout import Layout
from torpor_hub.processes import layering
from torpor_hub.runners.base import Runner
from torpor_hub.runners.process import ProcessRunner
from torpor_hub.services.tokens import Signer
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed

KEY = "k" * 32


def process_runner(settings: Settings) -> Runner:
    return ProcessRunner(settings.state_dir, Layout(settings.images_dir), layering.here())


class Controller:
    """The loop for jobs in a thread; ending it without a word is what a killed server does."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        blobs: Blobs,
        signer: Signer,
        feed: ChangeFeed,
        make_runner: Callable[[Settings], Runner] = process_runner,
    ) -> None:
        self.lead = Leadership(store, lifetime_s=2)
        runner = make_runner(settings)
        self.jobs = JobController(store, settings, blobs, signer, runner, self.lead, grace_s=0.5)
        self._feed = feed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self, *, orderly: bool) -> None:
        if not self._thread.is_alive():
            return
        if orderly:
            asyncio.run_coroutine_threadsafe(self.jobs.end_all(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)
        self.lead.drop()

    def wait(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._serve())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            self._loop.run_until_complete(self.jobs.settle())
        self._loop.close()

    async def _serve(self) -> None:
        waker = Waker(self._feed, ("job", "workspace"))
        try:
            await asyncio.gather(self.lead.keep(), loop("jobs", self.jobs.turn, waker, self.lead))
        finally:
            waker.end()


def run_controller(state: Path, database: str, port: int) -> None:
    """Be a controller in a process of its own, until it is killed."""
    settings, store = settings_in(state, server={"port": port}), Store(database)
    feed = ChangeFeed(store)
    feed.start()
    Controller(settings, store, Blobs(settings.blobs), Signer(KEY), feed).wait()
