"""Everything that the SDK raises. A message names the thing, the limit and the next step, fit to show a person.

TorporError
├── ConfigurationError          no address, no token, or a file that cannot be read
├── PlatformUnreachable         no answer from the platform
├── IncompleteStream            rows that broke off in the middle
├── WaitTimeout                 a wait that ended at its deadline (also a TimeoutError)
├── BundleError                 code that cannot be sent
│   └── BundleTooLarge          code that carries too much with it
├── JobFailed                   a job that ended without a value
│   └── JobCancelled            … because somebody asked for it
└── ApiError                    a refusal by the platform (a problem document, RFC 9457)
    ├── InvalidRequest          400, 413, 422: a field is wrong; ``pointer`` names it
    ├── NotSignedIn             401
    ├── Forbidden               403
    ├── NotFound                404: it does not exist, or one may not see it
    ├── Conflict                409, 412: not now, or not in this state
    ├── Busy                    429, 502, 503, 504: later
    └── ServerError             every other 5xx
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class TorporError(Exception):
    """Any failure that the SDK reports. ``next_step`` is a sentence that says what to do, or empty."""

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return " ".join(part for part in (self.message, self.next_step) if part)


class ConfigurationError(TorporError):
    """The SDK does not know where the platform is or who asks."""


class PlatformUnreachable(TorporError):
    """The platform did not answer, after every repeat that made sense."""


class IncompleteStream(TorporError):
    """Rows arrived and then broke off; none of them are handed out, because nobody could tell what is missing."""


class WaitTimeout(TorporError, TimeoutError):
    """A wait ended at the deadline that its caller set. What was waited for goes on."""


class BundleError(TorporError):
    """A function or its arguments cannot be sent to a job."""


class BundleTooLarge(BundleError):
    """A function carries more than a submit may hold. ``largest`` names what it captured, with bytes, largest first."""

    def __init__(self, message: str, *, next_step: str = "", largest: tuple[tuple[str, int], ...] = ()) -> None:
        super().__init__(message, next_step=next_step)
        self.largest = largest


class JobFailed(TorporError):
    """A job ended without a value: killed, timed out, or its command failed. ``job_id`` leads to its log."""

    def __init__(self, message: str, *, next_step: str = "", job_id: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.job_id = job_id


class JobCancelled(JobFailed):
    """A job was cancelled before it had a value."""


@dataclass(frozen=True)
class Problem:
    """A problem document as the platform sent it (RFC 9457 with Torpor's members)."""

    status: int
    code: str = ""
    title: str = ""
    detail: str = ""
    pointer: str = ""
    next_step: str = ""
    request_id: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)


class ApiError(TorporError):
    """The platform refused a request. ``code`` is stable, ``pointer`` names the field, ``problem`` is the whole document."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(
            problem.detail or problem.title or f"The platform answered with status {problem.status}.",
            next_step=problem.next_step,
        )
        self.problem = problem
        self.status = problem.status
        self.code = problem.code
        self.pointer = problem.pointer
        self.request_id = problem.request_id

    def __str__(self) -> str:
        request = f"(request {self.request_id})" if self.request_id else ""
        return " ".join(part for part in (self.message, self.next_step, request) if part)


class InvalidRequest(ApiError):
    """A field of the request is wrong."""


class NotSignedIn(ApiError):
    """The token is missing, unknown or expired."""


class Forbidden(ApiError):
    """The token is good, and does not allow this."""


class NotFound(ApiError):
    """There is no such thing, or one may not see it."""


class Conflict(ApiError):
    """The state of the thing, a quota or an earlier request stands against it."""


class Busy(ApiError):
    """The platform, or something before it, cannot answer at the moment."""


class ServerError(ApiError):
    """The platform failed; the request id leads its operators to the cause."""


BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidRequest,
    401: NotSignedIn,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: Busy,
    502: Busy,
    503: Busy,
    504: Busy,
}
UNTRUSTED_TEXT_LIMIT = 300


def from_answer(status: int, body: bytes, *, request_id: str = "") -> ApiError:
    """Return the error for an answer with ``status`` of 400 or more. A body that is no problem document is cut and shown."""
    problem = parse_problem(status, body, request_id=request_id)
    return BY_STATUS.get(status, ServerError if status >= 500 else ApiError)(problem)


def parse_problem(status: int, body: bytes, *, request_id: str = "") -> Problem:
    """Return the problem document in ``body``, or one made from the status where there is none."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        text = " ".join(body[: UNTRUSTED_TEXT_LIMIT * 4].decode("utf-8", "replace").split())[:UNTRUSTED_TEXT_LIMIT]
        said = f": {text}" if text and not text.startswith("<") else "."
        return Problem(status, detail=f"The platform answered with status {status}{said}", request_id=request_id)
    texts = {key: str(document.get(key) or "") for key in ("code", "title", "detail", "pointer", "next_step")}
    parts = document.get("parts")
    return Problem(
        status,
        **texts,
        request_id=str(document.get("request_id") or request_id),
        parts=parts if isinstance(parts, dict) else {},
    )
