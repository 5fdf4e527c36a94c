"""Errors of file systems and of Arrow, as the closed set of failures."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from torpor_hub.domain.datasets import FailureCode
from torpor_hub.errors import SourceFailed

LONGEST_DETAIL = 300
AWAY = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN})


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the block raises into a failure that names ``what``, a phrase such as ``The file 'a.parquet'``.

    Raises:
        SourceFailed: always with the vendor's error as its cause.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise SourceFailed(FailureCode.NOT_FOUND, f"{what} does not exist.", "Check the path.") from error
    except PermissionError as error:
        raise SourceFailed(
            FailureCode.FORBIDDEN,
            f"{what} may not be read by the importer.",
            "Give the importer's user the right to read it.",
        ) from error
    except MemoryError as error:  # also Arrow's
        raise SourceFailed(
            FailureCode.TOO_LARGE, f"{what} needs more memory than an import may use.", "Write smaller row groups."
        ) from error
    except OSError as error:
        raise _from_os(what, error) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise SourceFailed(FailureCode.UNSUPPORTED, f"{what} cannot be read: {_detail(error)}.", "") from error


def _from_os(what: str, error: OSError) -> SourceFailed:
    if error.errno in AWAY:
        return SourceFailed(
            FailureCode.UNREACHABLE, f"{what} cannot be reached: {_detail(error)}.", "Try again when the store answers."
        )
    # Arrow reports damaged files as OSError without a number.
    return SourceFailed(FailureCode.UNSUPPORTED, f"{what} cannot be read: {_detail(error)}.", "Write the file again.")


def _detail(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= LONGEST_DETAIL else text[:LONGEST_DETAIL] + "…"
