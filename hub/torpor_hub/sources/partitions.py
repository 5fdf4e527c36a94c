"""Partitions of a hive layout: their types from the names of folders, and which are the newest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.dataset as ds

from torpor_hub.sources.folders import HIVE_NULL, Keys, Part

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Partitioning:
    """The partition keys of a dataset, typed."""

    schema: pa.Schema

    @property
    def names(self) -> tuple[str, ...]:
        """The keys, outermost folder first."""
        return tuple(self.schema.names)

    def values(self, part: Part) -> dict[str, object]:
        """Return a file's partition values by key; None where it has none."""
        texts = dict(part.keys)
        return {field.name: _typed(texts.get(field.name), field.type) for field in self.schema}

    def expression(self, part: Part) -> ds.Expression:
        """Return what is true of every row of a file."""
        result = ds.scalar(True)
        for name, value in self.values(part).items():
            kind = self.schema.field(name).type
            here = ds.field(name).is_null() if value is None else ds.field(name) == pa.scalar(value, kind)
            result = result & here
        return result


def discover(parts: Sequence[Part]) -> Partitioning:
    """Return the keys of all folders. A key is a whole number or a date when all its values are, else text."""
    values: dict[str, set[str]] = {}
    for part in parts:
        for key, value in part.keys:
            seen = values.setdefault(key, set())
            if value is not None:
                seen.add(value)
    return Partitioning(pa.schema([pa.field(key, _type_of(seen)) for key, seen in values.items()]))


def newest_first(partitioning: Partitioning, parts: Sequence[Part]) -> list[Part]:
    """Return the files, those of the largest partition values first."""

    def order(part: Part) -> tuple[tuple[bool, object], ...]:
        # A null sorts below every value, and is never compared with one.
        return tuple((value is not None, value) for value in partitioning.values(part).values())

    return sorted(parts, key=order, reverse=True)


def label(keys: Keys) -> str:
    """Return a partition's name as its folders spell it: ``year=2013/month=1``."""
    return "/".join(f"{key}={HIVE_NULL if value is None else value}" for key, value in keys)


def _type_of(values: set[str]) -> pa.DataType:
    if values and all(_is_integer(value) for value in values):
        return pa.int64()
    if values and all(_is_date(value) for value in values):
        return pa.date32()
    return pa.string()


def _typed(value: str | None, kind: pa.DataType) -> object:
    if value is None:
        return None
    if pa.types.is_int64(kind):
        return int(value)
    return date.fromisoformat(value) if pa.types.is_date32(kind) else value


def _is_integer(text: str) -> bool:
    # Only as a number is written: `01` stays text, so that no two folders become one value.
    return INTEGER.fullmatch(text) is not None and int(text) in INT64


def _is_date(text: str) -> bool:
    if len(text) != 10 or text[4] != "-":
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
