"""A PostgreSQL server of the tests' own: Debian's programs, a folder under /tmp, a socket, and a port only where one is asked for."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "postgres"


@dataclass(frozen=True)
class Door:
    """An address at which a server answers beside its socket, to a network and with passwords."""

    host: str
    port: int
    network: str


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def _as_server(command: list[str]) -> None:
    """Run a program of PostgreSQL, which refuses to be root."""
    before = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
    subprocess.run([*before, *command], check=True, capture_output=True, cwd="/")


@contextmanager
def running(door: Door | None = None) -> Iterator[str]:
    """Give the SQLAlchemy URL of a running, empty server, by its socket."""
    folder = Path(tempfile.mkdtemp(prefix="torpor-pg-"))
    found = programs()
    assert found is not None, "PostgreSQL's programs are not installed; `make test` installs them"
    if os.geteuid() == 0:
        account = pwd.getpwnam(ACCOUNT)
        os.chown(folder, account.pw_uid, account.pw_gid)
    cluster = folder / "cluster"
    options = f"-c unix_socket_directories={folder} -c fsync=off -c max_connections=50 -c listen_addresses="
    socket = f"postgresql+psycopg://torpor@/{{database}}?host={folder}"
    try:
        _as_server([str(found / "initdb"), "-D", str(cluster), "-U", "torpor", "-A", "trust", "-E", "UTF8"])
        if door is not None:
            with (cluster / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {door.network} scram-sha-256\n")
            options, socket = f"{options}{door.host} -c port={door.port}", f"{socket}&port={door.port}"
        log = str(folder / "log")
        _as_server([str(found / "pg_ctl"), "-D", str(cluster), "-w", "-l", log, "-o", options, "start"])
        yield socket
    finally:
        _as_server([str(found / "pg_ctl"), "-D", str(cluster), "-m", "immediate", "stop"])
        shutil.rmtree(folder, ignore_errors=True)
