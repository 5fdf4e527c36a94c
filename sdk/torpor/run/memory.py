"""What the kernel says of this container's memory. Source: cgroups(7), both versions; a container sees its own at the root."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
EVENTS = ("memory.events", "memory/memory.oom_control")
LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def kills() -> int:
    """Return how often the kernel ended a process for want of memory; 0 where it does not say."""
    for line in _first(EVENTS).splitlines():
        key, _, number = line.partition(" ")
        if key == "oom_kill" and number.isdigit():
            return int(number)
    return 0


def limit_bytes() -> int | None:
    """Return how much memory there is for this container; None where it has no limit of its own."""
    text = _first(LIMITS).strip()
    return int(text) if text.isdigit() else None


def _first(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return (ROOT / name).read_text()
        except OSError:
            continue
    return ""
