"""Kills with -9, in an order and at moments drawn from a seed: by pid, and at armed failpoints."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torpor_hub
from tests.support.failpoints import Failpoints
from tests.support.platform import Platform
from torpor_hub.errors import PlaceError
from torpor_hub.processes import identity, records

SERVICES = ("proxy", "hub", "server", "importer")
VICTIMS = (*SERVICES, "workspace", "wrapper")
AT_LEAST = 3
MOMENT_S = 3.0
POINT_WITHIN_S = 20.0
VICTIM_WITHIN_S = 20.0
SUPERVISOR = "supervisor.service_started"
# Whose program comes to a point; all others are the server's.
OWNERS = {
    "importer": "importer",
    "spawner": "hub",
    "supervisor": "supervisor",
    "importer.child_stage": "import's child",
}


@dataclass(frozen=True)
class Kill:
    """One kill: when, whom, how, and what was under way."""

    at_s: float
    victim: str
    how: str
    step: str


@dataclass
class Storm:
    """A run of kills over a platform under load."""

    site: Platform
    failpoints: Failpoints
    draw: random.Random
    points: list[str]
    kills: list[Kill] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def blow(self, count: int) -> None:
        """Kill ``count`` times, about half of them at failpoints."""
        queue = self._drawn_points()
        for victim in plan(count, self.draw):
            time.sleep(self.draw.random() * MOMENT_S)
            self._stand_up()
            point = next(queue) if self.draw.random() < 0.5 else ""
            if not (point and self._at_point(point)):
                self._by_pid(victim)
        missing = [victim for victim in VICTIMS if sum(victim in kill.victim for kill in self.kills) < AT_LEAST]
        for victim in missing * AT_LEAST:
            self._stand_up()
            self._by_pid(victim)
        self._stand_up()

    def table(self) -> str:
        """Return all kills as a table."""
        lines = [f"{n:>3}  {k.at_s:>6.1f} s  {k.victim:<18} {k.how:<28} {k.step}" for n, k in enumerate(self.kills, 1)]
        return "\n".join([*lines, f"points armed and not reached in time: {', '.join(self.missed) or 'none'}"])

    def _drawn_points(self) -> Iterator[str]:
        while True:
            yield from self.draw.sample(self.points, len(self.points))

    def _stand_up(self) -> None:
        """Start the platform again after a kill of its supervisor."""
        process = self.site.process
        if process is not None and process.poll() is not None:
            self.site.up()

    def _at_point(self, point: str) -> bool:
        file = self.failpoints.folder / point
        self.failpoints.arm(point, "kill")
        if point == SUPERVISOR:
            self._by_pid("importer")  # it comes there when it starts a service again
        if not _within(lambda: not file.exists(), POINT_WITHIN_S):
            try:
                file.unlink()
            except FileNotFoundError:
                pass  # it was reached at the last moment
            else:
                self.missed.append(point)
                return False
        self._note(OWNERS.get(point) or OWNERS.get(point.partition(".")[0], "server"), f"at {point}")
        if point == SUPERVISOR and self.site.process is not None:
            self.site.process.wait(POINT_WITHIN_S)
        return True

    def _by_pid(self, victim: str) -> None:
        found: list[tuple[str, int]] = []

        def look() -> bool:
            found[:] = self._candidates(victim)
            return bool(found)

        if not _within(look, VICTIM_WITHIN_S):
            self.missed.append(f"a {victim} to kill")
            return
        name, pid = self.draw.choice(found)
        step = under_way(self.site)
        if pid not in self.site.processes():
            return
        os.kill(pid, signal.SIGKILL)
        self.kills.append(Kill(time.monotonic() - self.started, name, f"pid {pid}", step))

    def _note(self, victim: str, how: str) -> None:
        self.kills.append(Kill(time.monotonic() - self.started, victim, how, under_way(self.site)))

    def _candidates(self, victim: str) -> list[tuple[str, int]]:
        if victim in SERVICES:
            pid = self.site.services().get(victim)
            return [(victim, pid)] if pid is not None and pid in self.site.processes() else []
        return list(_workspaces(self.site) if victim == "workspace" else _wrappers(self.site))


def plan(count: int, draw: random.Random) -> list[str]:
    """Return whom to kill, in order: each kind at least three times."""
    rest = count - AT_LEAST * len(VICTIMS)
    chosen = [*(VICTIMS * AT_LEAST), *draw.choices(VICTIMS, k=max(0, rest))]
    draw.shuffle(chosen)
    return chosen[:count] if rest < 0 else chosen


def all_points() -> list[str]:
    """Return the names of all failpoints in the platform's code."""
    files = Path(torpor_hub.__file__).parent.rglob("*.py")
    return sorted(
        {name for file in files for name in re.findall(r'failpoints\.hit(?:\(|, )"([\w.]+)"', file.read_text())}
    )


def under_way(site: Platform) -> str:
    """Return what the database says is going on: operations, jobs that hold something, imports."""
    queries = (
        "SELECT kind || '/' || step AS now FROM operations WHERE ended_at IS NULL",
        "SELECT 'job/' || phase AS now FROM jobs WHERE phase NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')",
        "SELECT 'import/' || phase AS now FROM imports WHERE ended_at IS NULL",
        "SELECT 'ws/' || phase AS now FROM workspaces",
    )
    return " ".join(str(row["now"]) for query in queries for row in site.rows(query))


def _workspaces(site: Platform) -> Iterator[tuple[str, int]]:
    for root in (site.state / "workspaces").glob("ws-*"):
        try:
            record = records.read(root)
        except PlaceError:
            continue
        for name, handle in (("reaper", record.handle), ("server", record.server)) if record else ():
            if handle and identity.alive(identity.parse(handle)):
                yield f"workspace ({name})", identity.parse(handle).pid


def _wrappers(site: Platform) -> Iterator[tuple[str, int]]:
    for file in (site.state / "jobs").glob("job-*/attempt.json"):
        try:
            held = json.loads(file.read_text())
            wrapper = identity.Identity(int(held["pid"]), int(held["start_time"]), str(held["boot"]))
        except (OSError, ValueError):
            continue
        if identity.alive(wrapper):
            yield "wrapper", wrapper.pid


def _within(look: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
