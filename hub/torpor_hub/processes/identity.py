"""A process named by its id, its start time and the machine's boot, so that no other is ever taken for it.

Standard library only: the reaper runs without any installed package.
"""

from __future__ import annotations

import functools
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
DEAD = frozenset("ZXx")


@dataclass(frozen=True)
class Stat:
    """One line of the process table; ``started`` in clock ticks since boot (proc(5), ``/proc/pid/stat`` field 22)."""

    pid: int
    state: str
    parent: int
    group: int
    started: int


@functools.cache
def boot_id() -> str:
    """Return the id of the machine's present boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Identity:
    """Exactly one process of exactly one boot."""

    pid: int
    started: int
    boot: str = field(default_factory=boot_id)

    def handle(self) -> str:
        """Return the identity as a text that ``parse`` reads."""
        return f"{self.boot}/{self.pid}/{self.started}"


def parse(handle: str) -> Identity:
    """Return the identity that ``handle`` names.

    Raises:
        ValueError: when ``handle`` was not made by ``Identity.handle``.
    """
    boot, pid, started = handle.split("/")
    return Identity(int(pid), int(started), boot)


def of(pid: int) -> Identity | None:
    """Return the identity of the process that has ``pid`` now; None when there is none."""
    stat = read_stat(pid)
    return None if stat is None else Identity(stat.pid, stat.started)


def own() -> Identity:
    """Return the identity of the calling process."""
    identity = of(os.getpid())
    if identity is None:
        raise RuntimeError(f"{PROC} does not show the calling process {os.getpid()}: it belongs to another namespace")
    return identity


def alive(identity: Identity) -> bool:
    """Return whether exactly this process lives; a zombie does not."""
    if identity.boot != boot_id():
        return False
    stat = read_stat(identity.pid)
    return stat is not None and stat.started == identity.started and not is_dead(stat)


def send(identity: Identity, number: signal.Signals) -> bool:
    """Send a signal to exactly this process and return whether it was there to take it."""
    if identity.boot != boot_id():
        return False
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor holds one process; when its start time is right too, the signal cannot go astray.
        if of(identity.pid) != identity:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def read_stat(pid: int, thread: int | None = None) -> Stat | None:
    """Return the line of a process, or of one of its threads; None when it is gone."""
    file = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    try:
        # One plain read: this runs for every process of the machine, again and again while a tree is frozen.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            line = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may hold any byte, closing parentheses too.
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[19]))


def threads(pid: int) -> list[int]:
    """Return the ids of a process's threads; none when it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - names alone, read very often
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_thread(pid: int) -> bool:
    """Return whether ``pid`` is a thread beside its process's first one (proc(5), ``Tgid``); one that is gone is none."""
    try:
        with open(f"/proc/{pid}/status", "rb") as stream:  # noqa: PTH123 - its speed is its purpose
            return not any(line.split() == [b"Tgid:", b"%d" % pid] for line in stream)
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_dead(stat: Stat) -> bool:
    """Return whether nothing of the process runs: its first thread may be a zombie while others go on."""
    return stat.state in DEAD and len(threads(stat.pid)) <= 1
