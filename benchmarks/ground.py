"""What all ways share: nodes that are chosen by a label, and a server that is there once it answers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx

from tests.cluster import kubectl

# Two runs at a time do not meet.
RUN = f"bench-{secrets.token_hex(2)}"
# No node is cordoned: others' pods go where they always do.
LABEL = f"torpor-{RUN}"
SELECTOR = {LABEL: "here"}
WITHIN_S = 300.0
POLL_S = 0.03
T = TypeVar("T")


@dataclass(frozen=True)
class Nodes:
    """The nodes that answer."""

    names: tuple[str, ...]

    def pair(self, number: int) -> tuple[str, str]:
        """Return the node of a round, and another."""
        return self.names[number % len(self.names)], self.names[(number + 1) % len(self.names)]

    def choose(self, *chosen: str) -> None:
        """Let what is started from now on go to these nodes only; to no node's name: what is measured here is over."""
        for name in self.names:
            label = f"{LABEL}={SELECTOR[LABEL]}" if name in chosen else f"{LABEL}-"
            kubectl.run("label", "node", name, label, "--overwrite")


def ready_nodes() -> Nodes:
    """Return the nodes that answer."""
    names = []
    for node in kubectl.items("nodes"):
        conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
        if conditions.get("Ready") == "True" and not node["spec"].get("unschedulable"):
            names.append(str(node["metadata"]["name"]))
    return Nodes(tuple(names))


def until(look: Callable[[], T], what: str, within_s: float = WITHIN_S) -> T:
    """Return the first true answer of ``look``.

    Raises:
        TimeoutError: when there is none within ``within_s`` seconds; it says ``what`` was waited for.
    """
    deadline = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within {within_s:.0f} s: {what}")
        time.sleep(POLL_S)
    return found


def answers(client: httpx.Client, url: str) -> bool:
    """Whether there is an answer 200 now."""
    try:
        return client.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
