"""Who sent a request: hub tokens are asked of the hub (and believed for at most 60 s), our own are checked here.

Nothing here touches the database or holds a thread; what the identity may do is looked up by the route.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from cryptography.fernet import InvalidToken, MultiFernet
from starlette.requests import Request

from torpor_hub.domain.policy import Actor
from torpor_hub.errors import Forbidden, Unauthenticated, Unavailable
from torpor_hub.services.tokens import PREFIX, Signer

TOKEN_COOKIE = "torpor-token"  # noqa: S105 - a cookie's name
XSRF_COOKIE = "torpor-xsrf"
XSRF_HEADER = "x-xsrftoken"
SERVICE_SCOPE = "access:services!service=torpor"
READ_SCOPE = "custom:torpor:read"
WRITE_SCOPE = "custom:torpor:write"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HUB_TIMEOUT_S = 10
MOST_CACHED = 10_000


@dataclass(frozen=True)
class Identity:
    """A person by hub name, or an actor that a signed token already names."""

    name: str
    can_write: bool = False
    actor: Actor | None = None


class Identities:
    """Turns requests into identities."""

    def __init__(self, hub_api_url: str, signer: Signer, cookies: MultiFernet, *, cache_s: float, origin: str) -> None:
        self._url = hub_api_url
        self._signer = signer
        self._cookies = cookies
        self._cache_s = cache_s
        self._origin = origin
        self._known: dict[str, tuple[float, Identity]] = {}
        self._client = httpx.AsyncClient(timeout=HUB_TIMEOUT_S)

    async def close(self) -> None:
        """Close the connections to the hub."""
        await self._client.aclose()

    async def of(self, request: Request) -> Identity:
        """Return who sent the request.

        Raises:
            Unauthenticated: without valid credentials.
            Forbidden: when the token lacks the scopes, or a write by cookie is not from our own pages.
            Unavailable: when the hub does not answer.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() in ("bearer", "token") and token:
            return await self.of_token(token.strip())
        cookie = request.cookies.get(TOKEN_COOKIE)
        if not cookie:
            raise Unauthenticated("Nobody is signed in.", next_step="Sign in, or send a token.")
        if request.method not in SAFE_METHODS:
            self._check_cookie_write(request)
        return await self.of_token(self.open_cookie(cookie))

    async def of_token(self, token: str) -> Identity:
        """Return whom a token stands for; see ``of``."""
        if token.startswith(PREFIX):
            actor = self._signer.actor(token)
            return Identity(actor.name, actor.can_write, actor)
        key = hashlib.sha256(token.encode()).hexdigest()
        known = self._known.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        identity = await self._ask_hub(token)
        if len(self._known) >= MOST_CACHED:
            self._known.clear()
        self._known[key] = (time.monotonic() + self._cache_s, identity)
        return identity

    def forget(self, token: str) -> None:
        """Ask the hub again at the next use of the token (a sign-out)."""
        self._known.pop(hashlib.sha256(token.encode()).hexdigest(), None)

    def seal_cookie(self, token: str) -> str:
        """Return a hub token as the content of a cookie: encrypted, so that a leaked cookie jar is no hub token."""
        return self._cookies.encrypt(token.encode()).decode()

    def open_cookie(self, content: str) -> str:
        """Return the hub token in a cookie.

        Raises:
            Unauthenticated: when we did not make it.
        """
        try:
            return self._cookies.decrypt(content.encode()).decode()
        except InvalidToken as error:
            raise Unauthenticated("The sign-in is no longer valid.", next_step="Sign in again.") from error

    async def _ask_hub(self, token: str) -> Identity:
        try:
            answer = await self._client.get(f"{self._url}/user", headers={"Authorization": f"Bearer {token}"})
        except httpx.HTTPError as error:
            raise Unavailable(
                "The hub does not answer, so nobody can be recognised.", next_step="Try again in a few seconds."
            ) from error
        if answer.status_code >= 500:
            raise Unavailable("The hub cannot answer now.", next_step="Try again in a few seconds.")
        if answer.status_code != 200:
            raise Unauthenticated("The token is not valid.", next_step="Sign in again, or make a new token.")
        return _identity(answer.json())

    def _check_cookie_write(self, request: Request) -> None:
        sent, kept = request.headers.get(XSRF_HEADER, ""), request.cookies.get(XSRF_COOKIE, "")
        if not kept or not hmac.compare_digest(sent.encode(), kept.encode()):
            raise Forbidden("The page's form token is missing or old.", next_step="Reload the page and try again.")
        origin = request.headers.get("origin")
        host = request.headers.get("host", "")
        if origin and urlsplit(origin).netloc not in (host, urlsplit(self._origin).netloc):
            raise Forbidden("The request comes from another site.", next_step="Use the platform's own page.")


def _identity(model: dict[str, object]) -> Identity:
    """Return the identity in the hub's user model; the hub has resolved subscopes already."""
    held = model.get("scopes")
    scopes = {str(scope) for scope in held} if isinstance(held, list) else set()
    if not scopes.intersection((SERVICE_SCOPE, "access:services")):
        raise Forbidden("This token may not use the platform.", next_step=f"Make one with the scope {SERVICE_SCOPE}.")
    if READ_SCOPE not in scopes and WRITE_SCOPE not in scopes:
        raise Forbidden("This token may not read here.", next_step=f"Make one with the scope {READ_SCOPE}.")
    return Identity(str(model["name"]), WRITE_SCOPE in scopes)
