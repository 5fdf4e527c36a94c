"""Stores that hang, importers that die or stop, and uploads that lie."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.datasets.served_platform import Platform, importer, platform, settings_file, until
from tests.importer.leases import hanging


def name() -> str:
    return f"d{uuid.uuid4().hex[:8]}"


def source_with_copy(impatient: Platform, small: str) -> tuple[str, Path]:
    """Register a source of its own with a copy of the small dataset; return its name and the copy's file."""
    own = name()
    folder = impatient.data / own
    shutil.copytree(impatient.data / small, folder / small)
    impatient.source(own, folder)
    return own, folder / small / "part.parquet"


def status(impatient: Platform, dataset: dict[str, Any]) -> dict[str, Any]:
    return dict(impatient.dataset(dataset["id"])["status"])


def hits(failpoints: Path, point: str) -> int:
    log = failpoints / "hits.log"
    return sum(line.split()[2] == point for line in log.read_text().splitlines()) if log.exists() else 0


def children(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in found]


def claim(impatient: Platform, token: str) -> dict[str, Any]:
    body = {"importer": "a stand-in", "wait_s": 5}
    answer = impatient.send(token, "POST", "/import-claims", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def put(impatient: Platform, token: str, task: str, what: str, **body: Any) -> Any:
    return impatient.send(token, "PUT", f"/import-claims/{task}/{what}", json=body)


def finish_queue(impatient: Platform, token: str) -> None:
    """Fail whatever an earlier test has left in the queue."""
    while True:
        answer = impatient.send(token, "POST", "/import-claims", json={"importer": "broom", "wait_s": 0})
        if answer.status_code == 204:
            return
        task = answer.json()
        put(impatient, token, task["task"], "failure", fence=task["fence"], code="NOT_FOUND", message="Swept.")


def test_a_store_that_hangs_times_out_and_holds_up_no_other(impatient: Platform, small: str) -> None:
    hung, file = source_with_copy(impatient, small)
    with hanging(file), impatient.importer() as importer_process:
        slow = [impatient.register(name(), small, source=hung) for _ in range(3)]
        until(lambda: status(impatient, slow[1])["import"]["phase"] == "TESTING")
        waiting = status(impatient, slow[2])
        good = impatient.register(name(), small)
        assert impatient.ended(good["id"])["status"]["phase"] == "READY"
        assert "IMPORTING" in [status(impatient, made)["phase"] for made in slow]
        found, *_ = (impatient.ended(made["id"])["status"] for made in slow)
        until(lambda: not children(importer_process.pid))
        assert not children_of_session(importer_process)
    assert (waiting["import"]["phase"], hung in waiting["message"]) == ("QUEUED", True)
    assert (found["phase"], found["reason"]) == ("FAILED", "TIMEOUT")
    assert "within 4 s while testing the source" in found["message"]
    assert [stage["name"] for stage in found["import"]["stages"] if stage["state"] == "running"] == ["readable"]


def children_of_session(importer: subprocess.Popen[bytes]) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"torpor_hub.importer.child {importer.pid}" in line]


@pytest.mark.parametrize("point", ["importer.claimed", "importer.uploaded", "importer.finished"])
def test_a_task_whose_importer_was_killed_is_taken_up_and_finishes_once(
    point: str, impatient: Platform, small: str, failpoints: Path
) -> None:
    (failpoints / point).write_text("kill")
    made = impatient.register(name(), small)
    with impatient.importer(failpoints) as first:
        assert first.wait(20) == -signal.SIGKILL
        until(lambda: not children_of_session(first))
    with impatient.importer(failpoints):
        found = impatient.ended(made["id"])["status"]
    shown = impatient.send("ada", "GET", f"/imports/{found['import']['id']}").json()
    assert (found["phase"], found["rows"], shown["status"]["claims"]) == ("READY", 100, 2)
    assert hits(failpoints, "importer.finished") == (2 if point == "importer.finished" else 1)


def test_a_connector_that_crashes_fails_its_task_alone(impatient: Platform, small: str, failpoints: Path) -> None:
    (failpoints / "importer.child_stage").write_text("kill")
    made = impatient.register(name(), small)
    with impatient.importer(failpoints) as importer:
        found = impatient.ended(made["id"])["status"]
        again = impatient.register(name(), small)
        assert impatient.ended(again["id"])["status"]["phase"] == "READY"
        assert importer.poll() is None
    assert (found["phase"], found["reason"]) == ("FAILED", "TOO_LARGE")


def test_a_stopped_importer_is_named_as_what_a_queued_import_waits_for(impatient: Platform, small: str) -> None:
    with impatient.importer() as importer:
        assert impatient.ended(impatient.register(name(), small)["id"])["status"]["phase"] == "READY"
        os.kill(importer.pid, signal.SIGSTOP)
        # One claim may already be under way; the importer takes it and says nothing more, until it is given to another.
        made = impatient.register(name(), small)
        waiting = until(lambda: "No importer has asked" in (found := status(impatient, made))["message"] and found)
        os.kill(importer.pid, signal.SIGCONT)
        assert impatient.ended(made["id"])["status"]["phase"] == "READY"
    assert waiting["import"]["phase"] == "QUEUED"
    assert " UTC; the import waits for one." in waiting["message"]
    assert waiting["next_step"]


