"""Processes and everything below them: found, signalled, ended.

Standard library only: the reaper runs without any installed package. The tree is read from ``/proc/*/stat`` in one pass,
because not every kernel has ``/proc/<pid>/task/*/children``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable

from torpor_hub.errors import PlaceError
from torpor_hub.processes import identity
from torpor_hub.processes.identity import Identity, Stat

POLL_S = 0.02
KILL_WITHIN_S = 15.0
SURE_SCANS = 2
CLEAN_SCANS = 60
LAST_WORDS_S = 2.0


class Census(dict[int, Stat]):
    """Every process of this machine that is not dead, by process id.

    ``fleeting`` are those that were gone or dead when their line was to be read: each may have left a child that is not listed.
    """

    def __init__(self) -> None:
        fleeting = set()
        for name in os.listdir("/proc"):  # noqa: PTH208 - names alone, read very often
            if name.isdigit():
                stat = identity.read_stat(int(name))
                if stat is None or identity.is_dead(stat):
                    fleeting.add(int(name))
                else:
                    self[stat.pid] = stat
        latest = newest()
        if latest is not None:
            self[latest.pid] = latest
        self.fleeting = frozenset(fleeting)


def newest() -> Stat | None:
    """Return the process that was started last (proc(5), ``/proc/loadavg``); None when it has ended already.

    In a chain of processes that fork and exit, this is the only one that can be met alive. What was started last may also be
    a thread, which has a line of its own though no listing shows it: that is no process.
    """
    with open("/proc/loadavg", "rb") as stream:  # noqa: PTH123 - its speed is its purpose
        stat = identity.read_stat(int(stream.read().split()[-1]))
    return None if stat is None or identity.is_dead(stat) or identity.is_thread(stat.pid) else stat


class Search:
    """Repeated censuses that end when they have found nothing in such a way that nothing can have been missed.

    A process that forks and exits at once may be gone each time when its line is read. So a census counts only when it met
    no process that died since the one before; on a machine where that never happens, a long row of them counts too.
    """

    def __init__(self) -> None:
        self._fleeting: frozenset[int] = frozenset()
        self._clean = 0
        self._sure = 0

    def is_over(self, among: Census, found: Iterable[Stat]) -> bool:
        """Return whether, with this census and what was found in it, the search is over."""
        if any(found):
            self._clean = self._sure = 0
        else:
            self._clean += 1
            self._sure = 0 if among.fleeting - self._fleeting else self._sure + 1
        self._fleeting = among.fleeting
        return self._sure >= SURE_SCANS or self._clean >= CLEAN_SCANS


def generations(roots: Iterable[int], among: Census) -> list[list[Stat]]:
    """Return all descendants of ``roots``, children first, then their children, and so on."""
    children: dict[int, list[Stat]] = {}
    for stat in among.values():
        children.setdefault(stat.parent, []).append(stat)
    found: list[list[Stat]] = []
    generation = [child for root in set(roots) for child in children.get(root, ())]
    while generation:
        found.append(generation)
        generation = [child for parent in generation for child in children.get(parent.pid, ())]
    return found


def descendants(pid: int, among: Census | None = None) -> list[Stat]:
    """Return all descendants of a process, parents before their children."""
    return [stat for generation in generations([pid], Census() if among is None else among) for stat in generation]


def marked(name: str, value: str, among: Census | None = None) -> list[Stat]:
    """Return the processes that were started with ``name=value`` in their environment, never the calling one.

    Processes of other users, whose environment cannot be read, are not among them.
    """
    mark = f"{name}={value}".encode()
    latest = newest()
    found = [latest] if latest is not None and mark in _environment(latest.pid) else []
    found += [stat for stat in (Census() if among is None else among).values() if mark in _environment(stat.pid)]
    return [stat for stat in found if stat.pid != os.getpid()]


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:  # noqa: PTH123 - read for every process of the machine
            return stream.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def signal_all(stats: Iterable[Stat], among: Census, number: signal.Signals) -> None:
    """Send a signal to all of ``stats``; a process group that lies wholly among them gets it as one.

    A group's signal also meets the child that is being forked at this moment, so that no chain of forks runs ahead of it.
    """
    targets = {stat.pid: stat for stat in stats}
    shared = {stat.group for stat in among.values() if stat.pid not in targets} | {0, os.getpgrp()}
    whole = {stat.group for stat in targets.values()} - shared
    for group in whole:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for stat in targets.values():
        if stat.group not in whole:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(stat.pid, number)


def end_tree(root: Identity, *, mark: tuple[str, str] | None = None, grace_s: float = 0.0) -> None:
    """End a process, everything below it and everything that carries ``mark``; what is gone already is success.

    The process gets SIGTERM and ``grace_s`` seconds, then everything SIGKILL until no rescan finds more. Without a grace
    there is no SIGTERM. A reaper outlives its descendants by a moment, to write down how they ended.

    Raises:
        PlaceError: when something cannot be ended; the text names the process ids.
    """
    if grace_s > 0 and identity.send(root, signal.SIGTERM):
        wait_until(lambda: not identity.alive(root), grace_s)
    # What the root still starts now is met below, once the root is gone: only then is the rescan final.
    _kill(lambda among: _below(root, mark, among), LAST_WORDS_S)
    if not wait_until(lambda: not identity.alive(root), LAST_WORDS_S):
        identity.send(root, signal.SIGKILL)
    left = _kill(lambda among: [*_below(root, mark, among), *_itself(root)], KILL_WITHIN_S)
    if left:
        names = ", ".join(str(stat.pid) for stat in left)
        raise PlaceError(f"Processes {names} did not end within {KILL_WITHIN_S:.0f} s of SIGKILL.")


def _itself(root: Identity) -> list[Stat]:
    stat = identity.read_stat(root.pid)
    return [stat] if stat is not None and identity.alive(root) and stat.pid != os.getpid() else []


def _below(root: Identity, mark: tuple[str, str] | None, among: Census) -> list[Stat]:
    """Return what is to end: descendants of the root and of everything marked, but not the root itself."""
    itself = {root.pid} if identity.alive(root) else set()
    found = {stat.pid: stat for stat in (marked(*mark, among) if mark else ())}
    for generation in generations(itself | found.keys(), among):
        found.update((stat.pid, stat) for stat in generation)
    return [stat for stat in found.values() if stat.pid not in itself | {os.getpid()}]


def _kill(find: Callable[[Census], list[Stat]], within_s: float) -> list[Stat]:
    """SIGKILL what ``find`` finds until a search finds no more, and return what is left after ``within_s``."""
    deadline, search = time.monotonic() + within_s, Search()
    while True:
        among = Census()
        found = find(among)
        signal_all(found, among, signal.SIGKILL)
        if search.is_over(among, found):
            return []
        if time.monotonic() > deadline:
            return found
        if found:
            time.sleep(POLL_S)


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    """Return whether ``condition`` came true within ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
