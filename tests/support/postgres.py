"""A PostgreSQL server of the tests' own: Debian's programs, a folder under /tmp, a socket, no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ACCOUNT = "postgres"


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def _as_server(command: list[str]) -> None:
    """Run a program of PostgreSQL, which refuses to be root."""
    before = ["runuser", "-u", ACCOUNT, "--"] if os.geteuid() == 0 else []
    subprocess.run([*before, *command], check=True, capture_output=True, cwd="/")


@contextmanager
def running() -> Iterator[str]:
    """Give the SQLAlchemy URL of a running, empty server."""
    folder = Path(tempfile.mkdtemp(prefix="torpor-pg-"))
    found = programs()
    assert found is not None, "PostgreSQL's programs are not installed; `make test` installs them"
    if os.geteuid() == 0:
        account = pwd.getpwnam(ACCOUNT)
        os.chown(folder, account.pw_uid, account.pw_gid)
    cluster = folder / "cluster"
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=50"
    try:
        _as_server([str(found / "initdb"), "-D", str(cluster), "-U", "torpor", "-A", "trust", "-E", "UTF8"])
        log = str(folder / "log")
        _as_server([str(found / "pg_ctl"), "-D", str(cluster), "-w", "-l", log, "-o", options, "start"])
        yield f"postgresql+psycopg://torpor@/{{database}}?host={folder}"
    finally:
        _as_server([str(found / "pg_ctl"), "-D", str(cluster), "-m", "immediate", "stop"])
        shutil.rmtree(folder, ignore_errors=True)
