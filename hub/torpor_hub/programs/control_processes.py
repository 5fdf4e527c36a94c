"""The controller's parts on one machine: workspaces and jobs are processes of it, images a layout on its disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from torpor_hub.agent.folders import FolderGround
from torpor_hub.agent.tasks import Tasks
from torpor_hub.agent.work import Agent
from torpor_hub.capture.directory import DirectoryCapture
from torpor_hub.domain.units import Amount
from torpor_hub.oci.layout import Layout
from torpor_hub.places.process import ProcessPlace
from torpor_hub.processes import layering
from torpor_hub.processes.freezer import ProcessFreezer
from torpor_hub.programs.control_parts import Around, ControlParts, Loop
from torpor_hub.runners.process import ProcessRunner

NODE = ""
AGENTS = 2
COLLECT_S = 3600


def parts(around: Around) -> ControlParts:
    """Return the parts, with this machine's agents among the loops."""
    settings = around.settings
    layout, platform = Layout(settings.images_dir), layering.here()
    capacity = Amount(settings.pool_cpu_milli(), settings.pool_memory_bytes())
    tasks = Tasks(settings.api_url, partial(settings.secret, "agent-proof"))
    ground = FolderGround(DirectoryCapture(layout), ProcessFreezer())
    agents = [Agent(tasks, ground, name=f"local-{number}", node=NODE) for number in range(AGENTS)]

    def loops() -> Sequence[Loop]:
        return [_collect(layout), *(agent.run() for agent in agents)]

    return ControlParts(
        place=ProcessPlace(settings.state_dir, layout, platform, capacity),
        runner=ProcessRunner(settings.state_dir, layout, platform, java_home=settings.java_home),
        images=layout,
        loops=loops,
        close=tasks.close,
        ends_with_platform=True,
    )


async def _collect(layout: Layout) -> None:
    """Remove, now and then, the blobs of images that were deleted a day ago or more."""
    while True:
        await asyncio.sleep(COLLECT_S)
        await asyncio.to_thread(layout.collect)
