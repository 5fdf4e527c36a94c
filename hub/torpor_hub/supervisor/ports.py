"""The ports of the platform's inner services: chosen free once, then kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torpor_hub.errors import PlaceError, StartupError
from torpor_hub.processes.files import write_atomically
from torpor_hub.processes.ports import choose, is_free


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
    try:
        return choose(host, taken)
    except PlaceError as error:
        raise StartupError(str(error)) from error
