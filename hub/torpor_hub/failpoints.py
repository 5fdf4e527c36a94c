"""Named places in the code where a test may stop, break or end the process.

Inert unless the environment variable ``TORPOR_FAILPOINTS`` names a folder. There, a file named like a point holds the
action: ``kill`` (SIGKILL to this process), ``error`` (raises), ``hang`` and ``pause`` (wait until the file is gone). ``kill``
and ``error`` consume their file, so that each acts once. Every hit of an armed folder is a line in ``hits.log``.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from torpor_hub.errors import FailpointError

VARIABLE = "TORPOR_FAILPOINTS"
POLL_S = 0.02


def hit(point: str) -> None:
    """Do what the test has armed for ``point``; without a folder of failpoints, return at once.

    Raises:
        FailpointError: where the action is ``error``.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return
    folder = Path(named)
    _log(folder, point)
    file = folder / point
    action = _consume(file)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "error":
        raise FailpointError(f"failpoint {point}")
    while action in ("hang", "pause") and file.exists():
        time.sleep(POLL_S)


def _consume(file: Path) -> str:
    try:
        action = file.read_text().strip()
        if action in ("kill", "error"):
            file.unlink()
    except FileNotFoundError:
        return ""
    return action


def _log(folder: Path, point: str) -> None:
    line = f"{time.time():.6f} {os.getpid()} {point}\n"
    descriptor = os.open(folder / "hits.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
