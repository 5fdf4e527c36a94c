"""Blobs: bundles, samples, reads, logs and results, in one fsspec URL that the server alone opens."""

from __future__ import annotations

import errno
import hashlib
import logging
import posixpath
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import fsspec

from torpor_hub.errors import Unavailable

LOG = logging.getLogger(__name__)
S3 = "s3"
FULL = (errno.ENOSPC, errno.EDQUOT)
NEXT_STEP = "Try again in a minute; if it stays, tell a platform admin: `blobs_url` in the settings names the store."


@dataclass(frozen=True)
class Written:
    """What a blob turned out to be."""

    key: str
    size_bytes: int
    sha256: str


class Blobs:
    """Bytes by key. A blob appears whole or not at all; writing the same key again replaces it.

    Every method raises ``Unavailable`` where the store refuses, is full or does not answer.
    """

    def __init__(self, url: str) -> None:
        self._system, self._root = _opened(url)
        self._failures = _failures(url)

    def put(self, key: str, chunks: Iterable[bytes]) -> Written:
        """Write a blob and return its size and hash. What ``chunks`` raises comes out as it is, and nothing is kept."""
        target = self._path(key)
        partial = f"{target}.{secrets.token_hex(4)}.part"
        raised: list[Exception] = []
        with self._answering(f"take {key}", apart=raised), ExitStack() as left:
            self._system.makedirs(posixpath.dirname(target), exist_ok=True)
            left.callback(self._forget, partial)
            written = self._write(key, partial, _noted(chunks, raised, self._failures))
            self._system.mv(partial, target)
            left.pop_all()
        return written

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a blob from ``start`` up to ``end``.

        Raises:
            FileNotFoundError: when there is no such blob.
        """
        with self._answering(f"give {key}", but=FileNotFoundError):
            return bytes(self._system.cat_file(self._path(key), start=start, end=end))

    def delete(self, key: str) -> None:
        """Remove a blob; gone already is success."""
        with self._answering(f"remove {key}"):
            if self._system.exists(self._path(key)):
                self._system.rm_file(self._path(key))

    def _write(self, key: str, path: str, chunks: Iterable[bytes]) -> Written:
        digest, size = hashlib.sha256(), 0
        with self._system.open(path, "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
        return Written(key, size, digest.hexdigest())

    def _forget(self, path: str) -> None:
        with suppress(*self._failures):
            self._system.rm_file(path)

    @contextmanager
    def _answering(
        self, task: str, *, but: type[Exception] | tuple[()] = (), apart: Sequence[Exception] = ()
    ) -> Iterator[None]:
        """Raise the store's own errors as ``Unavailable``; not those that are an answer, nor others' that passed through it."""
        try:
            yield
        except but:
            raise
        except self._failures as error:
            if error in apart:
                raise
            LOG.warning("the store of blobs at %s does not %s: %r", self._root, task, error)
            message = f"The store of logs, results and samples does not {task}: {_reason(error)}."
            raise Unavailable(message, next_step=NEXT_STEP) from error

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"not a blob key: {key!r}")
        return posixpath.join(self._root, key)


def _noted(
    chunks: Iterable[bytes], raised: list[Exception], mistakable: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    """Yield the chunks, and note what their own source raises that a store might have raised."""
    try:
        yield from chunks
    except mistakable as error:
        raised.append(error)
        raise


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path there. S3 is asked twice, not 30 times: somebody waits for the answer."""
    if not _is_s3(url):
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    system, root = fsspec.core.url_to_fs(url, config_kwargs={"retries": {"max_attempts": 1}})
    system.retries = 1
    return system, root


def _failures(url: str) -> tuple[type[Exception], ...]:
    """Return what a store raises when it cannot do its work. S3's client lets errors of its own libraries through."""
    if not _is_s3(url):
        return (OSError,)
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError

    return (OSError, ClientError, BotoCoreError)


def _is_s3(url: str) -> bool:
    return url.partition(":")[0] == S3


def _reason(error: Exception) -> str:
    """Return in a few words what is wrong; the rest is in the log."""
    if isinstance(error, OSError) and error.errno in FULL:
        return "it has no space left"
    if isinstance(error, PermissionError):
        return "it refuses the platform's account"
    return "it cannot be reached or is broken"
