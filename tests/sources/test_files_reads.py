"""What a read gives is what DuckDB finds in the same files."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.conftest import Opened
from torpor_hub.domain.datasets import conditions
from torpor_hub.errors import SourceFailed
from torpor_hub.sources import streams
from torpor_hub.sources.base import Connector, Limits

SQL = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def read(
    source: Connector, columns: list[str] | None = None, filter_: Any = None, limit: int | None = None
) -> pa.Table:
    content = b"".join(source.read(columns, conditions(filter_), limit))
    return pa.ipc.open_stream(content).read_all()


def judge(folder: Path) -> str:
    return f"read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"


def quoted(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'" if isinstance(value, str) else str(value)


def as_sql(column: str, operator: str, value: object) -> str:
    if operator in ("is_null", "is_valid"):
        return f'"{column}" IS {"" if operator == "is_null" else "NOT "}NULL'
    if operator in ("in", "not_in"):
        listed = ", ".join(quoted(item) for item in value)  # type: ignore[attr-defined]
        return f'"{column}" {"" if operator == "in" else "NOT "}IN ({listed})'
    return f'"{column}" {SQL[operator]} {quoted(value)}'


def random_condition(rng: random.Random) -> list[object]:
    makes: dict[str, Any] = {
        "month": lambda: rng.randrange(1, 13),
        "id": lambda: rng.randrange(3000),
        "small": lambda: rng.choice([rng.randrange(-100, 100), 2**40, 2.5]),
        "ratio": lambda: rng.uniform(-1e6, 1e6),
        "word": lambda: rng.choice(["a", "snö", "O'Hare", "zz"]),
        "day": lambda: str(dt.date(2013, 1, 1) + dt.timedelta(days=rng.randrange(1200))),
        "at": lambda: f"2014-{rng.randrange(1, 13):02}-11T05:00:00Z",
        "local": lambda: f"2014-{rng.randrange(1, 13):02}-11T05:00:00",
        "price": lambda: rng.randrange(10**6) / 100,
    }
    column = rng.choice(list(makes))
    operator = rng.choice([*SQL, "in", "not_in", "is_null", "is_valid"])
    if operator in ("is_null", "is_valid"):
        return [column, operator, None]
    if operator in ("in", "not_in"):
        return [column, operator, [makes[column]() for _ in range(rng.randrange(1, 5))]]
    return [column, operator, makes[column]()]


def test_a_read_gives_every_row_and_value_that_duckdb_finds(table: Path, opened: Opened) -> None:
    found = read(opened("table"))
    expected = duckdb.sql(f"SELECT * FROM {judge(table)} ORDER BY id").to_arrow_table()
    assert found.column_names == [*[name for name in expected.column_names if name != "month"], "month"]
    assert found.sort_by("id").select(expected.column_names).to_pylist() == expected.to_pylist()


def test_filtered_reads_agree_with_duckdb(rng: random.Random, table: Path, opened: Opened) -> None:
    source = opened("table")
    duckdb.sql("SET TimeZone = 'UTC'")
    for _ in range(60):
        chosen = [random_condition(rng) for _ in range(rng.randrange(1, 4))]
        where = " AND ".join(as_sql(*condition) for condition in chosen)  # type: ignore[arg-type]
        expected = duckdb.sql(f"SELECT count(*), sum(id), sum(price) FROM {judge(table)} WHERE {where}").fetchall()
        got = (
            duckdb.from_arrow(read(source, ["id", "price"], chosen))
            .aggregate("count(*), sum(id), sum(price)")
            .fetchall()
        )
        assert got == expected, chosen


def test_a_limit_gives_that_many_rows_and_no_more(table: Path, opened: Opened) -> None:
    assert read(opened("table"), ["id", "month"], limit=7).num_rows == 7


def test_a_stream_of_nothing_still_tells_the_columns(table: Path, opened: Opened) -> None:
    found = read(opened("table"), ["month", "word"], [["id", "<", 0]])
    assert (found.num_rows, found.column_names) == (0, ["month", "word"])


def test_the_pieces_are_small_and_join_to_one_stream(root: Path, opened: Opened) -> None:
    pq.write_table(pa.table({"n": pa.arange(0, 2_000_000)}), root / "large.parquet")
    sent = list(opened("large.parquet").read(None, (), None))
    joined = pa.ipc.open_stream(b"".join(sent)).read_all().take(list(range(0, 2_000_000, 100_000)))
    assert [len(piece) for piece in sent[:-1]] == [streams.PIECE_BYTES] * (len(sent) - 1)
    assert joined["n"].to_pylist() == list(range(0, 2_000_000, 100_000))


@pytest.mark.parametrize(
    ("columns", "filter_", "words"),
    [
        (["absent"], None, "There is no column 'absent'"),
        ([], None, "at least one column"),
        (["id", "id"], None, "named twice"),
        (None, [["absent", "==", 1]], "There is no column 'absent'"),
        (None, [["id", "==", "seven"]], "which holds int64"),
        (None, [["day", ">", "yesterday"]], "which holds date32"),
        (None, [["flag", "==", 1]], "which holds bool"),
        (None, [["tags", "==", "a"]], "which holds list"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(
    columns: list[str] | None, filter_: Any, words: str, table: Path, opened: Opened
) -> None:
    with pytest.raises(SourceFailed, match=words) as caught:
        read(opened("table"), columns, filter_)
    assert caught.value.code == "UNSUPPORTED"


def test_files_of_an_older_schema_read_with_nulls_and_wider_numbers(root: Path, opened: Opened) -> None:
    (root / "grown").mkdir()
    pq.write_table(pa.table({"a": pa.array([1], pa.int32())}), root / "grown" / "1.parquet")
    pq.write_table(pa.table({"a": pa.array([2**40]), "b": ["x"]}), root / "grown" / "2.parquet")
    assert read(opened("grown")).to_pylist() == [{"a": 1, "b": None}, {"a": 2**40, "b": "x"}]
    assert [str(row) for row in read(opened("grown"), filter_=[["a", ">", 5]])["b"]] == ["x"]


def test_a_folder_value_stands_for_a_column_of_the_same_name(root: Path, opened: Opened) -> None:
    (root / "twice" / "year=2013").mkdir(parents=True)
    pq.write_table(pa.table({"year": ["wrong"], "n": [1]}), root / "twice" / "year=2013" / "a.parquet")
    assert read(opened("twice")).to_pylist() == [{"n": 1, "year": 2013}]


@pytest.mark.parametrize(
    "values", [["__HIVE_DEFAULT_PARTITION__", "a b", "c%3Dd"], ["01", "2"], ["2013-01-31", "2013-02-01"]]
)
def test_partition_values_read_as_duckdb_reads_them(values: list[str], root: Path, opened: Opened) -> None:
    for index, value in enumerate(values):
        (root / "keyed" / f"key={value}").mkdir(parents=True)
        pq.write_table(pa.table({"n": [index]}), root / "keyed" / f"key={value}" / "a.parquet")
    expected = duckdb.sql(f"SELECT n, key FROM {judge(root / 'keyed')} ORDER BY n").fetchall()
    assert [tuple(row.values()) for row in read(opened("keyed")).sort_by("n").to_pylist()] == expected
    assert opened("keyed").describe(Limits()).partitions == len(values)
