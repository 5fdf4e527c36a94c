"""The rules about datasets, with plain values."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from torpor_hub.domain.datasets import (
    Condition,
    DatasetPhase,
    InvalidFilter,
    Waiting,
    code,
    conditions,
    dataset_phase,
    explain_queued,
    explain_ready,
    json_cell,
    kept_root,
    path_problem,
    root_of,
    variable,
)


def test_a_filter_becomes_conditions() -> None:
    raw = [["month", "==", 3], ["word", "in", ["a", "b"]], ["day", "is_null"], ["day", "is_valid", None]]
    assert conditions(raw) == (
        Condition("month", "==", 3),
        Condition("word", "in", ["a", "b"]),
        Condition("day", "is_null"),
        Condition("day", "is_valid"),
    )
    assert conditions(None) == ()


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        ("month == 3", ""),
        ([["month", "==", 1], "x"], "/1"),
        ([["month"]], "/0"),
        ([["month", "==", 1, 2]], "/0"),
        ([[1, "==", 1]], "/0"),
        ([["month", "like", "x"]], "/0/1"),
        ([["month", "==", None]], "/0/2"),
        ([["month", "in", 3]], "/0/2"),
        ([["month", "in", []]], "/0/2"),
        ([["month", "in", [1, None]]], "/0/2"),
        ([["month", "==", {"a": 1}]], "/0/2"),
        ([["month", "in", list(range(10_001))]], "/0/2"),
    ],
)
def test_a_filter_that_is_none_says_where(raw: Any, pointer: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        conditions(raw)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flights", "flights"),
        ("flights-2013", "flights_2013"),
        ("2013.flights", "dataset_2013_flights"),
        ("class", "class_"),
        ("list", "list_"),
        ("match", "match_"),
        ("torpor", "torpor_"),
        ("_", "dataset"),
    ],
)
def test_the_variable_is_an_identifier_that_hides_nothing(name: str, expected: str) -> None:
    assert variable(name) == expected
    assert expected.isidentifier()


def test_the_inserted_cell_is_the_documented_one() -> None:
    assert code("research", "flights") == (
        'import torpor\n\nflights = torpor.dataset("research/flights").to_pandas(limit=1000)\nflights.head()'
    )


@pytest.mark.parametrize(
    ("last", "has_sample", "phase"),
    [
        ("QUEUED", False, "IMPORTING"),
        ("SAMPLING", True, "IMPORTING"),
        ("READY", True, "READY"),
        ("FAILED", False, "FAILED"),
        ("FAILED", True, "STALE"),
        ("CANCELLED", True, "STALE"),
    ],
)
def test_a_dataset_is_where_its_last_import_and_its_sample_put_it(last: str, has_sample: bool, phase: str) -> None:
    assert dataset_phase(last, has_sample=has_sample) is DatasetPhase(phase)


def waiting(**values: Any) -> Waiting:
    usual = {"now": 1000.0, "asked_at": 999.0, "asked_text": "14:02 UTC", "source": "demo", "busy": 0, "most": 2}
    return Waiting(**{**usual, "silent_after_s": 30, **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"asked_at": 900.0}, "No importer has asked for work since 14:02 UTC; the import waits for one."),
        ({"asked_at": None}, "No importer has asked for work yet; the import waits for one."),
        ({"busy": 2}, "The import waits until one of the 2 tasks at the source 'demo' ends."),
        ({}, "The import waits for the importer to take it."),
    ],
)
def test_a_queued_import_says_what_it_waits_for(values: dict[str, Any], words: str) -> None:
    assert explain_queued(waiting(**values), "import")[0] == words


def test_a_ready_import_says_what_it_found() -> None:
    assert explain_ready({"rows": 336776, "files": 12}) == "336,776 rows in 12 files."
    assert explain_ready({"rows": 1, "files": 1}) == "1 row in 1 file."


@pytest.mark.parametrize("path", ["", "/x", "../x", "a/../b", "a//b", "a/..", "a\x00b"])
def test_a_path_that_may_lead_out_is_none(path: str) -> None:
    assert path_problem(path)


def test_values_of_every_kind_become_json() -> None:
    values = [2**53 - 1, 2**53, float("nan"), b"\x00\xff", Decimal("1.50"), dt.date(2013, 1, 2), None, True]
    assert [json_cell(value) for value in values] == [
        2**53 - 1,
        str(2**53),
        "nan",
        "00ff",
        "1.50",
        "2013-01-02",
        None,
        True,
    ]
    assert json_cell(dt.datetime(2013, 1, 2, 3, tzinfo=dt.UTC)) == "2013-01-02T03:00:00Z"
    assert json_cell({"a": [1, {"b": b"\x01"}]}) == {"a": [1, {"b": "01"}]}


@pytest.mark.parametrize("below", ["", "flights", "a/b"])
def test_a_root_in_the_platforms_own_data_moves_with_it(below: str) -> None:
    kept = kept_root(f"/old/state/data/{below}".rstrip("/"), "/old/state/data")
    assert root_of(kept, "/new/data") == f"/new/data/{below}".rstrip("/")


def test_a_root_elsewhere_stays_where_it_is() -> None:
    kept = kept_root("/mnt/store", "/old/state/data")
    assert root_of(kept, "/new/data") == kept == "/mnt/store"
