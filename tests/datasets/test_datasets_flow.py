"""Registering, browsing, sampling and reading a dataset through the api, with a real importer."""

from __future__ import annotations

import random
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pytest

from tests.datasets.served_platform import Platform


def read(served: Platform, dataset: str, name: str = "ada", **body: Any) -> pa.Table:
    made = served.send(name, "POST", f"/datasets/{dataset}/reads", json=body)
    assert made.status_code == 201, made.text
    answer = served.send(name, "GET", f"/reads/{made.json()['id']}/stream")
    assert answer.status_code == 200, answer.text
    return pa.ipc.open_stream(answer.content).read_all()


def judge(folder: Path) -> str:
    return f"read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"


def count(text: str) -> int:
    return int(duckdb.sql(text).fetchall()[0][0])


def test_a_registered_dataset_becomes_ready_with_what_duckdb_counts(
    served: Platform, table: Path, ready: dict[str, Any]
) -> None:
    status = ready["status"]
    files = list(table.rglob("*.parquet"))
    assert status["rows"] == count(f"SELECT count(*) FROM {judge(table)}")
    assert (status["files"], status["bytes"]) == (len(files), sum(file.stat().st_size for file in files))
    assert [stage["state"] for stage in status["import"]["stages"]] == ["ok"] * 6
    assert status["path"] == str(table)
    schema = served.send("ben", "GET", f"/datasets/{ready['id']}/schema")
    assert schema.status_code == 404
    schema = served.send("ada", "GET", f"/datasets/{ready['id']}/schema").json()
    assert schema["partition_keys"] == ["month"]
    assert schema["partitions"]["count"] == len(list(table.iterdir()))


def test_the_sample_is_shown_as_json_and_as_arrow(served: Platform, table: Path, ready: dict[str, Any]) -> None:
    path = f"/datasets/{ready['id']}/sample"
    shown = served.send("ada", "GET", path, params={"limit": 20}).json()
    stream = served.send("ada", "GET", path, params={"limit": 20, "format": "arrow"}).content
    names = [column["name"] for column in shown["columns"]]
    ids = [row[names.index("id")] for row in shown["rows"]]
    assert len(ids) == min(20, ready["status"]["sample_rows"])
    assert pa.ipc.open_stream(stream).read_all()["id"].to_pylist() == ids
    words = dict(duckdb.sql(f"SELECT id, word FROM {judge(table)}").fetchall())
    assert [row[names.index("word")] for row in shown["rows"]] == [words[number] for number in ids]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", shown["as_of"])


def test_filtered_reads_stream_what_duckdb_finds(
    rng: random.Random, served: Platform, table: Path, ready: dict[str, Any]
) -> None:
    months = [int(folder.name.removeprefix("month=")) for folder in table.iterdir()]
    month, least = rng.choice(months), rng.randrange(-50, 50)
    found = read(served, ready["id"], columns=["id", "month"], filter=[["month", "==", month], ["small", ">=", least]])
    expected = duckdb.sql(f"SELECT id, month FROM {judge(table)} WHERE month = {month} AND small >= {least}").fetchall()
    assert sorted(zip(*(found[name].to_pylist() for name in ("id", "month")), strict=True)) == sorted(expected)
    assert read(served, ready["id"], limit=5).num_rows == min(5, ready["status"]["rows"])


def test_the_same_read_can_be_streamed_again(served: Platform, ready: dict[str, Any]) -> None:
    made = served.send("ada", "POST", f"/datasets/{ready['id']}/reads", json={"columns": ["id"]}).json()
    twice = [served.send("ada", "GET", f"/reads/{made['id']}/stream").content for _ in range(2)]
    assert twice[0] == twice[1]
    assert served.send("ada", "GET", f"/reads/{made['id']}").json()["status"]["phase"] == "READY"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"columns": ["absent"]}, "/columns"),
        ({"columns": []}, "/columns"),
        ({"filter": [["absent", "==", 1]]}, "/filter/0/0"),
        ({"filter": [["id", "=~", 1]]}, "/filter/0/1"),
        ({"filter": [["id", "==", 1], ["id", "==", None]]}, "/filter/1/2"),
        ({"limit": -1}, "/limit"),
        ({"surprise": 1}, "/surprise"),
    ],
)
def test_a_wrong_read_is_refused_at_once_and_says_where(
    body: dict[str, Any], pointer: str, served: Platform, ready: dict[str, Any]
) -> None:
    answer = served.send("ada", "POST", f"/datasets/{ready['id']}/reads", json=body)
    assert (answer.status_code, answer.json()["pointer"]) == (422, pointer)


