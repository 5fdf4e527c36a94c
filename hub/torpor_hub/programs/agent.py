"""The agent of a node as a program: ``torpor-agent --api-url URL --proof FILE …``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from torpor_hub.agent import rights
from torpor_hub.agent.leases import Leases
from torpor_hub.agent.node import NodeGround
from torpor_hub.agent.tasks import Tasks
from torpor_hub.agent.work import Agent, settle
from torpor_hub.errors import StartupError
from torpor_hub.processes.cgroups import Cgroups

NODE = "TORPOR_NODE"
OWNER = "TORPOR_NAMESPACE"
AT_A_TIME = 2


def main() -> None:
    """Run the agent until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="torpor-agent", description="Saves the workspaces of this node.")
    parser.add_argument("--api-url", required=True, help="the api, with its path")
    parser.add_argument("--proof", type=Path, required=True, help="the file of the projected service-account token")
    parser.add_argument(
        "--leases", type=Path, required=True, help="the node's folder for leases; all installations share it"
    )
    parser.add_argument("--cgroups", type=Path, default=Path("/sys/fs/cgroup"), help="the node's cgroups, writable")
    parser.add_argument("--node", default=os.environ.get(NODE, ""), help=f"the node's name; default: ${NODE}")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not arguments.node:
        parser.error(f"name the node by --node or {NODE}")
    try:
        leases = Leases(arguments.leases, os.environ.get(OWNER, ""))
        rights.check(arguments.leases)
        ground = NodeGround(Cgroups(arguments.cgroups), leases)
        asyncio.run(run(arguments.api_url, _reader(arguments.proof), ground, arguments.node))
    except (StartupError, OSError) as error:
        sys.exit(f"torpor-agent: {error}")


async def run(api_url: str, proof: Callable[[], str], ground: NodeGround, node: str) -> None:
    """Work until a signal asks to end; before and after, thaw what must not stay frozen."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = Tasks(api_url, proof)
    try:
        await settle(tasks, ground)
        agents = [
            asyncio.create_task(Agent(tasks, ground, name=f"{node}-{number}", node=node).run())
            for number in range(AT_A_TIME)
        ]
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, *agents}, return_when=asyncio.FIRST_COMPLETED)
        for agent in agents:
            agent.cancel()
        outcomes = await asyncio.gather(*agents, return_exceptions=True)
        await settle(tasks, ground)
    finally:
        await tasks.close()
        ground.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def _reader(proof: Path) -> Callable[[], str]:
    return lambda: proof.read_text().strip()


if __name__ == "__main__":
    main()
