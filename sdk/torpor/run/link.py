"""The wrapper's line to the api: every request is repeated until it is answered, so a restart of the api loses nothing."""

from __future__ import annotations

import hashlib
import math
import random
import time
from typing import Any

import httpx

from torpor.run.attempt import Attempt, Outcome

WIRE = "1"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
TIMEOUT = httpx.Timeout(30, connect=5)
MAY_PASS = frozenset({401, 403, 408, 425, 429})


class RefusedError(Exception):
    """The api will not take it, now or later: the job is gone, or another attempt has taken over."""


class UndeliveredError(Exception):
    """The api did not answer for as long as the wrapper was willing to wait."""


class Link:
    """Requests of one attempt. ``give_up_at`` (monotonic seconds) may be set at any time by any thread."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.give_up_at = math.inf
        self._client = httpx.Client(
            base_url=f"{attempt.url}api/v1/jobs/{attempt.job}/attempts/{attempt.number}/",
            headers={"Authorization": f"Bearer {attempt.token}", "Torpor-Wire": WIRE},
            timeout=TIMEOUT,
            trust_env=False,
        )

    def give_up_in(self, seconds: float) -> None:
        """Let every request, also one that is being repeated now, give up after ``seconds``."""
        self.give_up_at = time.monotonic() + seconds

    def task(self) -> dict[str, Any]:
        """Return what is to be done."""
        task: dict[str, Any] = self._send("GET", "task").json()
        return task

    def bundle(self) -> bytes:
        """Return the submitted code."""
        return self._send("GET", "bundle").content

    def heartbeat(self) -> str:
        """Say that the code runs; return what the owner wishes: ``running`` or ``cancelled``."""
        return str(self._send("PUT", "state", json={"state": "running"}).json()["desired"])

    def log(self, offset: int, segment: bytes) -> None:
        """Store a piece of the log that begins at ``offset`` bytes."""
        self._upload(f"logs/{self._attempt.rank}/{offset}", segment)

    def result(self, content: bytes) -> None:
        """Store the pickled result."""
        self._upload("result", content)

    def exit(self, outcome: Outcome) -> None:
        """Report the end."""
        self._send("PUT", "exit", json={"rank": self._attempt.rank, **outcome.to_json()})

    def _upload(self, path: str, content: bytes) -> None:
        headers = {"Torpor-SHA256": hashlib.sha256(content).hexdigest(), "Content-Type": "application/octet-stream"}
        self._send("PUT", path, content=content, headers=headers)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        pause = FIRST_PAUSE_S
        while True:
            try:
                answer = self._client.request(method, path, **options)
            except httpx.TransportError as error:
                trouble = str(error) or type(error).__name__
            else:
                if answer.is_success:
                    return answer
                trouble = f"{answer.status_code} {answer.text[:500]}"
                if answer.is_client_error and answer.status_code not in MAY_PASS:
                    raise RefusedError(trouble)
            if time.monotonic() + pause >= self.give_up_at:
                raise UndeliveredError(f"{method} {path}: {trouble}")
            time.sleep(pause * random.uniform(0.7, 1.0))  # noqa: S311 - spreads repeats
            pause = min(2 * pause, LONGEST_PAUSE_S)
