"""Record batches as the pieces of one Arrow IPC stream."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

PIECE_BYTES = 4 * 1024**2


class _Pieces(io.RawIOBase):
    """A file that is only written to, and gives its bytes away in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        """Return True, which Arrow asks before it writes."""
        return True

    def write(self, content: Any) -> int:
        """Take bytes and return their number."""
        view = memoryview(content)
        self._held += view
        return len(view)

    def full(self) -> Iterator[bytes]:
        """Yield every whole piece."""
        while len(self._held) >= PIECE_BYTES:
            yield bytes(self._held[:PIECE_BYTES])
            del self._held[:PIECE_BYTES]

    def rest(self) -> bytes:
        """Return what is left."""
        return bytes(self._held)


def pieces(schema: pa.Schema, batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[bytes]:
    """Yield one IPC stream of at most ``limit`` rows in pieces of 4 MiB; the last is smaller, and never empty."""
    held = _Pieces()
    with pa.ipc.new_stream(pa.PythonFile(held, "w"), schema) as writer:
        left = limit
        for batch in batches:
            taken = batch if left is None else batch.slice(0, left)
            writer.write_batch(taken)
            yield from held.full()
            left = None if left is None else left - taken.num_rows
            if left == 0:
                break
    yield from held.full()
    rest = held.rest()
    if rest:
        yield rest
