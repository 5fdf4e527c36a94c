"""Why a workspace failed or ended: one pure function for the spawner's progress and the controller's status alike."""

from __future__ import annotations

from dataclasses import dataclass

SIGNALS = {9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM", 6: "SIGABRT", 7: "SIGBUS"}


@dataclass(frozen=True)
class Cause:
    """A stable reason, a sentence, and the next step."""

    reason: str
    message: str
    next_step: str


def diagnose(exit_code: int | None, log: str, *, had_answered: bool, kept: bool = True) -> Cause:
    """Return why a server's process ended. ``exit_code`` is negative for a signal, None where nobody saw the end.

    ``kept``: what had not been saved of its environment is still there.
    """
    last = _last_line(log)
    again = "Start it again: its environment was kept." if kept else "Start it again."
    if "ModuleNotFoundError" in log or "ImportError" in log:
        return Cause(
            "BROKEN_ENVIRONMENT",
            f"The server could not load a package: {last}",
            "Start with the previous environment, or with the profile's own.",
        )
    if "No space left on device" in log:
        return Cause("DISK_FULL", "The disk is full.", "Free some space, then start again.")
    if exit_code is None:
        return Cause("LOST", "The server's process is gone; nobody saw its end.", again)
    if exit_code < 0:
        name = SIGNALS.get(-exit_code, f"signal {-exit_code}")
        return Cause("KILLED", f"The server was ended by {name}.", again)
    if exit_code == 0 and had_answered:
        return Cause("SHUT_DOWN", "The server was shut down from inside.", again)
    return Cause(
        "CRASHED", f"The server ended with exit code {exit_code}: {last}", "Read its log, then start it again."
    )


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it wrote no log."
