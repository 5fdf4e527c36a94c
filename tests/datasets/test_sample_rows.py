"""A stored sample as JSON: every kind of value, and moments that Python's calendar does not hold."""

from __future__ import annotations

import datetime as dt
import io
import json
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.sources.generated_tables import frame
from torpor_hub.services import samples


def shown(table: pa.Table, limit: int = 10_000) -> dict[str, Any]:
    sink = io.BytesIO()
    pq.write_table(table, sink, store_schema=False, coerce_timestamps="us")
    found = samples.as_json(samples.table(sink.getvalue(), limit))
    return dict(json.loads(json.dumps(found, allow_nan=False)))


def test_random_rows_read_back_as_what_they_were(rng: random.Random) -> None:
    table = frame(rng, 300)
    found = shown(table)
    names = [column["name"] for column in found["columns"]]
    for row, expected in zip(found["rows"], table.to_pylist(), strict=True):
        values = dict(zip(names, row, strict=True))
        assert values["big"] is None or int(values["big"]) == expected["big"]
        assert [values[name] for name in ("word", "tags", "place", "flag")] == [
            expected[name] for name in ("word", "tags", "place", "flag")
        ]
        for name in ("at", "local"):
            assert values[name] is None or dt.datetime.fromisoformat(values[name]) == expected[name]


def test_a_limit_shows_the_first_rows() -> None:
    assert shown(pa.table({"n": range(10)}), limit=3)["rows"] == [[0], [1], [2]]


def test_moments_beyond_pythons_calendar_are_still_shown() -> None:
    far = pa.array([253_402_300_800 * 10**6, 0], pa.int64()).cast(pa.timestamp("us"))
    assert shown(pa.table({"at": far}))["rows"] == [["10000-01-01T00:00:00"], ["1970-01-01T00:00:00"]]
