"""What is promised in seconds, and what a test allows."""

from __future__ import annotations

TIMES = 5


def limit(promised_s: float) -> float:
    """Return the seconds after which a promise counts as broken: five times what it says, so that a busy machine does not fail it."""
    return TIMES * promised_s
