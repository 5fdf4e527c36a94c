"""A filter as an Arrow expression, with values in the columns' types and the nulls of SQL."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from torpor_hub.domain.datasets import Condition, FailureCode, unknown_column
from torpor_hub.errors import SourceFailed

COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def expression(conditions: Sequence[Condition], schema: pa.Schema) -> ds.Expression | None:
    """Return all conditions as one expression, or None where there are none. A null meets no comparison, as in SQL.

    Raises:
        SourceFailed: UNSUPPORTED, for an unknown column or a value that does not suit its type.
    """
    made = [_one(condition, schema) for condition in conditions]
    return reduce(operator.and_, made) if made else None


def _one(condition: Condition, schema: pa.Schema) -> Any:
    if condition.column not in schema.names:
        raise SourceFailed(FailureCode.UNSUPPORTED, unknown_column(condition.column, schema.names), "Check the filter.")
    field = ds.field(condition.column)
    kind = schema.field(condition.column).type
    if condition.operator == "is_null":
        return field.is_null()
    if condition.operator == "is_valid":
        return field.is_valid()
    if condition.operator in COMPARISONS:
        return COMPARISONS[condition.operator](field, _literal(condition, condition.value, kind))
    found = field.isin(_members(condition, kind))
    return found if condition.operator == "in" else ~found & field.is_valid()


def _members(condition: Condition, kind: pa.DataType) -> pa.Array[Any]:
    """Return the list's values in the column's type; what has no place in it can equal no row and is left out."""
    values = condition.value if isinstance(condition.value, list) else []
    kept = []
    for value in values:
        literal = _literal(condition, value, kind)
        try:
            kept.append(literal.cast(kind))
        except pa.ArrowInvalid:
            continue
    return pa.array([scalar.as_py() for scalar in kept], kind)


def _literal(condition: Condition, value: object, kind: pa.DataType) -> pa.Scalar[Any]:
    try:
        return _scalar(value, kind)
    except (ValueError, TypeError, InvalidOperation, pa.ArrowException) as error:
        raise SourceFailed(
            FailureCode.UNSUPPORTED,
            f"The filter compares column '{condition.column}', which holds {kind}, with {value!r}.",
            "Give a value of the column's type; dates and times as ISO 8601 text.",
        ) from error


def _scalar(value: object, kind: pa.DataType) -> pa.Scalar[Any]:
    """Return a JSON value as a scalar that the column can be compared with.

    Raises:
        TypeError, ValueError: when it cannot be compared.
    """
    types = pa.types
    if isinstance(value, bool) or types.is_boolean(kind):
        if not (isinstance(value, bool) and types.is_boolean(kind)):
            raise TypeError(value)
        return pa.scalar(value)
    if isinstance(value, int | float):
        return _number(value, kind)
    if not isinstance(value, str):
        raise TypeError(value)
    if types.is_decimal(kind):
        return pa.scalar(Decimal(value))
    if types.is_temporal(kind):
        return _moment(value, kind)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return pa.scalar(value.encode(), kind)
    if types.is_string(kind) or types.is_large_string(kind):
        return pa.scalar(value, kind)
    raise TypeError(value)


def _number(value: float, kind: pa.DataType) -> pa.Scalar[Any]:
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(str(value)))
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise TypeError(value)
    # Not in the column's own type: 2.5 and 2 ** 40 compare well with a column of small whole numbers.
    return pa.scalar(value)


def _moment(value: str, kind: Any) -> pa.Scalar[Any]:
    if pa.types.is_date(kind):
        return pa.scalar(date.fromisoformat(value), kind)
    if pa.types.is_time(kind):
        return pa.scalar(time.fromisoformat(value), kind)
    if not pa.types.is_timestamp(kind):
        raise TypeError(value)
    moment = datetime.fromisoformat(value)
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    scalar: pa.Scalar[Any] = pa.scalar(aware if kind.tz else aware.astimezone(UTC).replace(tzinfo=None), kind)
    return scalar
