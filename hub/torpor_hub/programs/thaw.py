"""The second thaw path of a node as a program: ``torpor-thaw --leases FOLDER --cgroups FOLDER``. Standard library only."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from pathlib import Path

from torpor_hub.agent.leases import Leases
from torpor_hub.agent.thaw import keep_watch
from torpor_hub.processes.cgroups import Cgroups

OWNER = "TORPOR_NAMESPACE"
ENDS = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    """Watch until SIGTERM or SIGINT; then thaw the rest, and end."""
    parser = argparse.ArgumentParser(prog="torpor-thaw", description="Thaws what the agent of this node left frozen.")
    parser.add_argument(
        "--leases", type=Path, required=True, help="the node's folder for leases; all installations share it"
    )
    parser.add_argument("--cgroups", type=Path, default=Path("/sys/fs/cgroup"), help="the node's cgroups, writable")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep_watch(Cgroups(arguments.cgroups), Leases(arguments.leases, os.environ.get(OWNER, "")), _ending())


def _ending() -> threading.Event:
    """Return what is set at the first signal to end.

    A thread waits for it: an event's lock is not reentrant, so that a handler which sets it while the same thread is about to wait
    for it would stand still for ever.
    """
    ending = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)

    def wait() -> None:
        signal.sigwait(ENDS)
        ending.set()

    threading.Thread(target=wait, name="end", daemon=True).start()
    return ending


if __name__ == "__main__":
    main()
