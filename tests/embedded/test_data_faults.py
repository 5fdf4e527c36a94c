"""Data when the importer stands still or a source hangs: browsing goes on, and the rest is said."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from tests.importer.leases import hanging
from tests.support.people import Person
from tests.support.platform import Platform, platform, until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]
SETTINGS = """
[limits]
import_stage_s = 8
claim_s = 4
import_claim_s = 3
"""
ANSWERS_WITHIN_S = 2.0
ENDED = ("READY", "FAILED", "CANCELLED")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("platform"), settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def root(site: Platform) -> Person:
    return Person(site, "root")


def register(site: Platform, root: Person, name: str, rows: int) -> str:
    """Return the id of a new dataset in a source of its own; its import is queued."""
    folder = site.state / "data" / name
    folder.mkdir(parents=True)
    duckdb.sql(f"COPY (SELECT range AS number FROM range({rows})) TO '{folder / 'part.parquet'}' (FORMAT parquet)")
    source = {"name": name, "tenant": "research", "kind": "files", "spec": {"root": str(folder)}}
    assert root.client.post("/sources", json=source).status_code == 201
    made = root.client.post("/datasets", json={"name": name, "tenant": "research", "source": name, "path": "."})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def import_of(root: Person, dataset: str) -> dict[str, Any]:
    """Return the newest import of a dataset."""
    return dict(root.get(f"/imports/{_latest(root, dataset)}")["status"])


def imported(root: Person, dataset: str, within_s: float = 60) -> dict[str, Any]:
    """Return the newest import once it has ended."""
    until(lambda: import_of(root, dataset)["phase"] in ENDED, within_s, f"the import of {dataset}")
    return import_of(root, dataset)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_browsing_answers_while_the_importer_stands_still(site: Platform, root: Person) -> None:
    known = register(site, root, "known", 500)
    assert imported(root, known)["phase"] == "READY"
    with stopped(site.services()["importer"]):
        fresh = register(site, root, "fresh", 40)
        for path, look in (
            ("/datasets?tenant=research", lambda found: [item["name"] for item in found["items"]]),
            (f"/datasets/{known}", lambda found: found["status"]["rows"]),
            (f"/datasets/{known}/schema", lambda found: [column["name"] for column in found["columns"]]),
            (f"/datasets/{known}/sample?limit=7", lambda found: found["rows"][:2]),
        ):
            asked = time.monotonic()
            found = look(root.get(path))
            took_s = time.monotonic() - asked
            assert took_s < ANSWERS_WITHIN_S, (path, took_s)
            assert found, path
        # The importer may have asked for work before it stood still: what it was given then waits for its first word.
        until(lambda: says_who_is_missing(import_of(root, fresh)), 5, "the reason why the import waits")
        second = register(site, root, "second", 10)
        until(lambda: says_who_is_missing(import_of(root, second)), 5, "the reason why the second import waits")
        assert import_of(root, second)["claims"] == 0
    assert imported(root, fresh)["phase"] == imported(root, second)["phase"] == "READY"
    assert root.get(f"/datasets/{fresh}")["status"]["rows"] == 40


def test_a_source_that_hangs_reaches_its_deadline_and_holds_up_no_other(site: Platform, root: Person) -> None:
    hangs = register(site, root, "hangs", 20)
    assert imported(root, hangs)["phase"] == "READY"
    with hanging(site.state / "data/hangs/part.parquet"):
        assert root.client.post(f"/datasets/{hangs}/imports").status_code == 201
        until(lambda: import_of(root, hangs)["phase"] == "TESTING", 30, "the import that hangs")
        other = register(site, root, "other", 30)
        assert imported(root, other)["phase"] == "READY"
        sample = root.get(f"/datasets/{hangs}/sample?limit=3")
        assert sample["rows"] == [[0], [1], [2]]
        status = imported(root, hangs)
    assert (status["phase"], status["reason"]) == ("FAILED", "TIMEOUT")
    assert "did not answer within 8 s while testing the source" in status["message"]
    assert status["next_step"]
    held, quick = (root.get(f"/imports/{_latest(root, dataset)}") for dataset in (hangs, other))
    assert quick["status"]["ended_at"] < held["status"]["ended_at"]
    assert root.get(f"/datasets/{hangs}")["status"]["phase"] == "STALE"


def says_who_is_missing(status: dict[str, Any]) -> bool:
    """Return whether an import is queued and says that no importer asks for work."""
    return status["phase"] == "QUEUED" and "importer" in status["message"] and bool(status["next_step"])


def _latest(root: Person, dataset: str) -> str:
    return str(root.get(f"/datasets/{dataset}")["status"]["import"]["id"])
