"""Who asks a registry: basic authentication, and tokens as the distribution specification describes them.

Source: https://distribution.github.io/distribution/spec/auth/token/ and RFC 9110, 11.6.1 (challenges).
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpx

from torpor_hub.errors import RegistryRefused, RegistryUnavailable

PARAMETER = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
LIFETIME_S = 60.0
"""What a token lives when its server does not say so (the specification's default)."""

RENEW_BEFORE_S = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """A registry, and the account that asks it; without a username nobody in particular asks.

    ``host`` is ``name`` or ``name:port``. ``insecure`` means plain HTTP, which is right only on a network that is trusted.
    """

    host: str
    insecure: bool = False
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The registry's URL, without a slash at its end."""
        return f"{'http' if self.insecure else 'https'}://{self.host}"


def pull(repository: str) -> str:
    """Return the scope for reading ``repository``."""
    return f"repository:{repository}:pull"


def push(repository: str) -> str:
    """Return the scope for writing to ``repository``."""
    return f"repository:{repository}:pull,push"


def delete(repository: str) -> str:
    """Return the scope for deleting in ``repository``."""
    return f"repository:{repository}:delete"


@dataclass(slots=True)
class _Token:
    text: str
    renew_at: float


class Credentials:
    """Answers the challenges of one registry, and remembers the answers until they end."""

    def __init__(self, address: Address, client: httpx.Client) -> None:
        self._address = address
        self._client = client
        self._basic = False
        self._tokens: dict[tuple[str, ...], _Token] = {}

    def headers(self, scopes: tuple[str, ...]) -> dict[str, str]:
        """Return what to send with a request for ``scopes``: nothing before the first challenge."""
        if self._basic:
            account = f"{self._address.username}:{self._address.password}".encode()
            return {"Authorization": "Basic " + base64.b64encode(account).decode()}
        token = self._tokens.get(scopes)
        if token is None or time.monotonic() > token.renew_at:
            return {}
        return {"Authorization": f"Bearer {token.text}"}

    def answer(self, challenges: Iterable[str], scopes: tuple[str, ...]) -> bool:
        """Return whether there is now something better to send for ``scopes`` than what the registry refused.

        Raises:
            RegistryRefused: the token server refuses the account.
            RegistryUnavailable: it does not answer.
        """
        for scheme, parameters in map(parse_challenge, challenges):
            if scheme == "bearer" and "realm" in parameters:
                self._tokens[scopes] = self._fetch(parameters, scopes)
                return True
            if scheme == "basic" and self._address.username and not self._basic:
                self._basic = True
                return True
        return False

    def _fetch(self, parameters: dict[str, str], scopes: tuple[str, ...]) -> _Token:
        realm = parameters["realm"]
        wanted = parameters["scope"].split() if parameters.get("scope") else list(scopes)
        query: list[tuple[str, str | int | float | bool | None]] = [("scope", scope) for scope in wanted]
        if "service" in parameters:
            query.append(("service", parameters["service"]))
        account = (self._address.username, self._address.password) if self._address.username else None
        if account and not self._address.insecure and not realm.startswith("https://"):
            raise RegistryRefused(
                f"The registry {self._address.host} asks for its password to be sent to {realm} in plain text, which is not"
                " done; have its token server use HTTPS."
            )
        try:
            answer = self._client.get(realm, params=query, auth=account)
            if answer.status_code in (401, 403):
                raise RegistryRefused(self._refused(realm, answer.status_code))
            answer.raise_for_status()
            document = answer.json()
            text = str(document.get("token") or document["access_token"])
            lifetime_s = float(document.get("expires_in") or LIFETIME_S)
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RegistryUnavailable(
                f"The token server {realm} of the registry {self._address.host} gives no token ({error}); check that it"
                " runs, then try again."
            ) from error
        return _Token(text, time.monotonic() + lifetime_s - min(RENEW_BEFORE_S, lifetime_s / 2))

    def _refused(self, realm: str, status: int) -> str:
        who = f"the account {self._address.username!r}" if self._address.username else "a caller without an account"
        return (
            f"The token server {realm} of the registry {self._address.host} refuses {who} ({status}); check name and"
            " password in the registry's settings."
        )


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Return the scheme of a challenge, in lower case, and its parameters."""
    scheme, _, rest = header.strip().partition(" ")
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in PARAMETER.findall(rest)
    }
    return scheme.lower(), parameters
