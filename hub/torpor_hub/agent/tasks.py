"""The agent's side of the HTTP contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from torpor_hub.errors import StaleFence, Unavailable

TIMEOUT_S = 60
RENEW_BEFORE_S = 120
TOKEN_S = 900
WAIT_S = 20
AGAIN_S = 1.0


class Tasks:
    """Claims captures and reports on them, with a token that is renewed before it ends.

    ``proof`` returns what proves the agent to the api; it is asked at each renewal, because it may be renewed itself.
    """

    def __init__(
        self, api_url: str, proof: Callable[[], str], *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._client = httpx.AsyncClient(base_url=api_url, timeout=TIMEOUT_S, transport=transport)
        self._proof = proof
        self._token = ""
        self._renew_at = 0.0

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def claim(self, agent: str, node: str) -> Mapping[str, Any] | None:
        """Return the next capture, or None when there is none for now.

        Raises:
            Unavailable: when the api does not answer.
        """
        body = {"agent": agent, "node": node, "wait_s": WAIT_S}
        answer = await self._send("POST", "/capture-claims", body)
        return None if answer.status_code == 204 else dict(answer.json())

    async def progress(self, operation: str, body: Mapping[str, Any]) -> bool:
        """Report progress; return whether to give up.

        Raises:
            StaleFence: when another agent has taken over.
            Unavailable: when the api does not answer.
        """
        answer = await self._send("PUT", f"/capture-claims/{operation}/progress", body)
        return bool(answer.json()["cancel"])

    async def may_thaw(self, operation: str, fence: int) -> bool:
        """Return whether to thaw what was left frozen for its removal; False where that has begun.

        Raises:
            StaleFence: when another agent has taken over.
            Unavailable: when the api does not answer.
        """
        return bool((await self._send("PUT", f"/capture-claims/{operation}/thawed", {"fence": fence})).json()["thaw"])

    async def report(
        self, operation: str, kind: str, body: Callable[[], Mapping[str, Any]], *, within_s: float
    ) -> Mapping[str, Any]:
        """Report the result or the failure, again and again while the api is away; ``body`` is asked each time.

        Raises:
            StaleFence: when another agent has taken over.
            Unavailable: when the api did not answer for ``within_s`` seconds.
        """
        deadline = time.monotonic() + within_s
        while True:
            try:
                return dict((await self._send("PUT", f"/capture-claims/{operation}/{kind}", body())).json())
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(AGAIN_S)

    async def _send(self, method: str, path: str, body: Mapping[str, Any]) -> httpx.Response:
        try:
            if time.monotonic() > self._renew_at:
                await self._renew()
            answer = await self._client.request(
                method, path, json=dict(body), headers={"Authorization": f"Bearer {self._token}"}
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"The api does not answer: {error!r}.") from error
        if answer.status_code == 401:
            self._renew_at = 0.0
        if answer.status_code == 409:
            raise StaleFence(str(answer.json().get("detail", "The capture was given to another agent.")))
        if answer.status_code >= 400:
            raise Unavailable(f"The api answered {answer.status_code} to {method} {path}.")
        return answer

    async def _renew(self) -> None:
        answer = await self._client.post("/component-tokens", json={"component": "agent", "proof": self._proof()})
        answer.raise_for_status()
        self._token = str(answer.json()["token"])
        self._renew_at = time.monotonic() + TOKEN_S - RENEW_BEFORE_S
