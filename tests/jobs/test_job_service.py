"""Jobs in the database, on SQLite and PostgreSQL: environments, admission, reports and who may make them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import select

from tests.support.installation import seeded, settings_in
from torpor_hub.domain.jobs import Phase
from torpor_hub.domain.policy import Actor, ActorKind
from torpor_hub.domain.units import Amount
from torpor_hub.domain.workspaces import Fact
from torpor_hub.errors import Forbidden, InvalidRequest, NotFound, StaleFence
from torpor_hub.services import admission, attempts, captures, job_views, jobs, ledger, people, starts
from torpor_hub.services import workspaces as workspace_service
from torpor_hub.services.attempts import Report
from torpor_hub.stores.base import Store, UnitOfWork
from torpor_hub.stores.blobs import Blobs, Written
from torpor_hub.stores.tables import Change, Reservation

T = TypeVar("T")
GIB = 1024**3
DIGEST = "sha256:" + "a" * 64
LAYER = {"digest": "sha256:" + "b" * 64, "diff_id": "sha256:" + "c" * 64, "size_bytes": 10, "uncompressed_bytes": 20}
LOST = Report(None, "lost", "The attempt was lost.", None)
DONE = Report(0, "", "", None)


class Records:
    """A store with its first records, and short ways to do things to jobs."""

    def __init__(self, store: Store, state: Path) -> None:
        self.store = store
        self.settings = settings_in(state)
        self.blobs = Blobs(f"file://{state / 'blobs'}")
        seeded(store, self.settings, Amount(16_000, 64 * GIB))

    def do(self, act: Callable[[UnitOfWork], T], who: str = "ada") -> T:
        with self.store.begin(who) as tx:
            return act(tx)

    def submit(self, who: str = "ada", **spec: Any) -> str:
        content = {
            "name": "job",
            "kind": "command",
            "amount": {"cpu_milli": 1000, "memory_bytes": GIB},
            "code": {"type": "command", "argv": ["true"]},
            **spec,
        }

        def act(tx: UnitOfWork) -> str:
            actor = people.person(tx, who, can_write=True)
            return jobs.submit(tx, self.settings, actor, jobs.Submission(content)).id

        return self.do(act, who)

    def status(self, job: str) -> dict[str, Any]:
        status: dict[str, Any] = self.do(lambda tx: job_views.job(tx, jobs.lock(tx, job)))["status"]
        return status

    def workspace(self, *, unsaved: bool = True) -> str:
        """Return a workspace that runs, with something installed or nothing."""

        def act(tx: UnitOfWork) -> str:
            actor = people.person(tx, "ada", can_write=True)
            row = workspace_service.create(tx, actor, name="first", tenant="research", profile=None)
            workspace_service.wish(tx, self.settings, row, {"desired": "running"})
            starts.prepared(tx, row, from_checkpoint="", notice="")
            grant = starts.answer(tx, self.settings, row)
            assert isinstance(grant, starts.Granted)
            starts.running(tx, row, Fact(row.id, grant.id, alive=True, answering=True, handle="1:1"))
            row.unsaved = unsaved
            return row.id

        return self.do(act)

    def capture(self, *, changed: bool = True) -> None:
        claim = self.do(lambda tx: captures.claim(tx, self.settings, "agent", ""))
        assert claim is not None
        result = captures.Result(DIGEST, [LAYER], 1, changed, [])
        self.do(lambda tx: captures.finish(tx, self.settings, claim.operation, claim.fence, result))

    def admit(self) -> list[str]:
        self.do(admission.resolve)
        return self.do(admission.admit)

    def close(self, job: str, number: int, report: Report) -> None:
        self.do(lambda tx: admission.close(tx, job, number, report))

    def held(self) -> Amount:
        tenant = self.do(lambda tx: people.tenant_named(tx, "research"))
        return self.do(lambda tx: ledger.tenant_room(tx, tenant).used)

    def attempt(self, job: str, number: int = 1) -> Actor:
        return Actor(ActorKind.ATTEMPT, f"{job}-a{number}", can_write=True)


@pytest.fixture
def records(store: Store, tmp_path: Path) -> Records:
    return Records(store, tmp_path / "state")


def test_jobs_wait_for_the_saving_of_their_environment_and_share_it(records: Records) -> None:
    workspace = records.workspace()
    one, two = records.submit(workspace=workspace), records.submit(workspace=workspace)
    assert records.status(one)["phase"] == "SUBMITTED"
    assert records.status(one)["reason"] == "CAPTURING_ENVIRONMENT"
    assert records.admit() == []
    records.capture()
    assert records.do(lambda tx: captures.claim(tx, records.settings, "agent", "")) is None
    assert records.admit() == [f"{one}-a1", f"{two}-a1"]
    assert {records.status(job)["environment"] for job in (one, two)} == {DIGEST}
    start = records.do(lambda tx: admission.start_of(tx, records.settings, one))
    assert start.environment is not None
    assert start.environment.repository == f"torpor/workspaces/research/{workspace}"


def test_a_workspace_without_changes_is_not_saved_again(records: Records) -> None:
    job = records.submit(workspace=records.workspace(unsaved=False))
    assert records.status(job)["phase"] == "QUEUED"
    assert records.admit() == [f"{job}-a1"]


def test_a_job_whose_environment_could_not_be_saved_fails_with_the_cause(records: Records) -> None:
    job = records.submit(workspace=records.workspace())
    claim = records.do(lambda tx: captures.claim(tx, records.settings, "agent", ""))
    assert claim is not None
    records.do(lambda tx: captures.fail(tx, claim.operation, claim.fence, code="DISK", message="The disk is full."))
    assert records.admit() == []
    status = records.status(job)
    assert (status["phase"], status["reason"]) == ("FAILED", "CAPTURE_FAILED")
    assert "The disk is full." in status["message"]


def test_a_checkpoint_by_digest_must_be_ones_own(records: Records) -> None:
    workspace = records.workspace()
    records.submit(workspace=workspace)
    records.capture()
    job = records.submit(environment=DIGEST)
    assert records.status(job)["environment"] == DIGEST
    with pytest.raises(InvalidRequest, match="None of your workspaces"):
        records.submit("ben", environment=DIGEST)
    with pytest.raises(NotFound):
        records.submit("ben", workspace=workspace)
    with pytest.raises(Forbidden):
        records.submit("root", workspace=workspace)


def test_what_is_held_is_free_again_only_when_the_processes_are_gone(records: Records) -> None:
    job = records.submit()
    records.admit()
    assert records.held() == Amount(1000, GIB)

    def report(tx: UnitOfWork) -> None:
        row, attempt = attempts.current(tx, records.attempt(job), job, 1)
        attempts.heard(tx, row, attempt)
        attempts.ended(tx, row, attempt, DONE)

    records.do(report)
    assert records.status(job)["phase"] == "SUCCEEDED"
    assert records.held() == Amount(1000, GIB)
    records.close(job, 1, LOST)
    records.close(job, 1, LOST)
    assert records.held() == Amount()
    assert records.status(job)["phase"] == "SUCCEEDED"


def test_a_lost_job_keeps_its_place_and_an_old_attempt_is_refused(records: Records) -> None:
    job, later = records.submit(), records.submit(amount={"cpu_milli": 4000, "memory_bytes": GIB})
    assert records.admit() == [f"{job}-a1"]
    records.close(job, 1, LOST)
    assert records.status(job)["phase"] == "QUEUED"
    assert records.admit() == [f"{job}-a2"]
    assert records.status(later)["position"] == 1
    with pytest.raises(StaleFence):
        records.do(lambda tx: attempts.current(tx, records.attempt(job), job, 1))
    with pytest.raises(NotFound):
        records.do(lambda tx: attempts.current(tx, records.attempt(later), job, 2))
    records.close(job, 2, LOST)
    assert (records.status(job)["phase"], records.status(job)["reason"]) == ("FAILED", "LOST")


def test_a_cancel_in_the_queue_holds_nothing_and_starts_nothing(records: Records) -> None:
    job = records.submit()
    records.do(lambda tx: jobs.wish(tx, jobs.lock(tx, job), {"desired": "cancelled"}))
    assert records.admit() == []
    assert records.status(job)["phase"] == "CANCELLED"


def test_explanations_are_written_once_and_not_at_every_turn(records: Records) -> None:
    records.submit(amount={"cpu_milli": 4000, "memory_bytes": GIB})
    waits = records.submit(amount={"cpu_milli": 4000, "memory_bytes": GIB})
    records.admit()
    version = records.do(lambda tx: jobs.lock(tx, waits).version)
    records.admit()
    assert records.do(lambda tx: jobs.lock(tx, waits).version) == version
    assert records.status(waits)["position"] == 1


def test_many_controllers_at_once_never_lend_more_than_there_is(records: Records) -> None:
    for _ in range(12):
        records.submit()
    threads = [threading.Thread(target=records.do, args=(admission.admit,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert records.held() == Amount(4000, 4 * GIB)
    rows = records.do(lambda tx: tx.session.query(Reservation).all())
    assert len(rows) == len({row.subject_id for row in rows}) == 4


def test_a_log_ends_at_its_first_gap_and_a_repeated_piece_is_harmless(records: Records) -> None:
    job = records.submit()
    records.admit()

    def add(start: int, text: bytes) -> None:
        written: Written = records.blobs.put(attempts.log_key(job, 1, 0, start), [text])

        def act(tx: UnitOfWork) -> None:
            row, attempt = attempts.current(tx, records.attempt(job), job, 1)
            attempts.add_segment(tx, row, attempt, 0, start, written)

        records.do(act)

    for start, text in ((0, b"abc"), (3, b"def"), (3, b"def"), (9, b"later")):
        add(start, text)

    def read(offset: int, tail: int | None = None) -> bytes:
        def act(tx: UnitOfWork) -> attempts.LogPart:
            return attempts.log_part(tx, jobs.lock(tx, job), attempt=None, rank=0, offset=offset, tail=tail)

        return records.do(act).read(records.blobs)

    assert (read(0), read(2), read(6), read(99), read(0, tail=4)) == (b"abcdef", b"cdef", b"", b"", b"cdef")


def test_every_change_of_a_job_is_recorded_for_its_owner(records: Records) -> None:
    job = records.submit()
    records.admit()
    records.close(job, 1, DONE)
    with records.store.read() as tx:
        query = select(Change.event, Change.owner_id).where(Change.object_id == job).order_by(Change.seq)
        rows = tx.session.execute(query).all()
    assert [row.event for row in rows] == ["submitted", "queued", "admitted", "succeeded", "released"]
    assert all(row.owner_id for row in rows)


def test_a_step_that_the_rules_do_not_know_is_a_fault_and_changes_nothing(records: Records) -> None:
    job = records.submit(workspace=records.workspace())
    with pytest.raises(ValueError, match="no way from SUBMITTED to RUNNING"):
        records.do(lambda tx: jobs.enter(tx, jobs.lock(tx, job), Phase.RUNNING))
    assert records.status(job)["phase"] == "SUBMITTED"
