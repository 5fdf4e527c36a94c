"""Claims, and what time does to tasks, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import seeded, settings_in
from torpor_hub.controllers.base import Leadership, take_lease
from torpor_hub.controllers.imports import ImportController
from torpor_hub.domain.policy import Actor
from torpor_hub.errors import Conflict, StaleFence
from torpor_hub.services import claims, datasets, people, reads, sources, sweeps
from torpor_hub.services.claims import Found
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.tables import Dataset, Import, Read, Upload


class Desk:
    """The services about data, for ada."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.blobs = Blobs(settings.blobs)

    def later(self, seconds: float) -> None:
        before = self.store.clock
        self.store.clock = lambda: before() + timedelta(seconds=seconds)

    def ada(self, tx: UnitOfWork) -> Actor:
        return people.person(tx, "ada", can_write=True)

    def source(self, name: str) -> None:
        body = {"name": name, "tenant": "research", "kind": "files", "spec": {"root": str(self.settings.data_dir)}}
        with self.store.begin("ada") as tx:
            sources.create(tx, self.settings, self.ada(tx), body)

    def register(self, name: str, source: str = "files") -> str:
        body = {"name": name, "tenant": "research", "source": source, "path": "x", "format": "parquet"}
        with self.store.begin("ada") as tx:
            return datasets.create(tx, self.ada(tx), {**body, "description": ""}).id

    def read(self, dataset: str) -> str:
        with self.store.begin("ada") as tx:
            row = tx.session.get_one(Dataset, dataset)
            body = {"columns": None, "filter": None, "limit": None}
            return reads.create(tx, row, self.ada(tx).user_id, body).id

    def claim(self, importer: str = "one") -> dict[str, Any] | None:
        with self.store.begin("importer") as tx:
            return claims.claim(tx, self.settings, importer)

    def upload(self, task: dict[str, Any], name: str) -> str:
        with self.store.begin("importer") as tx:
            key = claims.check_upload(tx, task["task"], task["fence"], name)
            written = self.blobs.put(key, [b"content"])
            claims.uploaded(tx, task["task"], task["fence"], name, key=key, size_bytes=7, sha256=written.sha256)
            return key

    def finish(self, task: dict[str, Any]) -> None:
        with self.store.begin("importer") as tx:
            upload = tx.session.get_one(Upload, (task["task"], task["fence"], "sample"))
            sample = {"name": "sample", "rows": 1, "size_bytes": 7, "sha256": upload.sha256}
            claims.finish(
                tx, task["task"], task["fence"], Found({"columns": []}, sample, {"rows": 1, "files": 1}, 1), []
            )

    def sweep(self) -> None:
        with self.store.begin("controller") as tx:
            sweeps.silent(tx)
            sweeps.overdue(tx, self.settings)

    def beat(self, task: dict[str, Any]) -> None:
        with self.store.begin("importer") as tx:
            claims.progress(tx, self.settings, task["task"], task["fence"], stage="testing", stages=[])

    def row(self, table: type[Any], key: str) -> Any:
        with self.store.read() as tx:
            return tx.session.get_one(table, key)

    def import_of(self, dataset: str) -> Any:
        return self.row(Import, self.row(Dataset, dataset).import_id)


@pytest.fixture
def desk(store: Store, tmp_path: Path) -> Iterator[Desk]:
    settings = settings_in(tmp_path / "state")
    seeded(store, settings)
    desk = Desk(store, settings)
    desk.source("files")
    yield desk


def test_claims_that_race_never_put_more_than_two_tasks_on_a_source(desk: Desk) -> None:
    desk.source("other")
    for number in range(6):
        desk.register(f"d{number}")
    last = desk.register("last", source="other")
    with ThreadPoolExecutor(6) as pool:
        given = [task for task in pool.map(desk.claim, ["a", "b", "c", "d", "e", "f"]) if task]
    tasks = [task["task"] for task in given]
    assert len(set(tasks)) == len(tasks)
    rest = [desk.claim(), desk.claim()]
    ours = {*tasks, *(task["task"] for task in rest if task)}
    assert desk.import_of(last).id in ours
    assert len(ours) == 3


