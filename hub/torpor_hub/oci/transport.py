"""Requests to a registry: with its account, repeated where that is harmless, and with errors that say what to do."""

from __future__ import annotations

import ssl
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin

import httpx

from torpor_hub.errors import RegistryFull, RegistryRefused, RegistryUnavailable
from torpor_hub.oci.registry_auth import Address, Credentials

TIMEOUT = httpx.Timeout(connect=5.0, read=30.0, write=30.0, pool=None)
PATIENCE_S = 45.0
"""After this long nothing is repeated: a workspace may be frozen meanwhile."""

PAUSES_S = (0.1, 0.3, 1.0, 2.0)
BUSY = {429, 502, 503, 504}
MAX_PAUSE_S = 5.0
SHOWN = 300
LASTING = (RegistryFull, RegistryRefused)
FULL = ("no space", "quota", "disk full", "insufficient storage")


def tries() -> Iterator[float | None]:
    """Yield, for each try, how long to wait after its failure; None: it is the last."""
    patience = time.monotonic() + PATIENCE_S
    for pause_s in PAUSES_S:
        if time.monotonic() > patience:
            break
        yield pause_s
    yield None


class Transport:
    """Speaks with one registry; may be used by several threads."""

    def __init__(self, address: Address, *, transport: httpx.BaseTransport | None = None) -> None:
        self.address = address
        # The environment's proxies and .netrc are of no use inside; SSL_CERT_FILE is read by OpenSSL itself.
        self._client = httpx.Client(
            timeout=TIMEOUT,
            trust_env=False,
            verify=ssl.create_default_context(),
            headers={"Accept-Encoding": "identity"},
            transport=transport,
        )
        self._credentials = Credentials(address, self._client)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        scopes: tuple[str, ...],
        accept: Collection[int],
        repeat: bool,
        stream: bool = False,
        **request: Any,
    ) -> httpx.Response:
        """Return an answer whose status is in ``accept``; where ``repeat`` is harmless, a failed try is followed by others.

        ``path`` is relative to the registry, or a URL that the registry gave. A streamed answer has to be closed.

        Raises:
            RegistryFull: the registry has no space left.
            RegistryUnavailable: it does not answer, or answers anything else.
        """
        for pause_s in tries() if repeat else (None,):
            try:
                answer = self.once(method, path, scopes=scopes, stream=stream, **request)
            except RegistryUnavailable as error:
                if pause_s is None or isinstance(error, LASTING):
                    raise
                time.sleep(pause_s)
                continue
            if answer.status_code not in BUSY or pause_s is None:
                break
            answer.close()
            time.sleep(min(_retry_after_s(answer) or pause_s, MAX_PAUSE_S))
        return self._accepted(method, answer, accept)

    def once(
        self, method: str, path: str, *, scopes: tuple[str, ...], stream: bool = False, **request: Any
    ) -> httpx.Response:
        """Return the answer of one try, whatever its status, after the registry's challenge was answered.

        Raises:
            RegistryUnavailable: there is no answer, or the account is refused.
        """
        answer = self._try(method, path, scopes, stream, request)
        if answer.status_code == 401:
            challenges = answer.headers.get_list("www-authenticate")
            answer.close()
            if self._credentials.answer(challenges, scopes):
                answer = self._try(method, path, scopes, stream, request)
        if answer.status_code in (401, 403):
            text = _text(answer)
            if _is_full(text):
                raise RegistryFull(self._full(text))
            raise RegistryRefused(self._refused(scopes, answer.status_code, text))
        return answer

    def url(self, location: str) -> str:
        """Return the URL that ``location`` means, which may be relative."""
        return urljoin(self.address.url + "/", location)

    def unexpected(self, method: str, answer: httpx.Response) -> RegistryUnavailable:
        """Return the error for an answer that the caller cannot use."""
        text = _text(answer)
        if answer.status_code == 507 or (answer.status_code in (400, 413, 500) and _is_full(text)):
            return RegistryFull(self._full(text))
        return RegistryUnavailable(
            f"The registry {self.address.host} answered {answer.status_code} to {method} {answer.request.url.path}"
            f" ({text[:SHOWN]}); look into its log, then try again."
        )

    def _accepted(self, method: str, answer: httpx.Response, accept: Collection[int]) -> httpx.Response:
        if answer.status_code in accept:
            return answer
        raise self.unexpected(method, answer)

    def _try(
        self, method: str, path: str, scopes: tuple[str, ...], stream: bool, request: Mapping[str, Any]
    ) -> httpx.Response:
        headers = {**request.get("headers", {}), **self._credentials.headers(scopes)}
        others = {key: value for key, value in request.items() if key != "headers"}
        try:
            built = self._client.build_request(method, self.url(path), headers=headers, **others)
            return self._client.send(built, stream=stream, follow_redirects=method in ("GET", "HEAD"))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RegistryUnavailable(
                f"The registry {self.address.host} does not answer ({_reason(error)}); check that it runs and can be reached"
                " from here, then try again."
            ) from error

    def _refused(self, scopes: tuple[str, ...], status: int, text: str) -> str:
        held = self.address
        return f"The registry {held.host} refuses {held.who} for {' and '.join(scopes)} ({status}: {text[:SHOWN]}); {held.remedy}."

    def _full(self, text: str) -> str:
        return (
            f"The registry {self.address.host} has no space left ({text[-SHOWN:]}); give it more, or delete images and collect its"
            " garbage, then try again."
        )


def _text(answer: httpx.Response) -> str:
    """Return what an answer says, on one line."""
    try:
        content = answer.read()
    except httpx.HTTPError:
        return "its text breaks off"
    finally:
        answer.close()
    return " ".join(content.decode("utf-8", "replace").split()) or "without a text"


def _is_full(text: str) -> bool:
    return any(word in text.lower() for word in FULL)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _retry_after_s(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdigit() else None
