"""Every process below this one: found in ``/proc``, signalled, and collected when it ends. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PROC = Path("/proc")
STATE, PARENT, START = 0, 1, 19
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def become_subreaper() -> None:
    """Make this process the parent of every descendant whose own parent ends. Source: prctl(2)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Have the kernel end this process when ``parent``, which forked it, ends; called between fork and exec."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _stat(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def own_identity() -> dict[str, int | str]:
    """Return what names this process for ever: its id, its start in clock ticks since boot, and the boot."""
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    fields = _stat(os.getpid()) or []
    return {"pid": os.getpid(), "start_time": int(fields[START]), "boot": boot}


def descendants(root: int) -> list[int]:
    """Return the processes below ``root`` that have not ended, those that are only waiting to be collected left out."""
    children: dict[int, list[int]] = {}
    living: set[int] = set()
    for entry in PROC.iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields:
            children.setdefault(int(fields[PARENT]), []).append(int(entry.name))
            if fields[STATE] not in "ZX":
                living.add(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.extend(below)
        waiting.extend(below)
    return [pid for pid in found if pid in living]


def send(number: signal.Signals) -> int:
    """Send a signal to every descendant of this process; return how many there were."""
    pids = descendants(os.getpid())
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
    return len(pids)


def collect() -> dict[int, int]:
    """Collect every child that has ended, adopted ones too; return exit codes by pid, negative for a signal."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def kill_all(limit_s: float = 10) -> bool:
    """Kill every descendant, again until a look finds none; return whether none is left after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while send(signal.SIGKILL):
        collect()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    collect()
    return True
