"""Testing, sampling and describing files."""

from __future__ import annotations

import datetime as dt
import errno
import io
import os
import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.conftest import Opened
from torpor_hub.errors import SourceFailed
from torpor_hub.sources.base import Connector, Limits, Request
from torpor_hub.sources.failures import translated
from torpor_hub.sources.registry import connector


def run_checks(source: Connector) -> dict[str, str]:
    return {check.name: check.run() for check in source.checks()}


def rows_of(content: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(content))


def refused(source: Connector) -> SourceFailed:
    with pytest.raises(SourceFailed) as caught:
        run_checks(source)
    return caught.value


def test_a_good_dataset_passes_every_step_of_the_test(table: Path, opened: Opened) -> None:
    found = run_checks(opened("table"))
    assert list(found) == ["root", "path", "readable", "read"]
    assert "first rows" in found["read"]


def test_the_description_agrees_with_duckdb(table: Path, opened: Opened) -> None:
    found = opened("table").describe(Limits(partitions=2))
    files = list(table.rglob("*.parquet"))
    months = duckdb.sql(
        f"SELECT DISTINCT month FROM read_parquet('{table}/*/*.parquet', hive_partitioning = true)"
    ).fetchall()
    largest = sorted((month for (month,) in months), reverse=True)
    assert found.stats["rows"] == duckdb.sql(f"SELECT count(*) FROM '{table}/*/*.parquet'").fetchall()[0][0]
    assert (found.stats["files"], found.stats["bytes"]) == (len(files), sum(file.stat().st_size for file in files))
    assert (found.partition_keys, found.partitions) == (("month",), len(months))
    assert found.newest == tuple(f"month={month}" for month in largest[:2])
    assert {column.name: column.type for column in found.columns}["month"] == "int64"


def test_a_sample_keeps_to_its_rows_and_begins_with_the_newest_partition(table: Path, opened: Opened) -> None:
    sample = opened("table").sample(Limits(rows=30))
    months = [int(folder.name.removeprefix("month=")) for folder in table.iterdir()]
    found = rows_of(sample.content)
    assert found.num_rows == sample.rows <= 30
    assert found["month"][0].as_py() == max(months)


def test_every_row_of_a_sample_is_a_row_of_the_dataset(table: Path, opened: Opened) -> None:
    found = {row["id"]: row for row in rows_of(opened("table").sample(Limits(rows=200)).content).to_pylist()}
    whole = duckdb.sql(f"SELECT * FROM read_parquet('{table}/*/*.parquet', hive_partitioning = true)").to_arrow_table()
    expected = {row["id"]: row for row in whole.to_pylist() if row["id"] in found}
    assert found == expected


def test_a_sample_of_large_values_keeps_to_its_bytes_and_cuts_cells(
    rng: random.Random, root: Path, opened: Opened
) -> None:
    lines = [rng.choice("åb") * rng.randrange(5000) for _ in range(900)]
    nested = [[line, line] for line in lines]
    pq.write_table(
        pa.table({"line": lines, "nested": nested, "raw": [line.encode() for line in lines]}), root / "wide.parquet"
    )
    sample = opened("wide.parquet").sample(Limits(rows=800, bytes=200_000, cell_bytes=100))
    found = rows_of(sample.content)
    assert 100 < found.num_rows < 800
    assert max(len(text.encode()) for text in found["line"].to_pylist()) <= 100
    assert max(sum(len(text.encode()) for text in cell) for cell in found["nested"].to_pylist()) <= 100
    assert len(sample.content) < 250_000


def test_an_empty_file_has_columns_and_no_rows(root: Path, opened: Opened) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int32())}), root / "empty.parquet")
    assert rows_of(opened("empty.parquet").sample(Limits()).content).column_names == ["a"]
    assert opened("empty.parquet").describe(Limits()).stats["rows"] == 0


@pytest.mark.parametrize("path", ["../secret.parquet", "inside/../../secret.parquet", "/etc", "", "a//b"])
def test_a_path_that_leaves_the_root_is_forbidden(path: str, root: Path, opened: Opened) -> None:
    pq.write_table(pa.table({"a": [1]}), root.parent / "secret.parquet")
    assert refused(opened(path)).code == "FORBIDDEN"


