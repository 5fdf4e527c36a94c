"""How often to ask while waiting, and when to stop."""

from __future__ import annotations

import time

FIRST_S = 0.1
LONGEST_S = 2.0
GROWTH = 1.5


class Pace:
    """Rests that grow from a tenth of a second to two, up to one deadline ``timeout_s`` from now (None: none)."""

    def __init__(self, timeout_s: float | None) -> None:
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._pause_s = FIRST_S

    def rest(self) -> bool:
        """Rest before the next question. Returns False, at once, when the deadline has passed."""
        left_s = LONGEST_S if self._ends_at is None else self._ends_at - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(self._pause_s, left_s))
        self._pause_s = min(self._pause_s * GROWTH, LONGEST_S)
        return True
