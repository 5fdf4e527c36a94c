"""A release of its own on a cluster, and a workspace's life there in alternating rounds beside its peers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import payloads, saves, starts
from benchmarks.ground import RUN, SELECTOR, Nodes, ready_nodes
from benchmarks.life import FROZEN, SAVED, SLEEP, START, WAKE_HERE, WAKE_THERE, Life
from benchmarks.payloads import Payload
from benchmarks.report import Outcome
from tests.cluster import kubectl, release
from tests.cluster.release import Release

RELEASE = Release(RUN, RUN)
# Below the release's prefix: it goes with the release.
PEERS = f"{RELEASE.prefix}peers"
GIB = 1024**3
ROUNDS = {"small": 20, "large": 5}
Measure = Callable[[int], Mapping[str, float]]


@dataclass(frozen=True)
class Plan:
    """What is asked for. ``forget`` is that of ``Life``."""

    seed: int
    rounds: int | None
    smoke: bool
    forget: str
    cpu_milli: int

    @property
    def profile(self) -> dict[str, Any]:
        """What all servers of a round have."""
        return {
            "name": "small",
            "title": "Small",
            "default": True,
            "cpu_milli": self.cpu_milli,
            "memory_bytes": 2 * GIB,
        }

    def rounds_of(self, name: str) -> int:
        """Return how many rounds a payload has."""
        return 1 if self.smoke else self.rounds or ROUNDS[name]


@dataclass(frozen=True)
class Parties:
    """All that take part in a round, and where."""

    nodes: Nodes
    life: Life
    stock: starts.StockHub
    bare: starts.BarePod
    commit: saves.Commit


def outcomes(names: Sequence[str], plan: Plan, scratch: Path) -> Iterator[Outcome]:
    """Yield the outcome of each payload, and fill it round by round."""
    with parties(plan, scratch) as every:
        for name in names:
            payload = payloads.make(name, scratch / name, plan.seed, smoke=plan.smoke)
            outcome = Outcome(f"A workspace's life with {payload.title} installed", pairs())
            yield outcome
            measures = ways(every, scratch, payload)
            for number in range(-1 if not plan.smoke else 0, plan.rounds_of(name)):
                measured = one_round(every.nodes, measures, number)
                print(f"{name} {number + 1}: {_said(measured)}", file=sys.stderr, flush=True)
                # The one before the first fills caches.
                if number >= 0:
                    outcome.add(measured)


def pairs() -> list[tuple[str, str]]:
    """Return what is compared with what."""
    commit = saves.commit_way()
    return [
        *((START, peer) for peer in (starts.STOCK, starts.BARE)),
        *((own, peer) for own in (SLEEP, SAVED, FROZEN) for peer in (commit, saves.ARCHIVE)),
        *((own, starts.STOCK) for own in (WAKE_HERE, WAKE_THERE)),
    ]


def ways(every: Parties, scratch: Path, payload: Payload) -> list[Measure]:
    """Return what a round consists of."""
    return [
        lambda number: every.life.measure(number, payload),
        lambda _: every.stock.measure(),
        lambda _: every.bare.measure(),
        lambda _: every.commit.measure(scratch, payload),
        lambda _: saves.archive(scratch, payload),
    ]


def one_round(nodes: Nodes, measures: Sequence[Measure], number: int) -> dict[str, float]:
    """Measure all once, each on the round's node; who goes first changes from round to round."""
    first = number % len(measures)
    found: dict[str, float] = {}
    for measure in [*measures[first:], *measures[:first]]:
        nodes.choose(nodes.pair(number)[0])
        os.sync()
        found |= measure(number)
    return found


@contextmanager
def parties(plan: Plan, scratch: Path) -> Iterator[Parties]:
    """Give the platform, installed for this, and its peers; afterwards nothing of them is left."""
    values: dict[str, Any] = {
        "data": {"enabled": False},
        "tenants": {"nodeSelector": SELECTOR},
        "seed": {"profiles": [plan.profile]},
    }
    with ExitStack() as stack:
        nodes = stack.enter_context(chosen_nodes())
        site = stack.enter_context(release.installed("/", RELEASE, **values))
        life = stack.enter_context(closing(Life(site, nodes, plan.forget)))
        shape = life.look()
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PEERS}})
        commit = stack.enter_context(closing(saves.Commit(shape.image, site.registry)))
        stock = stack.enter_context(closing(starts.StockHub(scratch / "stock", PEERS, shape)))
        stock.start()
        yield Parties(nodes, life, stock, starts.BarePod(PEERS, shape), commit)


@contextmanager
def chosen_nodes() -> Iterator[Nodes]:
    """Give the nodes, all of which take workspaces; afterwards none has a mark of it."""
    nodes = ready_nodes()
    if len(nodes.names) < 2:
        raise SystemExit("A wake on another node needs a cluster with two nodes that answer.")
    try:
        nodes.choose(*nodes.names)
        yield nodes
    finally:
        nodes.choose()


def _said(measured: Mapping[str, float]) -> str:
    return ", ".join(f"{way} {seconds:.2f} s" for way, seconds in measured.items())
