"""Arming failpoints in running programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.platform import until


@dataclass(frozen=True)
class Failpoints:
    """A folder of failpoints, given to programs by the variable TORPOR_FAILPOINTS."""

    folder: Path

    def arm(self, point: str, action: str) -> None:
        """Let the next hit of ``point`` do ``action``."""
        draft = self.folder / f".{point}"
        draft.write_text(action)
        draft.rename(self.folder / point)

    def disarm(self, point: str) -> None:
        """Let a program that waits at ``point`` go on."""
        (self.folder / point).unlink(missing_ok=True)

    def hits(self, point: str) -> int:
        """Return how often programs have come to ``point``."""
        log = self.folder / "hits.log"
        return sum(line.split()[2] == point for line in log.read_text().splitlines()) if log.exists() else 0

    def reached(self, point: str, before: int, within_s: float) -> None:
        """Return once ``point`` was hit more often than ``before``."""
        until(lambda: self.hits(point) > before, within_s, f"the failpoint {point}")
