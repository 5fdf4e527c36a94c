"""What every answer carries: a request id and the wire version; and what every request must speak.

A plain ASGI middleware: a stream that fails in the middle has to end its connection, which a wrapping of responses would hide.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torpor_hub.api import problems

WIRE = 1
WIRE_HEADER = "Torpor-Wire"
REQUEST_ID_HEADER = "X-Request-Id"
KNOWN_WIRES = ("", str(WIRE))
ID_BYTES = 8


class Envelope:
    """Gives each request an id and refuses wire versions that this program does not speak."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(ID_BYTES)
        scope.setdefault("state", {})["request_id"] = request_id

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[WIRE_HEADER], headers[REQUEST_ID_HEADER] = str(WIRE), request_id
            await send(message)

        wire = Headers(scope=scope).get(WIRE_HEADER, "")
        handle = self._app if wire in KNOWN_WIRES else _unsupported(Request(scope), wire)
        await handle(scope, receive, sent)


def _unsupported(request: Request, wire: str) -> ASGIApp:
    return problems.problem(
        request,
        400,
        "unsupported_wire",
        f"This platform speaks wire version {WIRE}, the request came with {wire}.",
        next_step="Restart the kernel, or install the platform's own version of `torpor`.",
    )