def test_a_read_that_only_the_importer_can_judge_answers_with_its_sentence(
    served: Platform, ready: dict[str, Any]
) -> None:
    made = served.send("ada", "POST", f"/datasets/{ready['id']}/reads", json={"filter": [["day", ">", "soon"]]}).json()
    answer = served.send("ada", "GET", f"/reads/{made['id']}/stream")
    assert (answer.status_code, answer.json()["code"]) == (502, "source_unsupported")
    assert "which holds date32" in answer.json()["detail"]


def test_a_torn_file_ends_the_stream_without_its_end(served: Platform, tmp_path: Path) -> None:
    large = served.data / f"torn-{tmp_path.name}" / "large.parquet"
    large.parent.mkdir()
    duckdb.sql(f"COPY (SELECT range AS id, random() AS ratio FROM range(3000000)) TO '{large}' (row_group_size 100000)")
    content = bytearray(large.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 1_000_000] = bytes(1_000_000)
    large.write_bytes(content)
    made = served.register(f"torn.{uuid.uuid4().hex[:8]}", large.parent.name)
    assert served.ended(made["id"])["status"]["phase"] == "READY"
    read_id = served.send("ada", "POST", f"/datasets/{made['id']}/reads", json={"columns": ["ratio"]}).json()["id"]
    received = bytearray()
    with suppress(httpx.TransportError), served.stream("ada", f"/reads/{read_id}/stream") as answer:
        for chunk in answer.iter_bytes():
            received += chunk
    assert len(received) > 1_000_000
    assert bytes(received[-8:]) != b"\xff\xff\xff\xff\x00\x00\x00\x00"
    assert served.send("ada", "GET", f"/reads/{read_id}").json()["status"]["phase"] == "FAILED"


def test_the_inserted_code_names_the_dataset_and_nothing_else(served: Platform, ready: dict[str, Any]) -> None:
    code = ready["status"]["code"]
    assert f'torpor.dataset("research/{ready["name"]}")' in code
    assert str(served.data) not in code
    compile(code, "cell", "exec")


def test_a_failed_import_says_why_and_the_old_sample_stays(served: Platform, table: Path) -> None:
    folder = served.data / f"moved-{uuid.uuid4().hex[:8]}"
    shutil.copytree(table, folder)
    before = served.ended(served.register(folder.name, folder.name)["id"])
    folder.rename(folder.with_name(f"{folder.name}-away"))
    path = f"/datasets/{before['id']}"
    assert served.send("ada", "POST", f"{path}/imports").status_code == 201
    found = served.ended(before["id"])["status"]
    assert (found["phase"], found["reason"], found["rows"]) == ("STALE", "NOT_FOUND", before["status"]["rows"])
    assert "does not exist" in found["message"]
    assert "still served" in found["message"]
    assert served.send("ada", "GET", f"{path}/sample").status_code == 200


def test_an_import_of_what_is_not_there_fails_at_its_step(served: Platform) -> None:
    made = served.register(f"absent.{uuid.uuid4().hex[:8]}", "absent")
    found = served.ended(made["id"])["status"]
    states = {stage["name"]: stage["state"] for stage in found["import"]["stages"]}
    assert (found["phase"], found["reason"], found["sample_rows"]) == ("FAILED", "NOT_FOUND", None)
    assert (states["root"], states["path"], states["sample"]) == ("ok", "failed", "waiting")
    assert found["next_step"]
    sample = served.send("ada", "GET", f"/datasets/{made['id']}/sample")
    assert (sample.status_code, sample.json()["code"]) == (409, "conflict")
