"""The way to the platform's API: which paths, with which headers, within which limits."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

import httpx

WIRE_VERSION = "1"
ROOTS = frozenset(
    {"me", "tenants", "workspaces", "jobs", "datasets", "imports", "profiles", "job-options", "operations"}
)
SENT = ("Accept", "Content-Type", "If-None-Match", "If-Match", "Idempotency-Key")
RETURNED = ("ETag", "Retry-After", "Torpor-Wire", "Torpor-Next-Offset", "Torpor-Attempt")
CONTENT_TYPES = frozenset({"application/json", "application/problem+json", "text/plain"})
CONNECT_TIMEOUT_S = 3.0
TIMEOUT_S = 15.0
MAX_ANSWER_BYTES = 8 * 1024**2
_STEP = (
    "Your notebook and its kernels keep working. The panel asks again by itself; if this lasts, tell an administrator."
)
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Answer:
    """What goes back to the browser."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def problem(status: HTTPStatus, code: str, detail: str, next_step: str = "") -> Answer:
    """Return an RFC 9457 problem in the form that the platform uses itself."""
    document = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        "next_step": next_step,
    }
    return Answer(status, json.dumps(document).encode(), {"Content-Type": "application/problem+json"})


def target(path: str, query: str) -> str | None:
    """Return the path below ``api/v1/`` that may be asked for, with its query, or None.

    Nameless query parts are left out: JupyterLab adds the time to each address as one.
    """
    segments = path.split("/")
    if segments[0] not in ROOTS or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        return None
    asked = urlencode(parse_qsl(query))
    return f"{path}?{asked}" if asked else path


class Platform:
    """The platform's API at ``url`` (it ends in ``services/torpor/``), asked with the server's own token."""

    def __init__(
        self, url: str, token: str, timeout_s: float = TIMEOUT_S, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/" if url else ""
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}", "Torpor-Wire": WIRE_VERSION},
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(self, method: str, to: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the platform's answer, or a problem that says why there is none. ``to`` comes from :func:`target`."""
        if not self._url:
            said = "This JupyterLab was not started by the platform."
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "no_platform", said)
        asked = {name.lower(): value for name, value in headers.items()}
        sent = {name: asked[name.lower()] for name in SENT if name.lower() in asked}
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._fetch(method, to, sent, body)
        except (TimeoutError, httpx.TimeoutException):
            said = f"The platform did not answer within {self._timeout_s:g} seconds."
            return problem(HTTPStatus.GATEWAY_TIMEOUT, "platform_slow", said, _STEP)
        except httpx.HTTPError:
            return problem(HTTPStatus.BAD_GATEWAY, "platform_unreachable", "The platform cannot be reached.", _STEP)

    async def _fetch(self, method: str, to: str, headers: Mapping[str, str], body: bytes) -> Answer:
        content = body if method != "GET" else None
        async with self._client.stream(method, self._url + to, headers=headers, content=content) as response:
            received = bytearray()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > self._max_answer_bytes:
                    limit = f"The answer is larger than the {self._max_answer_bytes // 1024**2} MiB that fit here."
                    step = "Ask for fewer rows, or use the `torpor` package in a notebook."
                    return problem(HTTPStatus.BAD_GATEWAY, "too_large", limit, step)
            returned = {name: response.headers[name] for name in RETURNED if name in response.headers}
            returned["Content-Type"] = _content_type(response.headers.get("content-type", ""))
            return Answer(response.status_code, bytes(received), returned)


def _content_type(given: str) -> str:
    """Return the type if it is harmless on JupyterLab's own origin, else plain bytes."""
    return given if given.partition(";")[0].strip().lower() in CONTENT_TYPES else "application/octet-stream"
