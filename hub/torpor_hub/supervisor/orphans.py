"""Processes whose parent died: they come to the supervisor, which reaps them and ends them last."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable

from torpor_hub.errors import StartupError
from torpor_hub.processes import trees

PR_SET_CHILD_SUBREAPER = 36
AGAIN_S = 0.05
WITHIN_S = 10.0


def adopt() -> None:
    """Become the parent of every descendant whose own parent dies, in place of the machine's first process.

    Raises:
        StartupError: when the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise StartupError(f"This kernel lets no process adopt orphans: {os.strerror(ctypes.get_errno())}.")


def watch(services: Callable[[], set[int]]) -> None:
    """Reap adopted processes as they end, from now on in the running loop; ``services`` have an owner that reaps them."""
    loop = asyncio.get_running_loop()

    def reap() -> None:
        if _reap(services()):
            loop.call_later(AGAIN_S, reap)

    loop.add_signal_handler(signal.SIGCHLD, reap)


def _reap(services: set[int]) -> bool:
    """Reap what has ended; return whether a service stands first in line and hides the rest until its owner has reaped it."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in services:
                return True
            os.waitpid(ended.si_pid, 0)
    return False


def end_all() -> int:
    """End every descendant of this process, wherever it went; return how many there were. Called when services have ended.

    Raises:
        StartupError: when something outlives SIGKILL.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + WITHIN_S
    while True:
        _reap(set())
        among = trees.Census()
        found = trees.descendants(os.getpid(), among)
        if not found:
            return len(seen)
        seen.update(stat.pid for stat in found)
        if time.monotonic() > deadline:
            raise StartupError(f"Processes {', '.join(str(stat.pid) for stat in found)} did not end after SIGKILL.")
        trees.signal_all(found, among, signal.SIGKILL)
        time.sleep(AGAIN_S)
