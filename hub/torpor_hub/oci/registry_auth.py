"""Who asks a registry: basic authentication, and tokens as the distribution specification describes them.

Source: https://distribution.github.io/distribution/spec/auth/token/ and RFC 9110, 11.6.1 (challenges); for the accounts of pull
secrets https://kubernetes.io/docs/concepts/containers/images/#config-json.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import httpx

from torpor_hub.errors import RegistryRefused, RegistryUnavailable

PARAMETER = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
LIFETIME_S = 60.0
"""What a token lives when its server does not say so (the specification's default)."""

RENEW_BEFORE_S = 10.0
PUBLIC_HUB, PUBLIC_HUB_KEY = "docker.io/", "index.docker.io"


@dataclass(frozen=True, slots=True)
class Account:
    """A name and a password for a registry; the default is nobody in particular."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """A registry, and the account that asks it; without a username nobody in particular asks.

    ``host`` is ``name`` or ``name:port``. ``insecure`` means plain HTTP, which is right only on a network that is trusted.
    ``kept_in`` says where an admin finds the account; empty: in the registry's settings.
    """

    host: str
    insecure: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    kept_in: str = ""

    @property
    def url(self) -> str:
        """The registry's URL, without a slash at its end."""
        return f"{'http' if self.insecure else 'https'}://{self.host}"

    @property
    def who(self) -> str:
        """Who asks, in words."""
        return f"the account {self.username!r}" if self.username else "a caller without an account"

    @property
    def remedy(self) -> str:
        """What to do when the registry refuses who asks."""
        if self.kept_in and not self.username:
            return f"have {self.kept_in} hold an account for {self.host}"
        kept_in = self.kept_in or "the registry's settings"
        return f"check name, password and rights in {kept_in}"

    @property
    def doubt(self) -> str:
        """What to add where something is not there: there are registries that say so to whom they do not know."""
        return "" if self.username or not self.kept_in else f" If it is not for everybody, {self.remedy}."


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
        held = self._address
        return f"The token server {realm} of the registry {held.host} refuses {held.who} ({status}); {held.remedy}."


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """Return the scheme of a challenge, in lower case, and its parameters."""
    scheme, _, rest = header.strip().partition(" ")
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in PARAMETER.findall(rest)
    }
    return scheme.lower(), parameters


def read_accounts(docker_config: str) -> dict[str, Account]:
    """Return the accounts of a docker config by the names that it gives to registries; entries without one are left out.

    Raises:
        ValueError: the text is no docker config.
    """
    document = json.loads(docker_config)
    entries = document.get("auths") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise ValueError("it has no 'auths'")
    found = ((name, _account(entry)) for name, entry in entries.items() if isinstance(entry, dict))
    return {name: account for name, account in found if account.username}


def _account(entry: Mapping[str, object]) -> Account:
    if auth := entry.get("auth"):
        # Some tools leave the padding out; more than is needed does no harm.
        name, _, password = base64.b64decode(f"{auth}==").decode().partition(":")
        return Account(name, password)
    return Account(str(entry.get("username") or ""), str(entry.get("password") or ""))


def reader_of(accounts: Mapping[str, Account], image: str) -> Account | None:
    """Return the account to read ``image`` (host and repository) with: the one with the most particular name, as for a node.

    A name is a host, in whose parts ``*`` stands for anything but a dot, and the beginning of a path. Of two names that mean the
    same, the first one counts.
    """
    plain: dict[str, Account] = {}
    for name, account in accounts.items():
        plain.setdefault(_plain(name), account)
    # Backwards, a longer path comes before a shorter one, and a name in full before one with a star.
    for name in sorted(plain, reverse=True):
        if _covers(name, image):
            return plain[name]
    return plain.get(PUBLIC_HUB_KEY) if image.startswith(PUBLIC_HUB) else None


def _plain(name: str) -> str:
    """Return a registry's name without scheme, and without the version of an API, which some tools write."""
    host, slash, path = name.removeprefix("https://").removeprefix("http://").partition("/")
    if path.startswith(("v1/", "v2/")):
        path = path[len("v1/") :]
    return host + slash + path if path else host


def _covers(name: str, image: str) -> bool:
    (host, _, path), (asked, _, repository) = name.partition("/"), image.partition("/")
    (host, _, port), (asked, _, asked_port) = host.partition(":"), asked.partition(":")
    parts, asked_parts = host.split("."), asked.split(".")
    same_host = len(parts) == len(asked_parts) and all(map(fnmatchcase, asked_parts, parts))
    return same_host and port == asked_port and repository.startswith(path)
