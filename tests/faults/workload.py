"""What people do while the storm goes on. Every step may fail; what was confirmed is remembered and has to last."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import websocket

from tests.support import wheels
from tests.support.people import Person

# What a person meets when the program that they talk to is killed.
BROKEN = (httpx.HTTPError, websocket.WebSocketException, AssertionError, OSError, ValueError, KeyError)
CELL_WITHIN_S = 25.0
PAUSE_S = 0.3
AWAKE, AT_REST = ("RUNNING", "UNREACHABLE"), ("ASLEEP", "STOPPED", "FAILED", "NEW")


@dataclass
class Life(threading.Thread):
    """One user with one workspace, who acts until told to stop. ``installed`` has what pip confirmed, by package."""

    person: Person
    tenant: str
    dataset: str
    draw: random.Random
    folder: Path
    workspace: str = ""
    installed: dict[str, int] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__(name=f"life of {self.person.name}", daemon=True)
        self._over = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Act until ``finish``."""
        while not self._over.is_set():
            action = self._choose()
            try:
                action()
            except BROKEN:
                self.done[f"{action.__name__} broken"] += 1
            else:
                self.done[action.__name__] += 1
            self._over.wait(self.draw.random() * PAUSE_S)

    def finish(self) -> None:
        """Stop acting, and wait for the last action."""
        self._over.set()
        self.join(3 * CELL_WITHIN_S)

    def _choose(self) -> Callable[[], None]:
        try:
            phase = self.person.status(self.workspace)["phase"]
        except BROKEN:
            return self.wait
        if phase in AWAKE:
            choices = [self.install, self.submit, self.sleep, self.sleep_and_cancel, self.submit_long, self.data]
            return self.draw.choices(choices, [4, 3, 4, 1, 1, 2])[0]
        if phase in AT_REST:
            return self.draw.choices([self.wake, self.submit, self.data], [6, 1, 1])[0]
        return self.draw.choices([self.wait, self.submit, self.data], [5, 1, 1])[0]

    # Actions

    def wait(self) -> None:
        """Do nothing for a moment."""
        self._over.wait(PAUSE_S)

    def install(self) -> None:
        """Install a package of one's own; it counts once pip has confirmed it."""
        name, value = f"p{uuid.UUID(int=self.draw.getrandbits(128)).hex[:10]}", self.draw.randrange(10**6)
        wheel = wheels.make(self.folder, name, "1.0", value)
        with self.person.kernel(self.workspace) as kernel:
            said = kernel.run(
                f"%pip install -q --no-index --no-deps {wheel}\nimport {name}; print('have', {name}.VALUE)"
            )
        assert f"have {value}" in said, said
        self.installed[name] = value

    def submit(self) -> None:
        """Submit a job that imports the newest package."""
        name, value = next(reversed(self.installed.items()), ("sys", None))
        code = f"import {name}; print({name}.VALUE)" if value is not None else "print('None')"
        job = self.person.submit(self.workspace, ["python", "-c", code])
        self.expected[job] = str(value)

    def submit_long(self) -> None:
        """Submit a job that runs for a while."""
        job = self.person.submit(self.workspace, ["sh", "-c", f"sleep {self.draw.randrange(5, 15)}; echo long"])
        self.expected[job] = "long"

    def sleep(self) -> None:
        """Put the workspace to sleep."""
        self.person.wished(self.workspace, desired="asleep")

    def sleep_and_cancel(self) -> None:
        """Put the workspace to sleep, and come back at once."""
        self.sleep()
        time.sleep(self.draw.random())
        self.wake()

    def wake(self) -> None:
        """Start or wake the workspace."""
        self.person.wished(self.workspace, desired="running")

    def data(self) -> None:
        """Import the dataset anew, look at its sample, and read its rows."""
        client = self.person.client
        client.post(f"/datasets/{self.dataset}/imports").raise_for_status()
        client.get(f"/datasets/{self.dataset}/sample?limit=3").raise_for_status()
        made = client.post(f"/datasets/{self.dataset}/reads", json={"columns": None, "filter": [], "limit": 10})
        client.get(f"/reads/{made.json()['id']}/stream", timeout=CELL_WITHIN_S).raise_for_status()
