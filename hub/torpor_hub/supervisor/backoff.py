"""How long to wait before a service that died is started again."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_S = 0.2
LONGEST_S = 5.0
HEALTHY_S = 30.0


@dataclass(frozen=True)
class Backoff:
    """The wait before the next start, in seconds: doubled at each death, forgotten after half a minute of life."""

    delay_s: float = FIRST_S

    def after_death(self, lived_s: float) -> tuple[float, Backoff]:
        """Return the wait before the next start of a service that lived so long, and the state after it."""
        delay_s = FIRST_S if lived_s >= HEALTHY_S else self.delay_s
        return delay_s, replace(self, delay_s=min(2 * delay_s, LONGEST_S))
