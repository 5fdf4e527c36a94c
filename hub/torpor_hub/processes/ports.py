"""Free ports of this machine, outside the range from which it takes those of its own connections."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from torpor_hub.errors import PlaceError

# Below Linux's range for outgoing connections, which could take a port between its choice and its use.
RANGE = range(20_000, 32_000)
ATTEMPTS = 500


def is_free(host: str, port: int) -> bool:
    """Return whether a program could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose(host: str, taken: Collection[int] = ()) -> int:
    """Return a port that is free now and not among ``taken``.

    Raises:
        PlaceError: when none was found.
    """
    for _ in range(ATTEMPTS):
        port = random.choice(RANGE)  # noqa: S311 - no secret
        if port not in taken and is_free(host, port):
            return port
    raise PlaceError(f"No free port between {RANGE.start} and {RANGE.stop} on {host}. End programs that listen there.")
