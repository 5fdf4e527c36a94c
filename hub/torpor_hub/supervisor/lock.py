"""One platform for one state folder."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor_hub.errors import StartupError


@contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """Hold the state folder while the block runs. The kernel frees it however this process ends.

    Raises:
        StartupError: when another process holds it; the text says which one, where it answers and what to do.
    """
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartupError(_who_holds(state_dir)) from error
        announce(state_dir, "")
        yield
    finally:
        os.close(descriptor)


def announce(state_dir: Path, url: str) -> None:
    """Write down who holds the folder and where it answers. Only the holder calls this."""
    (state_dir / "lock").write_text(json.dumps({"pid": os.getpid(), "url": url}))


def _who_holds(state_dir: Path) -> str:
    other = "Or choose another folder: torpor up --state FOLDER"
    try:
        holder = json.loads((state_dir / "lock").read_text())
        pid, url = int(holder["pid"]), holder["url"]
    except (ValueError, KeyError):
        return f"Another platform is starting on the state folder {state_dir}. Wait for it. {other}"
    where = f", at {url}" if url else ""
    return (
        f"The state folder {state_dir} is in use by process {pid}{where}. Use that one, or end it: kill {pid}. {other}"
    )
