"""Whether this program may do what a capture on a node needs. Without a right, reading would be wrong rather than fail."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from torpor_hub.errors import StartupError

DAC_READ_SEARCH, SYS_ADMIN = 2, 21
MARK = "trusted.torpor-test"


def check(folder: Path, status: Path = Path("/proc/self/status")) -> None:
    """Return when this program is root and may see every file and every attribute; ``folder`` is one that it writes to.

    Raises:
        StartupError: it may not; the text names what is missing.
    """
    if os.geteuid() != 0:
        raise StartupError("The agent has to run as uid 0: the files of the freezer belong to root.")
    held = _capabilities(status)
    missing = [
        name for bit, name in ((DAC_READ_SEARCH, "DAC_READ_SEARCH"), (SYS_ADMIN, "SYS_ADMIN")) if not held >> bit & 1
    ]
    if missing:
        raise StartupError(
            f"The agent lacks {' and '.join(missing)}: add to its container's securityContext.capabilities.add, without CAP_."
        )
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        try:
            os.setxattr(file.fileno(), MARK, b"y")
            seen = os.getxattr(file.fileno(), MARK)
        except OSError as error:
            raise StartupError(
                f"The agent cannot see the attributes of overlay file systems ({error.strerror} in {folder}): without them,"
                " deleted folders would come back. It needs SYS_ADMIN outside of a user namespace, and a folder for its leases"
                " on a file system with extended attributes."
            ) from error
    if seen != b"y":
        raise StartupError(f"The file system of {folder} does not keep attributes; put the agent's leases elsewhere.")


def _capabilities(status: Path) -> int:
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
