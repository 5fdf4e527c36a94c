"""The connector ``files``: Parquet files and hive-partitioned folders below a root on this machine's file system."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from torpor_hub.domain.datasets import Condition, FailureCode, columns_problem
from torpor_hub.errors import SourceFailed
from torpor_hub.sources import folders, parquet
from torpor_hub.sources.base import Check, Column, Description, Limits, Request, Sample
from torpor_hub.sources.expressions import expression
from torpor_hub.sources.failures import translated
from torpor_hub.sources.partitions import label, newest_first
from torpor_hub.sources.streams import pieces

BATCH_ROWS = 32_768


class Files:
    """Reads one dataset of a files source. The folder is looked through anew by every call, because it may change."""

    def __init__(self, request: Request) -> None:
        root, path = request.source.get("root"), request.dataset.get("path")
        if not isinstance(root, str) or not Path(root).is_absolute():
            raise SourceFailed(
                FailureCode.UNSUPPORTED, "A files source needs an absolute 'root'.", "Correct the source."
            )
        if not isinstance(path, str) or request.dataset.get("format") != "parquet":
            raise SourceFailed(
                FailureCode.UNSUPPORTED, "A files source reads the format 'parquet' only.", "Register it as parquet."
            )
        self._root, self._path, self._allowed = root, path, request.roots

    def checks(self) -> Sequence[Check]:
        """Return the steps: the root, the path inside of it, the right to read, and a real read."""
        return (
            Check("root", self._check_root),
            Check("path", self._check_path),
            Check("readable", self._check_readable),
            Check("read", self._check_read),
        )

    def sample(self, limits: Limits) -> Sample:
        """Return rows of the newest partitions."""
        return parquet.sample(parquet.open_table(self._parts()), limits)

    def describe(self, limits: Limits) -> Description:
        """Return columns, partitions, and rows, bytes and files from the footers."""
        table = parquet.open_table(self._parts())
        names = table.partitioning.names
        newest = list(dict.fromkeys(label(part.keys) for part in newest_first(table.partitioning, table.parts)))
        columns = tuple(Column(field.name, str(field.type), field.nullable) for field in table.schema)
        shown = tuple(newest[: limits.partitions]) if names else ()
        count = len(newest) if names else 0
        return Description(columns, names, count, shown, parquet.statistics(table.parts))

    def read(
        self, columns: Sequence[str] | None, conditions: Sequence[Condition], limit: int | None
    ) -> Iterator[bytes]:
        """Yield the pieces of one Arrow IPC stream; files and row groups that cannot hold a match are not read."""
        table = parquet.open_table(self._parts())
        problem = columns_problem(columns, table.schema.names)
        if problem:
            raise SourceFailed(FailureCode.UNSUPPORTED, problem, "Check the columns.")
        chosen = list(columns) if columns is not None else table.schema.names
        with translated("The dataset"):
            scanner = table.dataset().scanner(
                columns=chosen,
                filter=expression(conditions, table.schema),
                batch_size=BATCH_ROWS,
                batch_readahead=2,
                fragment_readahead=2,
                cache_metadata=False,
            )
            yield from pieces(scanner.projected_schema, scanner.to_batches(), limit)

    def _parts(self) -> tuple[folders.Part, ...]:
        root = folders.locate_root(self._root, self._allowed)
        return folders.parts(root, folders.locate_object(root, self._path), self._path)

    def _check_root(self) -> str:
        folders.locate_root(self._root, self._allowed)
        return "The root is there."

    def _check_path(self) -> str:
        root = folders.locate_root(self._root, self._allowed)
        folders.locate_object(root, self._path)
        return "The path lies inside of the root."

    def _check_readable(self) -> str:
        parts = self._parts()
        for part in (parts[0], parts[-1]):
            with translated(f"The file '{Path(part.path).name}'"):
                os.close(os.open(part.path, os.O_RDONLY | os.O_CLOEXEC))
        return f"{len(parts):,} Parquet {'file' if len(parts) == 1 else 'files'} found."

    def _check_read(self) -> str:
        rows = parquet.first_rows(self._parts()[0])
        return f"The first rows could be read ({rows})."
