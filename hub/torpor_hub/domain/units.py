"""Amounts of CPU and memory, and how people read them."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
STEPS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Amount:
    """CPU in thousandths of a core, memory in bytes, and whole GPUs."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    gpu_count: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.cpu_milli + other.cpu_milli, self.memory_bytes + other.memory_bytes, self.gpu_count + other.gpu_count
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.cpu_milli - other.cpu_milli, self.memory_bytes - other.memory_bytes, self.gpu_count - other.gpu_count
        )

    def fits(self, room: Amount) -> bool:
        """Return whether this amount fits into ``room``."""
        return (
            self.cpu_milli <= room.cpu_milli
            and self.memory_bytes <= room.memory_bytes
            and self.gpu_count <= room.gpu_count
        )


def cores(cpu_milli: int) -> str:
    """Return CPU as people say it: ``1 core``, ``1.5 cores``."""
    number = f"{cpu_milli / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{number} core" if number == "1" else f"{number} cores"


def gpus(count: int) -> str:
    """Return a number of GPUs as people say it: ``1 GPU``, ``2 GPUs``."""
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


def size(count_bytes: int) -> str:
    """Return bytes as people say them: ``512 B``, ``2 GiB``, ``1.5 MiB``."""
    value, step = float(count_bytes), 0
    while abs(value) >= KIB and step < len(STEPS) - 1:
        value, step = value / KIB, step + 1
    number = f"{value:.1f}".rstrip("0").rstrip(".")
    return f"{number} {STEPS[step]}"
