"""Stopping every process of a workspace, and letting all go on, with a lease that ends by itself.

The lease is a file in the workspace's folder, written before the first process is stopped; the workspace's reaper, which is
never stopped itself, lets the processes go on when the lease is past its deadline or gone. Who freezes or thaws holds a lock,
so that a thaw that comes late never meets the next freeze; a holder that hangs cannot keep the reaper from thawing.

Standard library only: the reaper runs without any installed package.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torpor_hub.errors import PlaceError
from torpor_hub.processes import files, identity, trees
from torpor_hub.processes.identity import Identity, Stat
from torpor_hub.processes.trees import Census

LEASE_FILE = "freeze.json"
LOCK_FILE = "freeze.lock"
SETTLE_WITHIN_S = 10.0
LOCK_WITHIN_S = SETTLE_WITHIN_S + 2.0
SETTLE_GENERATION_S = 0.05
POLL_S = 0.002
STOPPED = frozenset("TtZXx")


@dataclass(frozen=True)
class Lease:
    """Until when a workspace may stay frozen: ``deadline`` in seconds of CLOCK_BOOTTIME, which runs on in a suspend too.

    ``stopped_before`` are the processes that were stopped already, by their user: a thaw leaves them alone.
    """

    handle: str
    deadline: float
    stopped_before: tuple[str, ...] = ()

    def expired(self) -> bool:
        """Return whether the deadline has passed."""
        return boot_time() > self.deadline


def boot_time() -> float:
    """Return seconds since the machine's boot, suspends included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_lease(root: Path) -> Lease | None:
    """Return the lease in the workspace's folder; None where there is none, an expired one where it cannot be read."""
    try:
        content = json.loads((root / LEASE_FILE).read_bytes())
        return Lease(str(content["handle"]), float(content["deadline"]), tuple(content["stopped_before"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Lease("", 0.0)


def is_frozen(root: Path, handle: str) -> bool:
    """Return whether this start of the workspace is frozen, or being frozen or thawed."""
    lease = read_lease(root)
    return lease is not None and lease.handle == handle and identity.alive(identity.parse(handle))


def freeze(root: Path, handle: str, thaw_after_s: float) -> None:
    """Stop every descendant of the reaper that ``handle`` names; it thaws them after ``thaw_after_s`` by itself.

    May be repeated, which moves the deadline.

    Raises:
        PlaceError: when the reaper is gone, when the processes do not come to rest, or when somebody thawed meanwhile.
    """
    reaper = _reaper(handle)
    with _locked(root) as alone:
        if not alone:
            raise PlaceError("The workspace is being frozen or thawed by somebody else; try again.")
        earlier = read_lease(root)
        if earlier is not None and earlier.handle == handle:
            stopped_before = earlier.stopped_before
        else:
            below = trees.descendants(reaper.pid)
            stopped_before = tuple(Identity(stat.pid, stat.started).handle() for stat in below if stat.state == "T")
        lease = Lease(handle, boot_time() + thaw_after_s, stopped_before)
        _write(root, lease)
        try:
            _stop(root, reaper, lease)
        except PlaceError:
            _end(root, reaper, lease)
            raise


def thaw(root: Path, handle: str) -> None:
    """Let everything below the reaper go on and end the lease; a reaper that is gone has nothing to thaw.

    A freeze that is under way gives up.
    """
    reaper = identity.parse(handle)
    lease = read_lease(root)
    if lease is None or lease.handle != handle:
        return
    # Void before it is removed: should this process end in between, the reaper does the rest.
    _write(root, replace(lease, deadline=0.0))
    with _locked(root):
        _end(root, reaper, lease)


def thaw_when_due(root: Path, reaper: Identity, last: Lease | None) -> Lease | None:
    """Return the lease in force, for the reaper's next look; ``last`` is what it saw before.

    Thaws when the lease has expired or cannot be read, and when it is gone although it was there before.
    """
    lease = read_lease(root)
    if (lease is None and last is None) or (lease is not None and not lease.expired()):
        return lease
    with _locked(root):
        lease = read_lease(root)
        if lease is None or lease.expired():
            _end(root, reaper, lease if lease is not None and lease.handle else last)
            return None
    return lease


def _end(root: Path, reaper: Identity, lease: Lease | None) -> None:
    if identity.alive(reaper):
        resume(reaper.pid, lease.stopped_before if lease is not None else ())
    (root / LEASE_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[bool]:
    """Hold the workspace's freeze lock and give True; after ``LOCK_WITHIN_S`` without it, go on and give False."""
    descriptor = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield trees.wait_until(lambda: _try_lock(descriptor), LOCK_WITHIN_S)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def resume(pid: int, spared: Iterable[str] = ()) -> None:
    """Send SIGCONT to all descendants of ``pid`` but ``spared``, children before their parents.

    A shell whose job still stood still when it looks would take the job for suspended by its user. Later passes look only for
    what was stopped behind the back of the first.
    """
    seen = {(known.pid, known.started) for known in map(identity.parse, spared)}
    found = [stat for stat in trees.descendants(pid) if (stat.pid, stat.started) not in seen]
    while found:
        for stat in reversed(found):
            seen.add((stat.pid, stat.started))
            _signal(stat, signal.SIGCONT)
        stopped = (stat for stat in trees.descendants(pid) if stat.state == "T")
        found = [stat for stat in stopped if (stat.pid, stat.started) not in seen]


def _stop(root: Path, reaper: Identity, lease: Lease) -> None:
    """SIGSTOP everything below the reaper until a search finds nothing more that moves.

    The first pass goes from parents to children and waits for each generation, so that no shell sees its job stop; the later
    ones go by process group, which no fork escapes.
    """
    deadline, search = time.monotonic() + SETTLE_WITHIN_S, trees.Search()
    _stop_in_order(reaper)
    while True:
        among = trees.Census()
        below = trees.descendants(reaper.pid, among)
        restless = [stat for stat in below if not _at_rest(stat, among)]
        trees.signal_all(below, among, signal.SIGSTOP)
        if read_lease(root) != lease or not identity.alive(reaper):
            raise PlaceError("The workspace was thawed or ended while it was being frozen.")
        if search.is_over(among, restless):
            return
        if restless and time.monotonic() > deadline:
            names = ", ".join(str(stat.pid) for stat in restless)
            raise PlaceError(f"Processes {names} did not stop within {SETTLE_WITHIN_S:.0f} s.")
        if restless:
            time.sleep(POLL_S)


def _stop_in_order(reaper: Identity) -> None:
    for generation in trees.generations([reaper.pid], trees.Census()):
        for stat in generation:
            _signal(stat, signal.SIGSTOP)
        deadline = time.monotonic() + SETTLE_GENERATION_S
        while time.monotonic() < deadline and not all(_threads_rest(stat) for stat in generation):
            time.sleep(POLL_S)


def _at_rest(stat: Stat, among: Census) -> bool:
    """Return whether no thread of the process can run.

    A parent that waits in vfork(2) cannot be stopped before its child has called exec; it rests when that child does. The
    two share one memory, so the kernel shows the same figures for both.
    """
    if _threads_rest(stat):
        return True
    if not _threads_rest(stat, STOPPED | {"D"}):
        return False
    memory = _memory(stat.pid)
    children = (child for child in among.values() if child.parent == stat.pid)
    return any(_threads_rest(child) and _memory(child.pid) == memory for child in children)


def _threads_rest(stat: Stat, states: frozenset[str] = STOPPED) -> bool:
    lines = (identity.read_stat(stat.pid, thread) for thread in identity.threads(stat.pid))
    return all(line is None or line.state in states for line in lines)


def _memory(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/statm").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _reaper(handle: str) -> Identity:
    try:
        reaper = identity.parse(handle)
    except ValueError as error:
        raise PlaceError(f"'{handle}' is not the handle of a local process.") from error
    if not identity.alive(reaper):
        raise PlaceError(f"The workspace's process {reaper.pid} is gone: there is nothing to freeze.")
    return reaper


def _write(root: Path, lease: Lease) -> None:
    content = {"handle": lease.handle, "deadline": lease.deadline, "stopped_before": list(lease.stopped_before)}
    files.write_atomically(root / LEASE_FILE, json.dumps(content).encode())


def _signal(stat: Stat, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(stat.pid, number)