def test_symbolic_links_out_of_the_root_are_forbidden(root: Path, opened: Opened) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    pq.write_table(pa.table({"a": [1]}), outside / "secret.parquet")
    (root / "folder").symlink_to(outside)
    (root / "file.parquet").symlink_to(outside / "secret.parquet")
    (root / "mixed").mkdir()
    (root / "mixed" / "a.parquet").symlink_to(outside / "secret.parquet")
    (root / "nested").mkdir()
    (root / "nested" / "deep").symlink_to(outside)
    codes = {name: refused(opened(name)).code for name in ("folder", "file.parquet", "mixed", "nested")}
    assert set(codes.values()) == {"FORBIDDEN"}
    with pytest.raises(SourceFailed, match="outside"):
        list(opened("mixed").read(None, (), None))


def test_a_root_that_is_a_link_to_a_forbidden_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "allowed" / "root").symlink_to(tmp_path / "elsewhere")
    request = Request(
        {"root": str(tmp_path / "allowed" / "root")}, {"path": "x", "format": "parquet"}, (tmp_path / "allowed",)
    )
    error = refused(connector("files", request))
    assert (error.code, "source_roots" in error.next_step) == ("FORBIDDEN", True)


def test_what_is_not_there_or_not_parquet_has_a_code_and_a_sentence(root: Path, opened: Opened) -> None:
    (root / "text.parquet").write_text("no parquet at all")
    (root / "bare").mkdir()
    os.mkfifo(root / "bare-pipe.parquet")
    whole = pa.table({"a": range(1000)})
    pq.write_table(whole, root / "torn.parquet")
    (root / "torn.parquet").write_bytes((root / "torn.parquet").read_bytes()[:-30])
    found = {
        name: refused(opened(name)) for name in ("absent", "text.parquet", "bare", "bare-pipe.parquet", "torn.parquet")
    }
    assert [error.code for error in found.values()] == [
        "NOT_FOUND",
        "UNSUPPORTED",
        "NOT_FOUND",
        "UNSUPPORTED",
        "UNSUPPORTED",
    ]
    assert all(name in error.message for name, error in found.items())


def test_files_that_disagree_on_a_type_are_named_as_the_trouble(root: Path, opened: Opened) -> None:
    (root / "torn").mkdir()
    pq.write_table(pa.table({"a": [1]}), root / "torn" / "1.parquet")
    pq.write_table(pa.table({"a": [["x"]]}), root / "torn" / "2.parquet")
    with pytest.raises(SourceFailed, match="do not agree"):
        opened("torn").describe(Limits())


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (PermissionError(errno.EACCES, "denied"), "FORBIDDEN"),
        (OSError(errno.ESTALE, "stale file handle"), "UNREACHABLE"),
        (pa.ArrowMemoryError("malloc failed"), "TOO_LARGE"),
        (OSError("Corrupt snappy compressed data."), "UNSUPPORTED"),
    ],
)
def test_errors_of_the_file_system_become_one_of_the_closed_set(raised: Exception, code: str) -> None:
    with pytest.raises(SourceFailed, match="The file 'a'") as caught, translated("The file 'a'"):
        raise raised
    assert (caught.value.code, caught.value.__cause__) == (code, raised)


def test_a_sample_holds_moments_in_microseconds_also_inside_of_lists(root: Path, opened: Opened) -> None:
    exact = pa.array([1_357_092_000_123_456_789], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    moment = dt.datetime(2013, 1, 2, 2, 0, 0, 123456, dt.UTC)
    nested = pa.ListArray.from_arrays(pa.array([0, 1]), exact)
    place = pa.StructArray.from_arrays([exact, pa.array(["x" * 5000])], ["at", "note"])
    pq.write_table(pa.table({"at": exact, "all": nested, "place": place}), root / "exact.parquet", version="2.6")
    row = rows_of(opened("exact.parquet").sample(Limits()).content).to_pylist()[0]
    assert (row["at"], row["all"], row["place"]["at"]) == (moment, [moment], moment)
    assert len(row["place"]["note"]) < 2048
