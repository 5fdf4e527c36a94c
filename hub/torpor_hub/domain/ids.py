"""Identifiers: a kind's prefix and 20 characters of lower-case base32 of a ULID."""

from __future__ import annotations

import secrets
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 20


def new(prefix: str) -> str:
    """Return a new id such as ``ws-01k9…``: 48 bits of milliseconds and 52 random bits, so ids sort by their time.

    Source: the ULID specification (github.com/ulid/spec), cut to 100 bits, in lower-case Crockford base32.
    """
    number = (time.time_ns() // 1_000_000) << 52 | secrets.randbits(52)
    return f"{prefix}-" + "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))
