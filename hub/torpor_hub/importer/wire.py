"""The importer's side of the REST api."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from torpor_hub.errors import PlatformError, StaleFence, Unavailable

LOG = logging.getLogger(__name__)
ANSWER_S = 30.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
# After this time without an answer the claim has long gone to another importer.
GIVE_UP_S = 120.0

T = TypeVar("T")


@dataclass(frozen=True)
class Uploaded:
    """What the api took of a file."""

    size_bytes: int
    sha256: str


def pauses() -> Callable[[], float]:
    """Return what gives the next pause before another try: doubled each time, with some chance in it."""
    step = FIRST_PAUSE_S

    def next_pause() -> float:
        nonlocal step
        step = min(LONGEST_PAUSE_S, 2 * step)
        return step * random.uniform(0.5, 1)  # noqa: S311 - no secret

    return next_pause


class Api:
    """The routes that an importer uses, with a token that renews itself.

    ``proof`` returns what proves the importer to the api; it is asked at each renewal, because it may be renewed itself.
    """

    def __init__(self, url: str, proof: Callable[[], str]) -> None:
        self._proof = proof
        self._token = ""
        self._client = httpx.AsyncClient(base_url=url, timeout=ANSWER_S, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def claim(self, importer: str, wait_s: float) -> dict[str, Any] | None:
        """Return a task, or None when there was none for ``wait_s`` seconds.

        Raises:
            Unavailable: when the api does not answer.
        """
        body = {"importer": importer, "wait_s": wait_s}
        answer = await self._send("POST", "/import-claims", json=body, timeout=wait_s + ANSWER_S)
        return None if answer.status_code == 204 else dict(answer.json())

    async def progress(self, task: str, body: Mapping[str, Any]) -> bool:
        """Report where a task is, and return whether it is to be cancelled.

        Raises:
            StaleFence: when the task belongs to another claim by now.
            Unavailable: when the api does not answer.
        """
        answer = await self._send("PUT", f"/import-claims/{task}/progress", json=body)
        return bool(answer.json()["cancel"])

    async def upload(self, task: str, fence: int, name: str, content: bytes) -> Uploaded:
        """Send a file of a task; repeated until the api answers.

        Raises:
            StaleFence: when the task belongs to another claim by now.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        headers = {"Torpor-SHA256": sha256, "Torpor-Fence": str(fence), "Content-Type": "application/octet-stream"}
        path = f"/import-claims/{task}/uploads/{name}"
        await until_answered(lambda: self._send("PUT", path, content=content, headers=headers))
        return Uploaded(len(content), sha256)

    async def result(self, task: str, body: Mapping[str, Any]) -> None:
        """Report what a task found; repeated until the api answers.

        Raises:
            StaleFence: when the task belongs to another claim by now.
        """
        await until_answered(lambda: self._send("PUT", f"/import-claims/{task}/result", json=body))

    async def failure(self, task: str, body: Mapping[str, Any]) -> None:
        """Report why a task failed; repeated until the api answers.

        Raises:
            StaleFence: when the task belongs to another claim by now.
        """
        await until_answered(lambda: self._send("PUT", f"/import-claims/{task}/failure", json=body))

    async def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        answer = await self._try(method, path, **arguments)
        if answer.status_code == 401:
            self._token = ""
            answer = await self._try(method, path, **arguments)
        if answer.status_code in (404, 409):
            raise StaleFence(f"The task of {path} belongs to another claim by now.")
        if answer.status_code >= 500 or answer.status_code in (401, 403, 429):
            raise Unavailable(f"The api answers {answer.status_code} to {method} {path}.")
        if answer.is_error:
            raise PlatformError(f"The api refuses {method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer

    async def _try(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {**arguments.pop("headers", {}), "Torpor-Wire": "1"}
        try:
            if not self._token:
                self._token = await self._new_token()
            headers["Authorization"] = f"Bearer {self._token}"
            return await self._client.request(method, path, headers=headers, **arguments)
        except httpx.TransportError as error:
            raise Unavailable(f"The api does not answer {method} {path}: {error!r}") from error

    async def _new_token(self) -> str:
        body = {"component": "importer", "proof": self._proof()}
        answer = await self._client.post("/component-tokens", json=body)
        if answer.is_error:
            raise Unavailable(f"The api gives the importer no token: {answer.status_code} {answer.text[:300]}")
        return str(answer.json()["token"])


async def until_answered(send: Callable[[], Awaitable[T]]) -> T:
    """Return the first answer; while the api is away, pause and try again, for two minutes in all.

    Raises:
        Unavailable: when it stayed away.
    """
    pause, loop = pauses(), asyncio.get_running_loop()
    end = loop.time() + GIVE_UP_S
    while True:
        try:
            return await send()
        except Unavailable as error:
            if loop.time() > end:
                raise
            LOG.warning("%s Trying again.", error)
            await asyncio.sleep(pause())
