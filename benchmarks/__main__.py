"""``python -m benchmarks [--smoke]``: medians, spreads and ratios, with the facts of the machine."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sleep_path import SleepPath, make_tree

MIB = 1024**2
FULL = {"files": 12_000, "libraries": 24, "library_bytes": 8 * MIB}
SMOKE = {"files": 60, "libraries": 1, "library_bytes": MIB}


def machine() -> str:
    """Return the facts that a number needs to be compared with another day's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def report(seconds: dict[str, list[float]], content_bytes: int) -> list[str]:
    """Return the lines of a table: median, spread, speed, and the median of the ratios round by round to the first way."""
    first = next(iter(seconds.values()))
    lines = [f"{'way':18} {'median':>8} {'least':>8} {'most':>8} {'MiB/s':>7} {'ratio':>6}"]
    for name, each in seconds.items():
        median = statistics.median(each)
        ratio = statistics.median(own / peer for own, peer in zip(each, first, strict=True))
        speed = content_bytes / MIB / median
        lines.append(f"{name:18} {median:7.2f}s {min(each):7.2f}s {max(each):7.2f}s {speed:7.0f} {ratio:6.2f}")
    return lines


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one round over a small tree: does it run at all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    if not shutil.which("zstd"):
        print("This compares with `tar | zstd`; the program zstd is not here. On Debian: apt-get install zstd")
        return 2
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder:
        tree = Path(folder, "tree")
        size = make_tree(tree, asked.seed, **(SMOKE if asked.smoke else FULL))
        print(f"Sleep path over {size / MIB:.0f} MiB, seed {asked.seed}. {machine()}")
        seconds = SleepPath(tree, Path(folder, "scratch")).rounds(1 if asked.smoke else asked.rounds)
    print(*report(seconds, size), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
