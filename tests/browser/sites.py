"""A platform as the test of the whole path sees it: one test, any place. Oracles read the ground truth, never our own api."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

from tests.support import trees
from tests.support.failpoints import Failpoints
from tests.support.platform import Platform

USER, TENANT = "ada", "research"
RUNS_WITHIN_S = 60


@dataclass
class Seen:
    """An environment's tree, there once the step that shows it is over."""

    tree: dict[str, trees.Entry] = field(default_factory=dict)


class Site(Protocol):
    """A running platform with the flights, for one user of one tenant."""

    @property
    def url(self) -> str:
        """The public address."""

    @property
    def passwords(self) -> dict[str, str]:
        """The password of each user."""

    @property
    def fewest_entries(self) -> int:
        """How many files and folders an environment has at least: fewer were not all of it."""

    def client(self, user: str) -> httpx.Client:
        """Return a client of the api for the user."""

    def workspace(self, name: str) -> str:
        """Return a workspace's id, from the database."""

    def held(self) -> list[str]:
        """Return the subjects of all reservations that are held now, from the database."""

    def put_home(self, name: str, content: bytes) -> str:
        """Write a file into the user's home, as an upload would; return its path as notebooks see it."""

    def data(self, name: str) -> tuple[Path, str]:
        """Return a folder of data as this test writes and reads it, and as a source names it."""

    def sleeping(self, workspace: str) -> AbstractContextManager[Seen]:
        """Give the tree of the environment as it is saved; the sleep is asked for inside."""

    def waking(self, workspace: str) -> AbstractContextManager[Seen]:
        """Give the tree of the environment as it is restored, before a process runs on it; the wake is asked for inside."""

    def left(self, workspace: str) -> list[str]:
        """Return what is still there of a workspace that sleeps: processes, folders, pods."""


@dataclass
class ProcessSite:
    """`torpor up` on this machine."""

    platform: Platform
    failpoints: Failpoints
    fewest_entries: int = 20

    @property
    def url(self) -> str:
        return self.platform.url

    @property
    def passwords(self) -> dict[str, str]:
        return self.platform.passwords

    def client(self, user: str) -> httpx.Client:
        return self.platform.client(user)

    def workspace(self, name: str) -> str:
        return str(self.platform.rows("SELECT id FROM workspaces WHERE name = ?", name)[0]["id"])

    def held(self) -> list[str]:
        return self.platform.held()

    def put_home(self, name: str, content: bytes) -> str:
        file = self.platform.state / "homes" / TENANT / USER / name
        file.write_bytes(content)
        return str(file)

    def data(self, name: str) -> tuple[Path, str]:
        folder = self.platform.state / "data" / name
        folder.mkdir(exist_ok=True)
        return folder, str(folder)

    @contextmanager
    def sleeping(self, workspace: str) -> Iterator[Seen]:
        with self._at("sleep.before_remove", workspace) as seen:
            yield seen

    @contextmanager
    def waking(self, workspace: str) -> Iterator[Seen]:
        with self._at("start.prepared", workspace) as seen:
            yield seen

    def left(self, workspace: str) -> list[str]:
        servers = [line for line in self.platform.processes().values() if "singleuser" in line or "ipykernel" in line]
        folder = self._environment(workspace)
        return [*servers, *([str(folder)] if folder.exists() else [])]

    @contextmanager
    def _at(self, failpoint: str, workspace: str) -> Iterator[Seen]:
        """List the tree while the platform stands still at a step."""
        seen, before = Seen(), self.failpoints.hits(failpoint)
        self.failpoints.arm(failpoint, "pause")
        yield seen
        self.failpoints.reached(failpoint, before, RUNS_WITHIN_S)
        seen.tree.update(trees.listing(self._environment(workspace)))
        self.failpoints.disarm(failpoint)

    def _environment(self, workspace: str) -> Path:
        return self.platform.state / "workspaces" / workspace / "env"
