"""Workspaces with a script as their server, started under a real reaper, and the ground truth about their processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torpor_hub.domain import ids
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.processes import identity, launch, ports, trees
from torpor_hub.processes.identity import Identity

PATH = "/usr/local/bin:/usr/bin:/bin"


def until(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def new_run(folder: Path, workspace_id: str = "") -> WorkspaceRun:
    name = workspace_id or ids.new("ws")
    root, home = folder / "workspaces" / name, folder / "homes" / "t" / "ada"
    root.mkdir(parents=True, exist_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    return WorkspaceRun(
        workspace_id=name,
        grant_id=ids.new("grant"),
        name="analysis",
        tenant="t",
        user="ada",
        profile="small",
        amount=Amount(1000, 1),
        root_dir=str(root),
        home_dir=str(home),
    )


@contextmanager
def started(run: WorkspaceRun, *command: str, port: int = 0) -> Iterator[Identity]:
    """Start a workspace and, whatever happens, leave nothing of it behind."""
    log = Path(run.root_dir) / launch.LOG_FILE
    reaper = launch.launch(run, command, {"PATH": PATH}, port, log=log)
    try:
        yield reaper
    finally:
        trees.end_tree(reaper, mark=(launch.GRANT_MARK, run.grant_id))


def bash(script: str) -> tuple[str, ...]:
    return ("/bin/bash", "-c", script)


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


def running(token: str) -> list[int]:
    """Return the living processes that have ``token`` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(token == word.decode(errors="replace") for word in words) and identity.of(int(entry.name)):
            found.append(int(entry.name))
    return found


def states(pid: int) -> set[str]:
    """Return the states of everything below ``pid``."""
    return {stat.state for stat in trees.descendants(pid)}


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    """Return a port that nothing listens on, and that no connection takes meanwhile."""
    return ports.choose("127.0.0.1")
