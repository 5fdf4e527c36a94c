"""What an answer of the API server means: an object, or one of the platform's errors."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from torpor_hub.cluster.kinds import Json
from torpor_hub.errors import (
    ClusterError,
    ClusterUnavailable,
    Denied,
    ObjectConflict,
    ObjectExists,
    ObjectMissing,
    VersionExpired,
)
from torpor_hub.podspecs.refusals import explain

LONGEST_QUOTE = 1000
# A token that has just been renewed, too many requests, and every fault of the server: nothing is known then.
NO_ANSWER = (HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
REFUSED = (" is forbidden: ", " denied the request")


def parse(body: bytes, what: str) -> Json:
    """Return the object in an answer.

    Raises:
        ClusterUnavailable: when the answer is cut short or none of the API server's.
    """
    try:
        content = json.loads(body)
    except ValueError as error:
        raise ClusterUnavailable(f"{what}: the answer is no JSON.") from error
    if not isinstance(content, dict):
        raise ClusterUnavailable(f"{what}: the answer is no object.")
    return content


def error(code: int, body: bytes, what: str) -> ClusterError:
    """Return the error that an answer with status ``code`` stands for; ``what`` says what was asked."""
    status = _status(body)
    return of_status({**status, "code": code}, what)


def of_status(status: Json, what: str) -> ClusterError:
    """Return the error that a ``Status`` object stands for, such as one that ends a watch."""
    code, reason, message = status.get("code", 0), status.get("reason", ""), str(status.get("message", ""))
    text = f"{what}: {message[:LONGEST_QUOTE] or f'status {code}'}"
    # Policies and webhooks choose their own status; a policy's default is 422.
    if code == HTTPStatus.FORBIDDEN or (code < 500 and any(words in message for words in REFUSED)):
        cause = explain(message)
        return Denied(cause.message, reason=cause.reason, next_step=cause.next_step, answer=text)
    match code:
        case HTTPStatus.NOT_FOUND:
            return ObjectMissing(text)
        case HTTPStatus.CONFLICT:
            return ObjectExists(text) if reason == "AlreadyExists" else ObjectConflict(text)
        case HTTPStatus.GONE:
            return VersionExpired(text)
    return ClusterUnavailable(text) if code in NO_ANSWER or code >= 500 else ClusterError(text)


def _status(body: bytes) -> Json:
    try:
        content: Any = json.loads(body)
    except ValueError:
        return {"message": body[:LONGEST_QUOTE].decode(errors="replace")}
    return content if isinstance(content, dict) else {}
