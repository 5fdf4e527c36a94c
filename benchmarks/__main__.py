"""``python -m benchmarks [NAME…]``: seconds with their spread, and ratios to what people would use instead, with the machine's facts."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks import report, sleep_path
from benchmarks.report import Outcome

RESULTS = Path("test-results", "benchmarks.json")
# A cluster, as its administrator reaches it, the registry that its nodes pull from, and this machine as its pods reach it.
CLUSTER = ("KUBECONFIG", "TORPOR_KUBE_REGISTRY", "TORPOR_KUBE_HOST")
Take = Callable[[Outcome], None]


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = ("path", "small", "large")
    made.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        choices=[[], *known],
        help=f"of {', '.join(known)}; none: all that can run here",
    )
    made.add_argument("--smoke", action="store_true", help="one round over small trees: does it run at all")
    made.add_argument("--rounds", type=int, help="in place of 20 for `small`, 5 for the others")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help="where all figures go (%(default)s)")
    made.add_argument("--cpu-milli", type=int, default=1000, help="of each server on a cluster (%(default)s)")
    made.add_argument(
        "--forget",
        default="",
        metavar="COMMAND",
        help="run after each round on a cluster, with a repository as its last argument: the nodes may drop their images of it",
    )
    return made


def missing(names: Sequence[str]) -> str:
    """Return what is not here of what the benchmarks need, as a sentence; empty when all is."""
    if not shutil.which("zstd"):
        return "This compares with `tar | zstd`; the program zstd is not here. On Debian: apt-get install zstd"
    if names == ["path"]:
        return ""
    for variable in CLUSTER:
        if variable not in os.environ:
            return f"`small` and `large` need a cluster: {variable} is not set."
    if not (shutil.which("podman") or shutil.which("buildah")):
        return "This compares with `podman commit`; podman is not here. On Debian: apt-get install podman"
    return ""


def chosen(asked: Sequence[str]) -> list[str]:
    """Return what to run: what is asked for, else all that can run here."""
    if asked:
        return list(dict.fromkeys(asked))
    lacking = missing(["small"])
    if lacking:
        print(lacking, file=sys.stderr)
    return ["path"] if lacking else ["path", "small", "large"]


def outcomes(names: Sequence[str], asked: argparse.Namespace, scratch: Path) -> Iterator[Outcome]:
    """Measure, and yield each outcome as it begins; its rounds fill it until the next."""
    if "path" in names:
        rounds = 1 if asked.smoke else asked.rounds or 5
        yield from sleep_path.outcomes(scratch / "path", asked.seed, rounds, smoke=asked.smoke)
    sizes = [name for name in names if name != "path"]
    if sizes:
        from benchmarks import cluster

        plan = cluster.Plan(asked.seed, asked.rounds, asked.smoke, asked.forget, asked.cpu_milli)
        yield from cluster.outcomes(sizes, plan, scratch)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write, and return the exit status. What was measured before a failure is printed and written too."""
    asked = parser().parse_args(arguments)
    names = chosen(asked.names)
    lacking = missing(names)
    if lacking:
        print(lacking)
        return 2
    facts = f"seed {asked.seed}. {report.machine()}"
    print(facts)
    found: list[Outcome] = []
    try:
        with tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder:
            for outcome in outcomes(names, asked, Path(folder)):
                found.append(outcome)
    finally:
        for outcome in found:
            print("", *report.table(outcome), sep="\n")
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {"machine": facts, "outcomes": [report.content(outcome) for outcome in found]}
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _end(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    # Else a release would be left behind.
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:]))
