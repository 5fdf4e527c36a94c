"""The platform ends while a turn of the controller is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tests.jobs.job_controller import KEY
from tests.jobs.job_platform import JobPlatform
from torpor_hub.controllers.base import Leadership
from torpor_hub.controllers.jobs import JobController
from torpor_hub.oci.layout import Layout
from torpor_hub.processes import layering
from torpor_hub.runners.base import JobFact
from torpor_hub.runners.process import ProcessRunner
from torpor_hub.services.tokens import Signer
from torpor_hub.stores.base import take_lease

LEASE_S = 600.0


class SlowToAnswer(ProcessRunner):
    """Says what runs when it is let."""

    def hold(self) -> None:
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def facts(self) -> Mapping[str, JobFact]:
        found = await super().facts()
        self.asked.set()
        await self.let.wait()
        return found


def test_nothing_starts_while_the_platform_ends_and_the_job_waits_for_the_next_start(platform: JobPlatform) -> None:
    platform.controller.end(orderly=True)
    job = platform.command("true")
    settings, store = platform.settings, platform.store
    runner = SlowToAnswer(settings.state_dir, Layout(settings.images_dir), layering.here())
    lead = Leadership(store, lifetime_s=LEASE_S)
    jobs = JobController(store, settings, platform.blobs, Signer(KEY), runner, lead, grace_s=0.5)

    async def end_within_a_turn() -> Mapping[str, JobFact]:
        runner.hold()
        lead.epoch = await asyncio.to_thread(take_lease, store, "controller", lead.holder, LEASE_S)
        turn = asyncio.create_task(jobs.turn())
        await runner.asked.wait()
        end = asyncio.create_task(jobs.end_all())
        await asyncio.wait({end}, timeout=0.5)
        runner.let.set()
        await asyncio.gather(turn, end)
        await jobs.settle()
        return await runner.facts()

    assert asyncio.run(end_within_a_turn()) == {}
    assert platform.status(job)["phase"] == "QUEUED"
    lead.drop()
