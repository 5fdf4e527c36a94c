"""Samples: rows of a stored Parquet file as JSON or Arrow. Nothing here asks a source."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from torpor_hub.domain.datasets import json_cell


def table(content: bytes, limit: int) -> pa.Table:
    """Return the first rows of a sample."""
    # Not `read_table`, which loads Arrow's datasets into this process.
    with pq.ParquetFile(io.BytesIO(content)) as file:
        return file.read(use_threads=False).slice(0, limit)


def as_json(found: pa.Table) -> dict[str, Any]:
    """Return columns and rows as JSON values."""
    columns = [{"name": field.name, "type": str(field.type)} for field in found.schema]
    values = [_values(column) for column in found.columns]
    return {"columns": columns, "rows": [list(row) for row in zip(*values, strict=True)]}


def as_stream(found: pa.Table) -> bytes:
    """Return an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema) as writer:
        writer.write_table(found)
    return sink.getvalue().to_pybytes()


def _values(column: pa.ChunkedArray[Any]) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        return _moments(column, "Z" if column.type.tz else "")
    try:
        return [json_cell(value) for value in column.to_pylist()]
    except (ValueError, OverflowError):
        # A moment that Python's calendar does not hold; Arrow can still spell it.
        return list(column.cast(pa.string()).to_pylist())


def _moments(column: pa.ChunkedArray[Any], zone: str) -> list[str | None]:
    """Return moments as ISO 8601; spelled by Arrow, which would load pandas to make Python's own of them."""
    spelled = column.cast(pa.timestamp("us")).cast(pa.string()).to_pylist()

    def iso(text: str) -> str:
        day, _, clock = text.partition(" ")
        whole, _, fraction = clock.partition(".")
        return f"{day}T{whole}{'.' + fraction.rstrip('0') if fraction.strip('0') else ''}{zone}"

    return [None if text is None else iso(str(text)) for text in spelled]
