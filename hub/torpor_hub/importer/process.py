"""The child process of one task: started in a session of its own, spoken to by lines, killed without asking."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from torpor_hub import failpoints
from torpor_hub.importer.messages import Message, decode

LOG = logging.getLogger(__name__)
LONGEST_LINE = 16 * 1024**2
# A process that the kernel holds in a dead mount does not end even then; it is left behind, and said so.
END_WITHIN_S = 5.0


class Child:
    """A running child and its folder; both are gone after ``end``."""

    def __init__(self, process: asyncio.subprocess.Process, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._process, self._folder = process, folder
        self.exit_code: int | None = None

    async def next(self) -> Message | None:
        """Return the child's next message, or None when it has ended."""
        if self._process.stdout is None:
            return None
        line = await self._process.stdout.readline()
        return decode(line) if line.endswith(b"\n") else None

    def take(self, name: str) -> bytes:
        """Return the content of a file that the child has handed over, and remove it."""
        file = Path(self._folder.name) / Path(name).name
        content = file.read_bytes()
        file.unlink()
        return content

    async def taken(self) -> None:
        """Tell the child that its file was uploaded."""
        await self._write(b"taken\n")

    async def end(self) -> None:
        """Kill every process of the child's session and remove its folder."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self.exit_code = await asyncio.wait_for(self._process.wait(), END_WITHIN_S)
        except TimeoutError:
            LOG.error("process %d does not end, even killed; it is left behind", self._process.pid)
        await asyncio.to_thread(self._folder.cleanup)

    async def exited(self) -> int:
        """Return the exit status of a child that has closed its side; negative is a signal."""
        return await self._process.wait()

    async def _write(self, content: bytes) -> None:
        # A child that has ended is noticed by the reading side.
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._process.stdin.write(content)
                await self._process.stdin.drain()


async def start(task: dict[str, Any]) -> Child:
    """Return a child that works on the task."""
    folder = tempfile.TemporaryDirectory(prefix="torpor-import-", ignore_cleanup_errors=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "torpor_hub.importer.child",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        cwd=folder.name,
        env=_environment(),
        limit=LONGEST_LINE,
    )
    child = Child(process, folder)
    await child._write(json.dumps(task).encode() + b"\n")
    return child


def _environment() -> dict[str, str]:
    """Return the child's environment: nothing of the platform's own in it but the failpoints of a test."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TORPOR_") or name == failpoints.VARIABLE
    }
