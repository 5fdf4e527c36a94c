"""Cutting the cells of a sample, so that no single value is large."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def cut(batch: pa.RecordBatch, most_bytes: int) -> pa.RecordBatch:
    """Return the batch with every text, list and structure cut to about ``most_bytes`` bytes."""
    columns = [_cut_column(column, most_bytes) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _cut_column(column: Any, most_bytes: int) -> Any:
    kind = column.type
    if _is_text(kind):
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest <= most_bytes:
            return column
    elif pa.types.is_fixed_size_binary(kind) and kind.byte_width > most_bytes:
        return _cut_column(column.cast(pa.binary()), most_bytes)
    elif not pa.types.is_nested(kind) or column.nbytes <= most_bytes:
        return column
    return pa.array([_cut_value(value, most_bytes)[0] for value in column.to_pylist()], kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _cut_value(value: Any, room: int) -> tuple[Any, int]:
    """Return the value, cut to ``room`` bytes, and how many bytes it takes."""
    if isinstance(value, str):
        short = value.encode()[: max(0, room)]
        return short.decode(errors="ignore"), len(short)
    if isinstance(value, bytes):
        return value[: max(0, room)], min(len(value), max(0, room))
    if isinstance(value, list):
        return _cut_items(value, room)
    if isinstance(value, dict):
        items, taken = _cut_fields(value.values(), room)
        return dict(zip(value, items, strict=True)), taken
    if isinstance(value, tuple):  # an entry of a map
        items, taken = _cut_fields(value, room)
        return tuple(items), taken
    return value, 8


def _cut_items(items: list[Any], room: int) -> tuple[list[Any], int]:
    kept, taken = [], 0
    for item in items:
        if taken >= room:
            break
        short, size = _cut_value(item, room - taken)
        kept.append(short)
        taken += max(1, size)
    return kept, taken


def _cut_fields(values: Iterable[Any], room: int) -> tuple[list[Any], int]:
    kept, taken = [], 0
    for value in values:
        short, size = _cut_value(value, room - taken)
        kept.append(short)
        taken += size
    return kept, taken