def test_a_read_is_given_before_imports_that_wait_longer(desk: Desk) -> None:
    dataset = desk.register("d1")
    read = desk.read(dataset)
    task = desk.claim()
    assert task is not None
    assert (task["task"], task["kind"], task["read"]["limit"]) == (read, "read", None)


def test_a_silent_importers_task_goes_back_and_its_late_report_is_refused(desk: Desk) -> None:
    dataset = desk.register("d1")
    task = desk.claim()
    assert task is not None
    desk.upload(task, "sample")
    desk.later(desk.settings.limits.claim_s - 1)
    desk.sweep()
    assert desk.import_of(dataset).phase == "TESTING"
    desk.later(2)
    desk.sweep()
    assert desk.import_of(dataset).phase == "QUEUED"
    with pytest.raises(StaleFence):
        desk.finish(task)
    assert desk.claim("two") is not None


def test_an_import_that_costs_three_importers_is_given_up(desk: Desk) -> None:
    dataset = desk.register("d1")
    for _ in range(3):
        assert desk.import_of(dataset).phase == "QUEUED"
        assert desk.claim() is not None
        desk.later(desk.settings.limits.claim_s + 1)
        desk.sweep()
    found = desk.import_of(dataset)
    assert (found.phase, "lost 3 times" in found.message) == ("FAILED", True)


def test_an_import_whose_stage_never_ends_is_failed_in_spite_of_its_heartbeats(desk: Desk) -> None:
    dataset = desk.register("d1")
    task = desk.claim()
    assert task is not None
    for _ in range(20):
        desk.later(10)
        if desk.import_of(dataset).phase == "TESTING":
            desk.beat(task)
        desk.sweep()
    found = desk.import_of(dataset)
    assert (found.phase, found.reason, found.claims) == ("FAILED", "TIMEOUT", 1)


def test_a_read_that_no_importer_takes_ends_with_a_sentence(desk: Desk) -> None:
    read = desk.read(desk.register("d1"))
    desk.later(119)
    desk.sweep()
    assert desk.row(Read, read).phase == "QUEUED"
    desk.later(2)
    desk.sweep()
    found = desk.row(Read, read)
    assert (found.phase, found.reason) == ("FAILED", "UNREACHABLE")
    assert "No importer took the read" in found.message


def test_a_replaced_sample_is_removed_after_a_while_and_the_one_in_use_stays(desk: Desk) -> None:
    dataset = desk.register("d1")
    keys = []
    for _ in range(2):
        task = desk.claim()
        assert task is not None
        keys.append(desk.upload(task, "sample"))
        desk.finish(task)
        with desk.store.begin("ada") as tx:
            datasets.imports.begin(tx, tx.session.get_one(Dataset, dataset), desk.ada(tx).user_id)
    collect(desk)
    assert [blob_is_there(desk, key) for key in keys] == [True, True]
    desk.later(3600)
    collect(desk)
    assert [blob_is_there(desk, key) for key in keys] == [False, True]
    assert desk.row(Dataset, dataset).sample_key == keys[1]


def blob_is_there(desk: Desk, key: str) -> bool:
    try:
        return desk.blobs.get(key) == b"content"
    except FileNotFoundError:
        return False


def collect(desk: Desk) -> None:
    lead = Leadership(desk.store, lifetime_s=60)
    lead.epoch = take_lease(desk.store, "controller", "the test", 600)
    asyncio.run(ImportController(desk.store, desk.settings, lead).collect())


def test_a_repeated_result_is_harmless(desk: Desk) -> None:
    dataset = desk.register("d1")
    task = desk.claim()
    assert task is not None
    desk.upload(task, "sample")
    desk.finish(task)
    version = desk.row(Dataset, dataset).version
    desk.finish(task)
    assert (desk.row(Dataset, dataset).phase, desk.row(Dataset, dataset).version) == ("READY", version)


def test_a_name_is_taken_once_also_when_two_register_at_the_same_moment(desk: Desk) -> None:
    def register(_: int) -> str:
        try:
            return desk.register("same")
        except Conflict as error:
            return error.pointer

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(register, range(4)))
    assert answers[:3] == ["/name"] * 3
    assert answers[3].startswith("ds-")
