"""Who is frozen, and until when: one file for each container, in a folder that outlives the agent.

Standard library only: the program that thaws reads them too.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

SUFFIX = ".json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Lease:
    """Until when a container may stay frozen: ``deadline`` in seconds of CLOCK_BOOTTIME, of the boot that ``boot`` names.

    ``owner`` is the installation whose agent wrote it; several share a node's folder. ``promised``: the platform has been told,
    or is being told, that the container is saved and stands still, and may be removing it; only the platform's word or the
    deadline thaws it then.
    """

    container: str
    operation: str
    fence: int
    deadline: float
    boot: str
    owner: str = ""
    promised: bool = False

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative after it, and in another boot."""
        return self.deadline - boot_time() if self.boot == _boot() else -1.0


FIELDS = frozenset(field.name for field in fields(Lease))


class Leases:
    """The leases in ``folder``, which is made where it is missing; those written here are of ``owner``."""

    def __init__(self, folder: Path, owner: str = "") -> None:
        self._folder = folder
        self._owner = owner
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, container: str, operation: str, fence: int, for_s: float) -> Lease:
        """Return a lease that begins now; an earlier one of the container ends."""
        return self._put(Lease(container, operation, fence, boot_time() + for_s, _boot(), self._owner))

    def promise(self, lease: Lease) -> Lease:
        """Return the lease, noted as one that the platform knows of."""
        return self._put(replace(lease, promised=True))

    def read(self, container: str) -> Lease | None:
        """Return the lease of a container; None where there is none, an expired one where it cannot be read."""
        try:
            held = json.loads((self._folder / f"{container}{SUFFIX}").read_bytes())
            # Another version may have noted more.
            return Lease(**{name: value for name, value in held.items() if name in FIELDS})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError):
            return Lease(container, "", 0, 0.0, "")

    def all(self) -> list[Lease]:
        """Return every lease, of all owners."""
        names = sorted(file.name.removesuffix(SUFFIX) for file in self._folder.glob(f"*{SUFFIX}"))
        return [lease for lease in map(self.read, names) if lease is not None]

    def is_own(self, lease: Lease) -> bool:
        """Return whether an agent of this installation wrote the lease."""
        return lease.owner == self._owner

    def end(self, container: str) -> None:
        """Remove the lease of a container, if there is one."""
        (self._folder / f"{container}{SUFFIX}").unlink(missing_ok=True)

    def _put(self, lease: Lease) -> Lease:
        partial = self._folder / f".{lease.container}.{os.getpid()}"
        partial.write_text(json.dumps(asdict(lease)))
        partial.rename(self._folder / f"{lease.container}{SUFFIX}")
        return lease


def boot_time() -> float:
    """Return seconds since the machine's boot, suspends included; the same in every container."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    return BOOT_ID.read_text().strip()
