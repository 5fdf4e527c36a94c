"""Amounts of CPU, memory and time as people write and read them."""

from __future__ import annotations

import re
from collections.abc import Mapping

MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B?|B|)\s*", re.IGNORECASE)
STEPS = ("B", "KiB", "MiB", "GiB", "TiB")


def parse_memory(memory: str | int) -> int:
    """Return bytes for ``"2GiB"``, ``"512 MiB"`` or a number of bytes. ``GB`` is 1000**3 and ``G`` is ``GiB``.

    Raises ValueError for anything else.
    """
    if isinstance(memory, int):
        return memory
    match = MEMORY.fullmatch(memory)
    if match is None:
        raise ValueError(
            f"Memory {memory!r} is not an amount. Write it like '2GiB', '512 MiB', or as a number of bytes."
        )
    number, unit = match.groups()
    decimal = len(unit) == 2 and unit[1].upper() == "B"
    power = "BKMGT".index(unit[0].upper()) if unit else 0
    step: int = 1000 if decimal else 1024
    return round(float(number) * float(step) ** power)


def size(count_bytes: float) -> str:
    """Return bytes as people say them: ``512 B``, ``2 GiB``, ``1.5 MiB``."""
    value, step = float(count_bytes), 0
    while abs(value) >= 1024 and step < len(STEPS) - 1:
        value, step = value / 1024, step + 1
    return f"{value:.1f}".removesuffix(".0") + f" {STEPS[step]}"


def cores(cpu_milli: int) -> str:
    """Return CPU as people say it: ``1 core``, ``1.5 cores``."""
    number = f"{cpu_milli / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{number} core" if number == "1" else f"{number} cores"


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``8 s``, ``2 min 5 s``, ``3 h 4 min``, ``2 d 3 h``."""
    whole = max(0, int(seconds))
    for large, small, step in ((86400, 3600, "d h"), (3600, 60, "h min"), (60, 1, "min s")):
        if whole >= large:
            first, second = step.split()
            rest = whole % large // small
            return f"{whole // large} {first}" + (f" {rest} {second}" if rest else "")
    return f"{whole} s"


def amount(document: Mapping[str, int]) -> str:
    """Return an amount of the API as people say it: ``1 core, 2 GiB, 1 GPU``; empty for none."""
    if not document:
        return ""
    gpus = document.get("gpu_count", 0)
    parts = [cores(document.get("cpu_milli", 0)), size(document.get("memory_bytes", 0))]
    return ", ".join([*parts, f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs"] if gpus else parts)
