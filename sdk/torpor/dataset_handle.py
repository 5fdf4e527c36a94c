"""A dataset of the platform: what is stored about it at once, and its rows by a read."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from torpor import arrow_streams, progress, snapshots, units, wire
from torpor.errors import Forbidden, IncompleteStream, Problem
from torpor.models import Column, DatasetStatus, Resource, known, parse_time

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from torpor.connection import Connection

# The store behind a dataset may be slow to begin; the platform ends a read that makes no progress long before this.
READ_SILENCE_S = 300.0


@dataclass(frozen=True)
class Schema:
    """The columns of a dataset. ``partition_count`` is how many partitions there are; ``newest_partitions`` names some."""

    name: str
    columns: tuple[Column, ...]
    partition_keys: tuple[str, ...] = ()
    partition_count: int = 0
    newest_partitions: tuple[str, ...] = ()
    as_of: datetime | None = None

    @property
    def names(self) -> list[str]:
        """Return the names of the columns."""
        return [column.name for column in self.columns]

    def __repr__(self) -> str:
        return f"{snapshots.table_text(self._headings, self._rows())}\n{self._caption()}"

    def _repr_html_(self) -> str:
        return snapshots.table_html(self._caption(), self._headings, self._rows())

    _headings = ("column", "type", "")

    def _rows(self) -> list[tuple[str, str, str]]:
        def _note(column: Column) -> str:
            required = "" if column.nullable else "never null"
            return "partition key" if column.name in self.partition_keys else required

        return [(column.name, column.type, _note(column)) for column in self.columns]

    def _caption(self) -> str:
        parts = f", {self.partition_count} partitions" if self.partition_keys else ""
        when = f", as of {self.as_of:%Y-%m-%d %H:%M} UTC" if self.as_of else ""
        return f"{self.name}: {len(self.columns)} columns{parts}{when}"


class Dataset:
    """A dataset. ``schema`` and ``sample`` read what the platform stored; ``to_pandas`` and ``to_arrow`` read its source."""

    def __init__(self, connection: Connection, resource: Resource) -> None:
        self._connection = connection
        self._resource = resource

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a job's function hold a dataset: what is known of it travels, the connection and its token do not."""
        return (_recalled, (self._resource,))

    @property
    def id(self) -> str:
        """Return the id."""
        return self._resource.id

    @property
    def name(self) -> str:
        """Return ``tenant/name``, which ``torpor.dataset`` takes."""
        return self._resource.name if "/" in self._resource.name else f"{self._resource.tenant}/{self._resource.name}"

    @property
    def resource(self) -> Resource:
        """Return the dataset as last heard of, with its spec."""
        return self._resource

    @property
    def status(self) -> DatasetStatus:
        """Return the state now: what the last import found."""
        self._resource = Resource.parse(self._connection.json(wire.one("datasets", self.id)))
        return self.last_status

    @property
    def last_status(self) -> DatasetStatus:
        """Return the state as last heard of, without asking."""
        return DatasetStatus.parse(self._resource.status)

    @property
    def rows(self) -> int | None:
        """Return how many rows the last import counted; None before the first."""
        return self.last_status.rows

    @property
    def as_of(self) -> datetime | None:
        """Return when the last import looked, in UTC; None before the first."""
        return self.last_status.as_of

    @property
    def path(self) -> str:
        """Return the folder or file for code in a workspace or job. Raises Forbidden without the right to read it."""
        if not self.last_status.path:
            detail = f"{self.name} has no path that you may read."
            step = "Ask an admin of its tenant for the right to read it, or use .sample()."
            raise Forbidden(Problem(403, "no_path", detail=detail, next_step=step))
        return self.last_status.path

    @property
    def schema(self) -> Schema:
        """Return the columns and partitions that the last import found."""
        answer = self._connection.json(wire.one("datasets", self.id, "schema"))
        partitions = answer.get("partitions") or {}
        return Schema(
            name=self.name,
            columns=tuple(Column(**known(Column, column)) for column in answer["columns"]),
            partition_keys=tuple(answer.get("partition_keys") or ()),
            partition_count=int(partitions.get("count") or 0),
            newest_partitions=tuple(str(name) for name in partitions.get("newest") or ()),
            as_of=parse_time(answer.get("as_of")),
        )

    def sample(self, n: int = 100) -> pd.DataFrame:
        """Return up to ``n`` rows of the sample that the platform stored. It never asks the source."""
        request = wire.one("datasets", self.id, "sample").with_params(limit=n, format="arrow")
        return _frame(arrow_streams.parse(self._connection.send(request).content, f"the sample of {self.name}"))

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        filter: Sequence[Sequence[Any]] = (),
        limit: int | None = None,
    ) -> pa.Table:
        """Return rows as an Arrow table: ``columns`` (all by default), of rows for which every condition in ``filter`` holds
        (``[["month", "==", 3], …]``; ``== != < <= > >= in not_in is_null is_valid``), at most ``limit``.

        Raises IncompleteStream if the rows break off in the middle: there is no short answer.
        """
        request = wire.read_dataset(self.id, columns, filter, limit, key=uuid.uuid4().hex)
        read_id = self._connection.json(request)["id"]
        return arrow_streams.parse(self._receive(wire.one("reads", read_id, "stream")), self.name)

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        filter: Sequence[Sequence[Any]] = (),
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Return rows as a data frame; everything else is as in ``to_arrow``."""
        return _frame(self.to_arrow(columns, filter, limit))

    def _receive(self, request: wire.Request) -> bytearray:
        import httpx

        received = bytearray()
        try:
            with (
                progress.shown(lambda: f"Reading {self.name}: {units.size(len(received))}"),
                self._connection.stream(request, silence_s=READ_SILENCE_S) as answer,
            ):
                for piece in answer.iter_bytes():
                    received += piece
        except httpx.TransportError as error:
            raise IncompleteStream(
                f"The rows of {self.name} broke off after {units.size(len(received))} ({error}).",
                next_step="Ask again; torpor datasets show says whether its source answers.",
            ) from error
        return received

    def __repr__(self) -> str:
        return f"<torpor.Dataset {self.name} {self.last_status.phase}>"

    def _repr_html_(self) -> str:
        status = self.last_status
        counts = [("rows", f"{status.rows:,}" if status.rows is not None else "not counted")]
        size = [("size", units.size(status.bytes))] if status.bytes is not None else []
        when = [("as of", f"{status.as_of:%Y-%m-%d %H:%M} UTC")] if status.as_of else []
        said = " ".join(text for text in (status.message, status.next_step) if text)
        return snapshots.table_html(said, (self.name, status.phase), [*counts, *size, *when])


def _frame(table: pa.Table) -> pd.DataFrame:
    # One column at a time leaves Arrow while its pandas copy is made: the peak is one frame and one column, not two frames.
    return table.to_pandas(split_blocks=True, self_destruct=True)


def _recalled(resource: Resource) -> Dataset:
    """Return a dataset that came by pickle; it connects, by the configuration in force there, when it first has to ask."""
    return Dataset(cast("Connection", _Later()), resource)


class _Later:
    """A connection that is made at its first use."""

    def __getattr__(self, name: str) -> Any:
        from torpor.client import Client

        return getattr(Client().connection, name)
