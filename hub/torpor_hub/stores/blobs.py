"""Blobs: bundles, samples, reads, logs and results, in one fsspec URL that the server alone opens."""

from __future__ import annotations

import hashlib
import posixpath
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import fsspec

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Written:
    """What a blob turned out to be."""

    key: str
    size_bytes: int
    sha256: str


class Blobs:
    """Bytes by key. A blob appears whole or not at all; writing the same key again replaces it."""

    def __init__(self, url: str) -> None:
        self._system, self._root = fsspec.core.url_to_fs(url)

    def put(self, key: str, chunks: Iterable[bytes]) -> Written:
        """Write a blob and return its size and hash."""
        target = self._path(key)
        partial = f"{target}.{secrets.token_hex(4)}.part"
        self._system.makedirs(posixpath.dirname(target), exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with self._system.open(partial, "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
        self._system.mv(partial, target)
        return Written(key, size, digest.hexdigest())

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a blob from ``start`` up to ``end``.

        Raises:
            FileNotFoundError: when there is no such blob.
        """
        content = self._system.cat_file(self._path(key), start=start, end=end)
        return bytes(content)

    def delete(self, key: str) -> None:
        """Remove a blob; gone already is success."""
        if self._system.exists(self._path(key)):
            self._system.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"not a blob key: {key!r}")
        return posixpath.join(self._root, key)
