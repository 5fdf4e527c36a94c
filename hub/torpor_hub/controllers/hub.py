"""Calling the hub: it starts servers and leads to them, and that is all we ask of it."""

from __future__ import annotations

import httpx

from torpor_hub.errors import Unavailable

TIMEOUT_S = 15
STARTED = (201, 202)
PENDING = (400, 409)


class Hub:
    """The hub's REST api, with the platform's service token."""

    def __init__(self, api_url: str, token: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=api_url, timeout=TIMEOUT_S, headers={"Authorization": f"Bearer {token}"}
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def start(self, user: str, server: str) -> None:
        """Ask the hub to start (or adopt) a server; one that it starts or runs already is success.

        Raises:
            Unavailable: when the hub does not answer, or cannot do it now.
        """
        try:
            answer = await self._client.post(f"/users/{user}/servers/{server}", json={})
        except httpx.HTTPError as error:
            raise Unavailable("The hub does not answer.", next_step="It is asked again in a moment.") from error
        if answer.status_code == 404:
            raise Unavailable(
                f"The hub does not know '{user}' yet.",
                next_step="It does from the next sign-in on; then the server is started.",
            )
        if answer.status_code not in STARTED + PENDING:
            raise Unavailable(
                f"The hub answered {answer.status_code} to the start of '{server}'.",
                next_step="It is asked again in a moment.",
            )

    async def leads_to(self, user: str, server: str) -> bool:
        """Return whether the proxy leads to a server: the hub calls it ready once its route is there.

        Raises:
            Unavailable: when the hub does not answer.
        """
        try:
            answer = await self._client.get(f"/users/{user}")
        except httpx.HTTPError as error:
            raise Unavailable("The hub does not answer.", next_step="It is asked again in a moment.") from error
        if answer.status_code != 200:
            return False
        return bool(answer.json().get("servers", {}).get(server, {}).get("ready"))