def test_a_cancelled_import_stops_its_child_and_says_who_cancelled(impatient: Platform, small: str) -> None:
    hung, file = source_with_copy(impatient, small)
    with hanging(file), impatient.importer() as importer:
        made = impatient.register(name(), small, source=hung)
        until(lambda: children(importer.pid))
        path = f"/imports/{made['status']['import']['id']}"
        answer = impatient.send("ada", "PATCH", path, json={"spec": {"desired": "cancelled"}})
        assert (answer.status_code, answer.json()["status"]["phase"]) == (200, "CANCELLED")
        until(lambda: not children(importer.pid), within_s=3)
    assert "ada cancelled" in status(impatient, made)["message"]


def test_an_upload_with_a_wrong_hash_is_refused_and_nothing_of_it_is_kept(impatient: Platform, small: str) -> None:
    token = impatient.importer_token()
    finish_queue(impatient, token)
    made = impatient.register(name(), small)
    task = claim(impatient, token)
    path = f"/import-claims/{task['task']}/uploads/sample.parquet"
    headers = {"Torpor-SHA256": hashlib.sha256(b"honest").hexdigest(), "Torpor-Fence": str(task["fence"])}
    assert impatient.send(token, "PUT", path, content=b"lie", headers=headers).status_code == 422
    sample = {"name": "sample.parquet", "rows": 1, "size_bytes": 6, "sha256": headers["Torpor-SHA256"]}
    report = {"fence": task["fence"], "schema": {}, "sample": sample, "stats": {}, "chunks": 1}
    assert put(impatient, token, task["task"], "result", **report).status_code == 422
    assert impatient.send(token, "PUT", path, content=b"honest", headers=headers).status_code == 200
    lied = {**report, "sample": {**sample, "size_bytes": 7}}
    assert put(impatient, token, task["task"], "result", **lied).status_code == 422
    assert status(impatient, made)["sample_rows"] is None
    put(impatient, token, task["task"], "failure", fence=task["fence"], code="NOT_FOUND", message="Enough.")
    assert status(impatient, made)["reason"] == "NOT_FOUND"


def test_an_importer_that_lost_its_claim_changes_nothing_more(impatient: Platform, small: str) -> None:
    token = impatient.importer_token()
    finish_queue(impatient, token)
    made = impatient.register(name(), small)
    old = claim(impatient, token)
    new = until(lambda: (found := claim_now(impatient, token)) and found["task"] == old["task"] and found)
    assert new["fence"] > old["fence"]
    content = b"late"
    headers = {"Torpor-SHA256": hashlib.sha256(content).hexdigest(), "Torpor-Fence": str(old["fence"])}
    path = f"/import-claims/{old['task']}/uploads/sample.parquet"
    late = [
        impatient.send(token, "PUT", path, content=content, headers=headers),
        put(impatient, token, old["task"], "progress", fence=old["fence"], stage="describing", stages=[]),
        put(impatient, token, old["task"], "failure", fence=old["fence"], code="TIMEOUT", message="Late."),
        put(impatient, token, old["task"], "result", fence=old["fence"], schema={}, sample={}, stats={}),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in late] == [(409, "stale_fence")] * 4
    assert status(impatient, made)["import"]["stages"] == []
    put(impatient, token, new["task"], "failure", fence=new["fence"], code="NOT_FOUND", message="Enough.")


def claim_now(impatient: Platform, token: str) -> dict[str, Any] | None:
    answer = impatient.send(token, "POST", "/import-claims", json={"importer": "a stand-in", "wait_s": 0})
    return dict(answer.json()) if answer.status_code == 200 else None


def test_rows_stream_while_they_arrive_and_who_leaves_cancels_the_read(impatient: Platform, failpoints: Path) -> None:
    large = impatient.data / "large.parquet"
    duckdb.sql(f"COPY (SELECT random() AS ratio FROM range(2000000)) TO '{large}'")
    made = impatient.register(name(), "large.parquet")

    def read() -> dict[str, Any]:
        return dict(impatient.send("ada", "GET", f"/reads/{read_id}").json()["status"])

    with impatient.importer(failpoints):
        assert impatient.ended(made["id"])["status"]["phase"] == "READY"
        (failpoints / "importer.uploaded").write_text("pause")
        read_id = impatient.send("ada", "POST", f"/datasets/{made['id']}/reads", json={}).json()["id"]
        with impatient.stream("ada", f"/reads/{read_id}/stream") as answer:
            first, shown = next(answer.iter_bytes()), read()
        (failpoints / "importer.uploaded").unlink()
        ended = until(lambda: (found := read())["phase"] not in ("READING", "QUEUED") and found)
    assert first
    assert shown["phase"] == "READING"
    assert ended["phase"] == "CANCELLED"


def test_an_importer_that_finds_no_api_waits_for_it(tmp_path: Path, small: str, impatient: Platform) -> None:
    file = settings_file(tmp_path / "state", {})
    with importer(file, log=tmp_path / "log"):
        until(lambda: "no claim" in (tmp_path / "log").read_text())
        with platform(file) as late:
            shutil.copytree(impatient.data / small, late.data / small)
            found = late.ended(late.register(name(), small)["id"])
    assert found["status"]["phase"] == "READY"
