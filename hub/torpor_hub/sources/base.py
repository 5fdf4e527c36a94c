"""What every connector offers, in plain values: nothing here keeps a connection between two calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torpor_hub.domain.datasets import Condition


@dataclass(frozen=True)
class Request:
    """What a connector is asked about: a source, a part of it, and the folders below which files may lie."""

    source: Mapping[str, Any]
    dataset: Mapping[str, Any]
    roots: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Limits:
    """How much a sample and a description may hold. ``partitions`` is how many of the newest are named."""

    rows: int = 1000
    bytes: int = 5 * 1024**2
    cell_bytes: int = 2048
    partitions: int = 20


@dataclass(frozen=True)
class Check:
    """One step of a test. ``run`` returns a sentence about what it found."""

    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Sample:
    """A sample, as the bytes of one Parquet file."""

    content: bytes
    rows: int


@dataclass(frozen=True)
class Column:
    """A column and its type, as Arrow names it."""

    name: str
    type: str
    nullable: bool

    def to_json(self) -> dict[str, Any]:
        """Return the column as JSON values."""
        return {"name": self.name, "type": self.type, "nullable": self.nullable}


@dataclass(frozen=True)
class Description:
    """What is known of a dataset without reading its rows."""

    columns: tuple[Column, ...]
    partition_keys: tuple[str, ...] = ()
    partitions: int = 0
    newest: tuple[str, ...] = ()
    stats: Mapping[str, int] = field(default_factory=dict)

    def schema(self) -> dict[str, Any]:
        """Return the schema as the api shows it."""
        return {
            "columns": [column.to_json() for column in self.columns],
            "partition_keys": list(self.partition_keys),
            "partitions": {"count": self.partitions, "newest": list(self.newest)},
        }


class Connector(Protocol):
    """One kind of store. Every method may hang or crash; only a child that can be killed calls it.

    Every method raises ``SourceFailed`` with a code of the closed set, a sentence and a next step.
    """

    def checks(self) -> Sequence[Check]:
        """Return the steps of a test, from the store itself to a real read of the named object."""
        ...

    def sample(self, limits: Limits) -> Sample:
        """Return some rows, newest partition first, within the limits."""
        ...

    def describe(self, limits: Limits) -> Description:
        """Return columns, partitions and what the store knows of rows and bytes."""
        ...

    def read(
        self, columns: Sequence[str] | None, conditions: Sequence[Condition], limit: int | None
    ) -> Iterator[bytes]:
        """Yield the pieces of one Arrow IPC stream of the rows that meet all conditions."""
        ...
