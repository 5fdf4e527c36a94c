"""Parquet files as one table: their common schema, a sample, statistics from their footers, and their rows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from torpor_hub.domain.datasets import FailureCode
from torpor_hub.errors import SourceFailed
from torpor_hub.sources.base import Limits, Sample
from torpor_hub.sources.cells import cut
from torpor_hub.sources.failures import translated
from torpor_hub.sources.folders import Part
from torpor_hub.sources.partitions import Partitioning, discover, newest_first

# Reading the schema of every file of a large dataset would take minutes; these are spread over its paths.
MOST_SCHEMAS = 200
SAMPLE_BATCH_ROWS = 100
FOOTER_THREADS = 8


@dataclass(frozen=True)
class Table:
    """Some Parquet files that are one table; the partition keys are its last columns."""

    parts: tuple[Part, ...]
    partitioning: Partitioning
    schema: pa.Schema

    def dataset(self) -> ds.FileSystemDataset:
        """Return the table as an Arrow dataset, each file with what its partition says of its rows."""
        system, form = pyarrow.fs.LocalFileSystem(), ds.ParquetFileFormat()
        fragments = [
            form.make_fragment(part.path, system, partition_expression=self.partitioning.expression(part))
            for part in self.parts
        ]
        return ds.FileSystemDataset(fragments, self.schema, form, system)


def open_table(parts: tuple[Part, ...]) -> Table:
    """Return the files as one table.

    Raises:
        SourceFailed: UNSUPPORTED, when a footer cannot be read or the files do not agree on a column's type.
    """
    partitioning = discover(parts)
    schemas = [_schema(part, partitioning) for part in _spread(parts)]
    with translated("The dataset"):
        try:
            common = pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SourceFailed(
                FailureCode.UNSUPPORTED,
                f"The files do not agree on their columns: {error}.",
                "Write them with one schema.",
            ) from error
    fields = [_optional(field) if _is_partial(field.name, schemas) else field for field in common]
    return Table(parts, partitioning, pa.schema([*fields, *partitioning.schema]))


def first_rows(part: Part) -> int:
    """Return how many rows a real read of the beginning of a file gave, at most ``SAMPLE_BATCH_ROWS``."""
    with translated(f"The file '{_name(part)}'"), pq.ParquetFile(part.path, memory_map=False) as file:
        first = next(file.iter_batches(batch_size=SAMPLE_BATCH_ROWS, use_threads=False), None)
        return 0 if first is None else first.num_rows


def sample(table: Table, limits: Limits) -> Sample:
    """Return rows of the newest partitions, within the limits of rows, bytes and bytes of a cell.

    Raises:
        SourceFailed: when a file cannot be read.
    """
    kept: list[pa.RecordBatch] = []
    rows, size = 0, 0
    for batch in _small_batches(table, limits):
        fitting = _fitting(batch.slice(0, limits.rows - rows), limits.bytes - size)
        if fitting.num_rows:
            kept.append(fitting)
        rows, size = rows + fitting.num_rows, size + fitting.nbytes
        if rows >= limits.rows or fitting.num_rows < batch.num_rows:
            break
    with translated("The sample"):
        result = pa.Table.from_batches(kept) if kept else _plain(table.schema).empty_table()
        return Sample(_written(result), result.num_rows)


def statistics(parts: Sequence[Part]) -> dict[str, int]:
    """Return rows, bytes and files; the rows are those that the footers name."""
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        rows = sum(pool.map(_rows, parts))
    return {"rows": rows, "bytes": sum(part.size_bytes for part in parts), "files": len(parts)}


def _small_batches(table: Table, limits: Limits) -> Iterator[pa.RecordBatch]:
    schema = _plain(table.schema)
    for part in newest_first(table.partitioning, table.parts):
        # Not through the dataset's scanner, which decodes a whole row group to give its first rows.
        with translated(f"The file '{_name(part)}'"), pq.ParquetFile(part.path, memory_map=False) as file:
            for batch in file.iter_batches(batch_size=SAMPLE_BATCH_ROWS, use_threads=False):
                yield cut(_conform(batch, schema, table.partitioning.values(part)), limits.cell_bytes)


def _conform(batch: pa.RecordBatch, schema: pa.Schema, values: dict[str, object]) -> pa.RecordBatch:
    """Return the batch with the table's columns: those of the file, cast, and its partition's values."""

    def column(field: pa.Field[Any]) -> Any:
        if field.name in values:
            return pa.repeat(pa.scalar(values[field.name], field.type), batch.num_rows)
        if field.name not in batch.schema.names:
            return pa.nulls(batch.num_rows, field.type)
        found = batch.column(field.name)
        return found if found.type == field.type else found.cast(field.type, safe=False)

    return pa.RecordBatch.from_arrays([column(field) for field in schema], names=schema.names)


def _fitting(batch: pa.RecordBatch, room: int) -> pa.RecordBatch:
    """Return the longest beginning of the batch that takes at most ``room`` bytes."""
    if batch.nbytes <= room:
        return batch
    low, high = 0, batch.num_rows
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if batch.slice(0, middle).nbytes <= room else (low, middle)
    return batch.slice(0, low)


def _written(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    # Microseconds, and no Arrow schema beside Parquet's own: whoever shows a sample needs no pandas for nanoseconds.
    pq.write_table(
        table,
        sink,
        compression="zstd",
        coerce_timestamps="us",
        allow_truncated_timestamps=True,
        store_schema=False,
    )
    return sink.getvalue()


def _schema(part: Part, partitioning: Partitioning) -> pa.Schema:
    with translated(f"The file '{_name(part)}'"):
        found = pq.read_schema(part.path, memory_map=False)
    # As in Hive and Spark, a folder's value stands for a column of the same name in its files.
    fields = [_plain_field(field) for field in found if field.name not in partitioning.names]
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        raise SourceFailed(
            FailureCode.UNSUPPORTED,
            f"The file '{_name(part)}' has two columns of the same name.",
            "Rename one of them.",
        )
    return pa.schema(fields)


def _plain(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True).with_type(_in_microseconds(field.type)) for field in schema])


def _in_microseconds(kind: Any) -> pa.DataType:
    """Return the type with microseconds for nanoseconds, also inside of it: Python's own moments hold no more."""
    types = pa.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_time64(kind):
        return pa.time64("us")
    if types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if types.is_struct(kind):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_in_microseconds(kind.key_type), _in_microseconds(kind.item_type))
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    made: pa.DataType = kind
    return made


def _plain_field(field: pa.Field[Any]) -> pa.Field[Any]:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return pa.field(field.name, kind, field.nullable)


def _optional(field: pa.Field[Any]) -> pa.Field[Any]:
    return field.with_nullable(True)


def _is_partial(name: str, schemas: Sequence[pa.Schema]) -> bool:
    return any(name not in schema.names for schema in schemas)


def _spread(parts: Sequence[Part]) -> list[Part]:
    count = min(len(parts), MOST_SCHEMAS)
    last = max(1, count - 1)
    return [parts[index * (len(parts) - 1) // last] for index in range(count)]


def _rows(part: Part) -> int:
    with translated(f"The file '{_name(part)}'"):
        return int(pq.read_metadata(part.path, memory_map=False).num_rows)


def _name(part: Part) -> str:
    return part.path.rpartition("/")[2]
