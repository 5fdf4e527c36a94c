"""The way to the API: one HTTP client, repeats of what may be repeated, problem documents turned into errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torpor import errors, wire

if TYPE_CHECKING:
    import httpx

RETRY_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
BUSY = frozenset({429, 502, 503, 504})
PAGE_ITEMS = 200


class Connection:
    """A connection to one platform. Every request is repeated after a lost connection or a busy answer.

    That is safe, because reads and wishes may be repeated, and each POST carries an Idempotency-Key. ``timeout_s`` is the
    longest silence of the platform; ``transport`` replaces the network (tests).
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = 30.0,
        retry_pauses_s: Sequence[float] = RETRY_PAUSES_S,
    ) -> None:
        import httpx

        self.base_url = base_url
        self._token = token
        self._pauses_s = tuple(retry_pauses_s)
        self._http = httpx.Client(transport=transport, timeout=httpx.Timeout(timeout_s, connect=5.0))

    def send(self, request: wire.Request) -> httpx.Response:
        """Return the answer to ``request``, its body read. Raises ApiError, or PlatformUnreachable."""
        import httpx

        for pause_s in self._pauses_s:
            try:
                response = self._http.send(self._prepared(request))
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code not in BUSY:
                return checked(response)
            wanted_s = _retry_after_s(response.headers) if response is not None else 0.0
            time.sleep(max(pause_s, wanted_s))
        try:
            return checked(self._http.send(self._prepared(request)))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    @contextmanager
    def stream(self, request: wire.Request, *, silence_s: float) -> Iterator[httpx.Response]:
        """Return the answer with its body still to come; never repeated. ``silence_s`` is the longest wait for more."""
        import httpx

        try:
            prepared = self._prepared(request, timeout=httpx.Timeout(silence_s, connect=5.0))
            with self._closing(self._http.send(prepared, stream=True)) as response:
                if response.is_error:
                    response.read()
                yield checked(response)
        except httpx.ConnectError as error:
            raise self._unreachable(error) from error

    def json(self, request: wire.Request) -> Any:
        """Return the JSON of the answer to ``request``."""
        response = self.send(request)
        try:
            return response.json()
        except ValueError as error:
            raise errors.PlatformUnreachable(
                f"{self.base_url} does not answer as Torpor's API does.", next_step="Check the address."
            ) from error

    def items(self, request: wire.Request, *, limit: int | None = None) -> Iterator[Mapping[str, Any]]:
        """Return the items of a list, page after page, at most ``limit``."""
        left, cursor = limit, None
        while left is None or left > 0:
            size = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
            page = self.json(request.with_params(limit=size, cursor=cursor))
            items = page["items"][:left]
            yield from items
            left, cursor = None if left is None else left - len(items), page.get("next")
            if not cursor:
                return

    def close(self) -> None:
        """Close the connections to the platform."""
        self._http.close()

    def _prepared(self, request: wire.Request, timeout: httpx.Timeout | None = None) -> httpx.Request:
        extra: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        return self._http.build_request(
            request.method,
            request.url(self.base_url),
            headers=request.headers_for(self._token),
            json=request.body,
            files=request.files,
            **extra,
        )

    def _unreachable(self, error: Exception) -> errors.PlatformUnreachable:
        return errors.PlatformUnreachable(
            f"The platform at {self.base_url} does not answer ({str(error) or type(error).__name__}).",
            next_step="Check that it runs and that the address is right: torpor env explain.",
        )

    @staticmethod
    @contextmanager
    def _closing(response: httpx.Response) -> Iterator[httpx.Response]:
        try:
            yield response
        finally:
            response.close()


def checked(response: httpx.Response) -> httpx.Response:
    """Return ``response`` unless it is a refusal. Raises the ApiError in it."""
    if response.is_error:
        request_id = response.headers.get(wire.REQUEST_ID_HEADER, "")
        raise errors.from_answer(response.status_code, response.content, request_id=request_id)
    if response.has_redirect_location:
        raise errors.PlatformUnreachable(
            f"{response.url} leads elsewhere ({response.headers['location']}).",
            next_step="Use the address that the platform itself shows; it ends in services/torpor/.",
        )
    return response


def _retry_after_s(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return min(float(text), 30.0) if text.isdigit() else 0.0
