"""The ports of the platform's inner services: chosen free once, then kept."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

from torpor_hub.errors import StartupError
from torpor_hub.processes.files import write_atomically

# Below Linux's range for outgoing connections, which could take a port while its service restarts.
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


def require_free(host: str, port: int) -> None:
    """Make sure that the port that people use can be had.

    Raises:
        StartupError: when another program listens there; the text names a port that is free.
    """
    if is_free(host, port):
        return
    other = next((near for near in range(port + 1, min(port + 200, 65_536)) if is_free(host, near)), None)
    remedy = f"--port {other}" if other else "--port with another number"
    raise StartupError(
        f"Port {port} on {host} cannot be used: another program listens there. Choose another port: {remedy}"
    )


def keep(file: Path, names: Sequence[str], host: str = "127.0.0.1") -> dict[str, int]:
    """Return a free port for each name: the one in ``file`` where it is still free, else a new one, written there.

    Raises:
        StartupError: when no free port can be found.
    """
    kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    ports: dict[str, int] = {}
    for name in names:
        port = kept.get(name)
        ports[name] = (
            port if port is not None and is_free(host, port) else _choose(host, {*kept.values(), *ports.values()})
        )
    if ports != kept:
        write_atomically(file, (json.dumps(ports, indent=2) + "\n").encode())
    return ports


def _choose(host: str, taken: set[int]) -> int:
    for _ in range(ATTEMPTS):
        port = random.choice(RANGE)  # noqa: S311 - no secret
        if port not in taken and is_free(host, port):
            return port
    raise StartupError(
        f"No free port between {RANGE.start} and {RANGE.stop} on {host}. End programs that listen there."
    )
