"""The two pipelines of a layer: tar → sha256 → zstd → sha256 → sink, and back with both digests checked."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import BinaryIO, Protocol

import zstandard

from torpor_hub.errors import CorruptImage
from torpor_hub.oci.images import LayerRecord

CHUNK_BYTES = 1024 * 1024

LEVEL = 1
THREADS = 2
"""Compression runs beside the reading thread. Any number above zero gives the same bytes; zero gives others."""


def shifted(progress: Callable[[int], None] | None, start: int) -> Callable[[int], None] | None:
    """Return ``progress`` for one part of a whole, of which ``start`` bytes are done."""
    return (lambda count: progress(start + count)) if progress else None


class Compressor:
    """A sink for the bytes of a tar, that sends them compressed to ``sink`` and knows both digests at the end."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        self._sink = sink
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, threads=THREADS).compressobj()
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._buffer = bytearray()
        self._plain_bytes = self._packed_bytes = 0

    def write(self, content: bytes) -> None:
        """Take the next bytes of the tar."""
        self._buffer += content
        if len(self._buffer) >= CHUNK_BYTES:
            self._flush()

    def finish(self) -> LayerRecord:
        """Return the record of the layer, after its last byte has gone to the sink."""
        self._flush()
        self._send(self._zstd.flush())
        return LayerRecord(
            digest="sha256:" + self._packed.hexdigest(),
            diff_id="sha256:" + self._plain.hexdigest(),
            size_bytes=self._packed_bytes,
            uncompressed_bytes=self._plain_bytes,
        )

    def _flush(self) -> None:
        content, self._buffer = self._buffer, bytearray()
        self._plain.update(content)
        self._plain_bytes += len(content)
        self._send(self._zstd.compress(content))

    def _send(self, packed: bytes) -> None:
        if packed:
            self._packed.update(packed)
            self._packed_bytes += len(packed)
            self._sink(packed)


class _Readable(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class _Hashed(io.RawIOBase):
    """A stream that hashes and counts what passes through it, and refuses more than ``limit`` bytes."""

    def __init__(self, source: _Readable, limit: int, what: str, passed: Callable[[int], None] | None = None) -> None:
        self._source = source
        self._limit = limit
        self._what = what
        self._passed = passed
        self._hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        count = self._source.readinto(buffer) or 0
        self._hash.update(memoryview(buffer)[:count])
        self.size += count
        if self.size > self._limit:
            raise CorruptImage(f"{self._what} is longer than the {self._limit} bytes that its record says")
        if self._passed:
            self._passed(self.size)
        return count

    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class Decompressor:
    """The tar inside a compressed layer; ``check`` says at the end whether both are what the record promised.

    Own buffering, because a tar is read in blocks of 512 bytes. ``progress`` is called with the bytes of the tar read so
    far and may raise to stop.
    """

    def __init__(self, source: BinaryIO, record: LayerRecord, progress: Callable[[int], None] | None = None) -> None:
        self._record = record
        self._packed = _Hashed(source, record.size_bytes, f"the layer {record.digest}")  # type: ignore[arg-type]
        unpacked = zstandard.ZstdDecompressor().stream_reader(self._packed, read_size=CHUNK_BYTES)  # type: ignore[arg-type]
        self._plain = _Hashed(
            unpacked, record.uncompressed_bytes, f"the content of the layer {record.digest}", progress
        )
        self._buffered = io.BufferedReader(self._plain, CHUNK_BYTES)

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes of the tar, fewer only at its end.

        Raises:
            CorruptImage: the compressed bytes are broken.
        """
        try:
            return self._buffered.read(size)
        except zstandard.ZstdError as error:
            raise CorruptImage(f"the layer {self._record.digest} cannot be decompressed: {error}") from error

    def check(self) -> None:
        """Read to the end and compare digests and sizes.

        Raises:
            CorruptImage: something is not as the record says.
        """
        while self.read(CHUNK_BYTES):
            continue
        self.check_packed()
        if (self._plain.digest(), self._plain.size) != (self._record.diff_id, self._record.uncompressed_bytes):
            raise CorruptImage(
                f"the content of the layer {self._record.digest} has the digest {self._plain.digest()} and"
                f" {self._plain.size} bytes, not {self._record.diff_id} and {self._record.uncompressed_bytes}"
            )

    def check_packed(self) -> None:
        """Read the compressed bytes to their end and compare their digest alone.

        Raises:
            CorruptImage: the bytes are not those of the record.
        """
        while self._packed.read(CHUNK_BYTES):
            continue
        if (self._packed.digest(), self._packed.size) != (self._record.digest, self._record.size_bytes):
            raise CorruptImage(
                f"the layer {self._record.digest} reads back with the digest {self._packed.digest()} and"
                f" {self._packed.size} of {self._record.size_bytes} bytes"
            )
