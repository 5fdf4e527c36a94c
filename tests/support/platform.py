"""A whole platform for tests: `torpor up` on free ports and a temporary state, and oracles that never ask its api."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.support import hub
from torpor_hub.processes import ports

T = TypeVar("T")
UP_WITHIN_S = 120
DOWN_WITHIN_S = 60
TORPOR = Path(sys.executable).with_name("torpor")


def until(look: Callable[[], T], within_s: float, what: str) -> T:
    """Return the first true answer of ``look``; fail after ``within_s`` seconds, naming what was waited for."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {within_s} s still not: {what}"
        time.sleep(0.05)


def free_port() -> int:
    """Return a port that nothing listens on, and that no connection takes meanwhile."""
    return ports.choose("127.0.0.1")


@dataclass
class Platform:
    """A running `torpor up`. ``passwords`` are those that its first start showed."""

    state: Path
    port: int
    prefix: str
    environment: dict[str, str] = field(default_factory=dict)
    demo_data: bool = False
    settings: Path | None = None
    passwords: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    up_s: float = 0.0

    @property
    def url(self) -> str:
        """The public address."""
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    @property
    def api(self) -> str:
        """The public address of the api."""
        return f"{self.url}services/torpor/api/v1"

    @property
    def output(self) -> str:
        """What `torpor up` has printed to its standard output."""
        return (self.state.parent / "up.out").read_text()

    def up(self) -> Platform:
        """Start it and wait for its welcome."""
        started = time.monotonic()
        command = [str(TORPOR), "up", "--state", str(self.state), "--port", str(self.port), "--prefix", self.prefix]
        if not self.demo_data:
            command.append("--no-demo-data")
        if self.settings is not None:
            command += ["--settings", str(self.settings)]
        out, err = (self.state.parent / name for name in ("up.out", "up.err"))
        with out.open("wb") as stdout, err.open("ab") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=stdout,
                stderr=stderr,
                # The proxy has no other trace of the state folder that `processes` could find it by.
                env={**os.environ, **self.environment, "TORPOR_TESTED_STATE": str(self.state)},
                start_new_session=True,
            )
        until(lambda: self._is_ready(err), UP_WITHIN_S, "the welcome of `torpor up`")
        self.up_s = time.monotonic() - started
        self.passwords.update(re.findall(r"^  (\w+) +(\S+)$", self.output, re.MULTILINE))
        return self

    def down(self) -> None:
        """End it as Ctrl-C does, and wait for that."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(DOWN_WITHIN_S)

    def _is_ready(self, err: Path) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"`torpor up` ended: {err.read_text()[-2000:]}"
        return "Ctrl-C ends everything" in self.output  # its last line

    # People

    def token(self, user: str) -> str:
        """Return a hub token of the user."""
        return hub.token(self.url, user, self.passwords[user])

    def signed_in(self, user: str) -> AbstractContextManager[httpx.Client]:
        """Give a client with the cookies of the user's browser, below the public address."""
        return hub.signed_in(self.url, user, self.passwords[user])

    def client(self, user: str) -> httpx.Client:
        """Return a client of the api for the user."""
        return httpx.Client(base_url=self.api, headers={"Authorization": f"Bearer {self.token(user)}"}, timeout=60)

    # Oracles: the process table, files and the database itself

    def services(self) -> dict[str, int]:
        """Return the process id of each service, as the supervisor wrote it down."""
        listed = json.loads((self.state / "run" / "services.json").read_text())
        rows = listed.values() if isinstance(listed, dict) else listed
        return {str(row["name"]): int(row["pid"]) for row in rows}

    def processes(self) -> dict[int, str]:
        """Return every live process that has this state folder in its command line or environment, with its command line."""
        found = {}
        mark = os.fsencode(self.state)
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and (mark in command or mark in environment):
                found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Return rows of the database, read beside the platform."""
        connection = sqlite3.connect(f"file:{self.state / 'torpor.sqlite'}?mode=ro", uri=True, timeout=15)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]
        finally:
            connection.close()

    def held(self) -> list[str]:
        """Return the subjects of all reservations that are held now."""
        rows = self.rows("SELECT subject_id FROM reservations WHERE held_until IS NULL ORDER BY subject_id")
        return [str(row["subject_id"]) for row in rows]


@contextmanager
def platform(
    folder: Path, *, demo_data: bool = False, prefix: str = "/", settings: str = "", **environment: str
) -> Iterator[Platform]:
    """Give a running platform in ``folder``, with ``settings`` (TOML) of its own; afterwards no process of it is left."""
    made = Platform(folder / "state", free_port(), prefix, dict(environment), demo_data)
    if settings:
        made.settings = folder / "own.toml"
        made.settings.write_text(settings)
    try:
        yield made.up()
    finally:
        made.down()
        for pid in made.processes():
            os.kill(pid, signal.SIGKILL)
