"""What was measured, for people and for programs: medians with their spread, and ratios to each peer, round by round."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BAR = 32


@dataclass
class Outcome:
    """The seconds of each way in every round that was whole. ``pairs`` are the ways to compare: ours, then what it is compared with."""

    title: str
    pairs: Sequence[tuple[str, str]]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, measured: Mapping[str, float]) -> None:
        """Take up one round."""
        for way, seconds in measured.items():
            self.seconds.setdefault(way, []).append(seconds)

    def ratios(self) -> dict[str, list[float]]:
        """Return, by ``ours / peer``, the ratio of each round; a drift of the machine's speed touches both sides of it."""
        return {
            f"{ours} / {peer}": [own / other for own, other in zip(self.seconds[ours], self.seconds[peer], strict=True)]
            for ours, peer in self.pairs
            if ours in self.seconds
        }


def machine() -> str:
    """Return the facts that a number needs to be compared with another day's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def table(outcome: Outcome) -> list[str]:
    """Return the lines of an outcome: each way's median with a bar as long, least and most, then the same of each ratio."""
    ratios = outcome.ratios()
    width = max(map(len, [*outcome.seconds, *ratios, "seconds"]))
    rounds = max(map(len, outcome.seconds.values()), default=0)
    longest = max(map(statistics.median, outcome.seconds.values()), default=1.0)
    lines = [f"{outcome.title}; rounds: {rounds}", f"{'seconds':{width}} {'median':>9} {'least':>9} {'most':>9}"]
    for way, each in outcome.seconds.items():
        bar = "█" * max(1, round(BAR * statistics.median(each) / longest))
        lines.append(f"{way:{width}} {_spread(each)}  {bar}")
    lines.append(f"{'ratio':{width}} {'median':>9} {'least':>9} {'most':>9}")
    return [*lines, *(f"{name:{width}} {_spread(each)}" for name, each in ratios.items())]


def content(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome for a file: all figures by round, and median, least and most of each ratio."""
    ratios = {
        name: {"median": statistics.median(each), "least": min(each), "most": max(each), "rounds": each}
        for name, each in outcome.ratios().items()
    }
    return {"title": outcome.title, "seconds": outcome.seconds, "ratios": ratios}


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):9.3f} {min(values):9.3f} {max(values):9.3f}"
