"""Nodes that an admin empties: which of their workspaces go to sleep next, and what their owners are told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from torpor_hub.domain.diagnose import Cause

AT_ONCE_PER_NODE = 2
AGAIN_AFTER_S = 60.0
# The phase of one that was chosen tells of it only once its sleep has begun.
BEGINS_WITHIN_S = 5.0
REASON = "NODE_DRAINING"
BECAUSE = "its node was being emptied by an admin"
GOES_TO_SLEEP = Cause(
    REASON, "Going to sleep: its node is being emptied by an admin, and the environment is being saved.", ""
)
ASLEEP = Cause(
    REASON,
    "Asleep: its node is being emptied by an admin; the environment is saved, nothing is held.",
    "Wake it when you like.",
)
CANNOT_SLEEP = Cause(
    REASON,
    "Its node is being emptied by an admin. What is installed here cannot be saved, because this platform has no image "
    "registry; it ends with the node.",
    "Save open notebooks: files in the home stay. Stop it, and start it again; it will be on another node.",
)


class Drains:
    """Chooses, a few per node at once, who goes to sleep; one whose sleep did not come to its end waits before the next try."""

    def __init__(self) -> None:
        self._tried_s: dict[str, float] = {}

    def choose(self, waiting: Mapping[str, str], sleeping: Mapping[str, str], now_s: float) -> frozenset[str]:
        """Return whose sleep begins now, who was tried longest ago first.

        ``waiting`` and ``sleeping`` have the node of each workspace, by its id; ``now_s`` only ever grows.
        """
        known = self._tried_s.items()
        self._tried_s = {
            key: now_s if key in sleeping else tried for key, tried in known if key in {**waiting, **sleeping}
        }
        begun = {key: node for key, node in waiting.items() if self._was_tried(key, now_s, BEGINS_WITHIN_S)}
        busy = Counter({**sleeping, **begun}.values())
        ready = [key for key in waiting if not self._was_tried(key, now_s, AGAIN_AFTER_S)]
        chosen = set()
        for key in sorted(ready, key=lambda key: (self._tried_s.get(key, -math.inf), key)):
            if busy[waiting[key]] < AT_ONCE_PER_NODE:
                busy[waiting[key]] += 1
                chosen.add(key)
        self._tried_s |= dict.fromkeys(chosen, now_s)
        return frozenset(chosen)

    def _was_tried(self, key: str, now_s: float, within_s: float) -> bool:
        return now_s - self._tried_s.get(key, -math.inf) < within_s
