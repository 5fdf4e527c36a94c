"""What a failed command says, and with which code it ends."""

from __future__ import annotations

import sys

from torpor import errors

FAILURE, NOT_FOUND, NOT_SIGNED_IN, FORBIDDEN, CONFLICT, UNAVAILABLE = 1, 3, 4, 5, 6, 7
CODES: tuple[tuple[type[errors.TorporError], int], ...] = (
    (errors.NotFound, NOT_FOUND),
    (errors.NotSignedIn, NOT_SIGNED_IN),
    (errors.ConfigurationError, NOT_SIGNED_IN),
    (errors.Forbidden, FORBIDDEN),
    (errors.Conflict, CONFLICT),
    (errors.WaitTimeout, UNAVAILABLE),
    (errors.PlatformUnreachable, UNAVAILABLE),
    (errors.Busy, UNAVAILABLE),
)


def code_of(error: errors.TorporError) -> int:
    """Return the exit code that stands for ``error``."""
    return next((code for kind, code in CODES if isinstance(error, kind)), FAILURE)


def tell(error: errors.TorporError) -> None:
    """Write what is wrong, the next step and the request id to stderr, a line each."""
    request_id = getattr(error, "request_id", "")
    lines = [f"Error: {error.message}", error.next_step, f"Request: {request_id}" if request_id else ""]
    sys.stderr.write("".join(f"{line}\n" for line in lines if line))
