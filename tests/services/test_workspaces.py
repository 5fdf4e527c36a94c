"""Workspaces in the database: wishes, grants, quotas, sleeps, and who may do what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.installation import seeded, settings_in
from torpor_hub.domain.policy import Actor
from torpor_hub.domain.workspaces import EnvironmentChoice, Fact, Phase
from torpor_hub.errors import Conflict, Forbidden, InvalidRequest, NotFound, QuotaExceeded, StaleFence, TooManyAttempts
from torpor_hub.services import captures, ledger, operations, people, sleeps, starts, tenants, views, wakes, workspaces
from torpor_hub.settings import Settings
from torpor_hub.stores.base import Store, UnitOfWork, utc_now
from torpor_hub.stores.tables import Workspace

T = TypeVar("T")


class World:
    """A store with its first records, a clock that the test moves, and short ways to ask."""

    def __init__(self, store: Store, state: Path) -> None:
        self.now: datetime = utc_now()
        self.store = store
        store.clock = lambda: self.now
        self.settings: Settings = settings_in(state)
        self.passwords = seeded(store, self.settings)

    def do(self, act: Callable[[UnitOfWork], T], who: str = "ada") -> T:
        with self.store.begin(who) as tx:
            return act(tx)

    def actor(self, tx: UnitOfWork, name: str = "ada") -> Actor:
        return people.person(tx, name, can_write=True)

    def create(
        self, name: str = "first", who: str = "ada", tenant: str = "research", profile: str | None = None
    ) -> str:
        return self.do(
            lambda tx: workspaces.create(tx, self.actor(tx, who), name=name, tenant=tenant, profile=profile).id, who
        )

    def wish(self, key: str, **spec: Any) -> None:
        self.do(lambda tx: workspaces.wish(tx, self.settings, operations.workspace_of(tx, key), spec))

    def answer(self, key: str) -> starts.Waiting | starts.Granted:
        return self.do(lambda tx: starts.answer(tx, self.settings, operations.workspace_of(tx, key)))

    def show(self, key: str) -> dict[str, Any]:
        return self.do(lambda tx: views.workspace(tx, self.settings, operations.workspace_of(tx, key)))

    def run(self, key: str, handle: str = "1:1") -> str:
        """Start a workspace up to its first answer, as hub and place would; return the grant."""
        if self.show(key)["status"]["phase"] not in ("STARTING", "WAKING"):
            self.wish(key, desired="running")
        self.do(lambda tx: starts.prepared(tx, operations.workspace_of(tx, key), from_checkpoint="", notice=""))
        grant = self.answer(key)
        assert isinstance(grant, starts.Granted)
        fact = Fact(key, grant.id, alive=True, answering=True, handle=handle)
        self.do(lambda tx: starts.running(tx, operations.workspace_of(tx, key), fact))
        return grant.id

    def claim(self) -> captures.Claim | None:
        return self.do(lambda tx: captures.claim(tx, self.settings, "agent", ""))

    def held(self, tenant: str = "research") -> int:
        return self.do(lambda tx: ledger.tenant_room(tx, people.tenant_named(tx, tenant)).used.cpu_milli)


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return World(store, tmp_path)


RESULT = captures.Result("sha256:new", [{"digest": "sha256:l", "size_bytes": 7}], 3, True, [])


def test_a_start_reserves_and_its_grant_is_repeated_until_it_is_used(world: World) -> None:
    key = world.create()
    world.wish(key, desired="running")
    assert (world.held(), world.show(key)["status"]["phase"]) == (1000, "STARTING")
    assert isinstance(world.answer(key), starts.Waiting)
    grant = world.run(key)
    again = world.answer(key)
    assert isinstance(again, starts.Granted)
    assert again.id == grant
    assert world.show(key)["status"]["phase"] == "RUNNING"


def test_a_start_beyond_the_tenants_quota_is_refused_with_the_numbers_and_holds_nothing(world: World) -> None:
    for name in ("a", "b"):
        world.run(world.create(name, profile="large"))
    key = world.create("c")
    with pytest.raises(QuotaExceeded, match="may hold 4 cores at once and holds 4 cores; this needs 1 core more"):
        world.wish(key, desired="running")
    assert (world.held(), world.show(key)["status"]["phase"]) == (4000, "NEW")


def test_a_grant_that_nobody_uses_gives_everything_back(world: World) -> None:
    key = world.create()
    world.wish(key, desired="running")
    world.do(lambda tx: starts.expired(tx, operations.workspace_of(tx, key)))
    assert (world.held(), world.show(key)["status"]["phase"]) == (0, "NEW")


def test_a_failed_start_is_told_once_and_the_next_request_begins_anew(world: World) -> None:
    key = world.create()
    world.wish(key, desired="running")
    world.do(
        lambda tx: starts.failed(
            tx, operations.workspace_of(tx, key), code="CRASHED", message="It broke.", next_step="Mend it."
        )
    )
    with pytest.raises(starts.Refused, match=r"It broke\.") as refusal:
        world.answer(key)
    world.do(lambda tx: starts.delivered(tx, refusal.value.operation_id))
    assert isinstance(world.answer(key), starts.Waiting)
    assert world.held() == 1000


def test_a_sleep_saves_moves_the_pointer_and_frees_what_was_held(world: World) -> None:
    key = world.create()
    world.run(key)
    world.wish(key, desired="asleep")
    claim = world.claim()
    assert claim is not None
    assert (claim.kind, claim.handle, world.show(key)["status"]["phase"]) == ("sleep", "1:1", "SLEEPING")
    assert world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, RESULT))
    assert world.held() == 1000
    world.do(lambda tx: sleeps.removed(tx, world.settings, operations.workspace_of(tx, key)))
    status = world.show(key)["status"]
    assert (status["phase"], status["checkpoint"]["digest"], world.held()) == ("ASLEEP", "sha256:new", 0)


def test_a_cancel_before_the_end_of_a_sleep_keeps_the_workspace_running(world: World) -> None:
    key = world.create()
    world.run(key)
    world.wish(key, desired="asleep")
    claim = world.claim()
    assert claim is not None
    world.wish(key, desired="running")
    assert world.do(
        lambda tx: captures.progress(tx, world.settings, claim.operation, claim.fence, step="UPLOAD", done=1, total=2)
    )
    assert not world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, RESULT))
    world.do(lambda tx: sleeps.back_to_work(tx, operations.workspace_of(tx, key)))
    status = world.show(key)["status"]
    assert (status["phase"], status["checkpoint"]) == ("RUNNING", None)


def test_a_heartbeat_that_its_result_overtook_does_not_bring_the_sleep_back(world: World) -> None:
    key = world.create()
    world.run(key)
    world.wish(key, desired="asleep")
    claim = world.claim()
    assert claim is not None
    assert world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, RESULT))
    assert not world.do(
        lambda tx: captures.progress(tx, world.settings, claim.operation, claim.fence, step="UPLOAD", done=1, total=2)
    )
    assert world.show(key)["status"]["operation"]["step"] == "REMOVE"
    world.now += timedelta(seconds=world.settings.limits.claim_s + 1)
    assert world.claim() is None


def test_an_agent_whose_claim_was_taken_over_cannot_end_the_sleep(world: World) -> None:
    key = world.create()
    world.run(key)
    world.wish(key, desired="asleep")
    old = world.claim()
    world.now += timedelta(seconds=world.settings.limits.claim_s + 1)
    new = world.claim()
    assert old is not None
    assert new is not None
    assert new.fence == old.fence + 1
    with pytest.raises(StaleFence):
        world.do(lambda tx: captures.finish(tx, world.settings, old.operation, old.fence, RESULT))
    assert world.do(lambda tx: captures.finish(tx, world.settings, new.operation, new.fence, RESULT))


def test_a_checkpoint_for_a_job_is_shared_until_an_agent_begins_it(world: World) -> None:
    key = world.create()
    world.run(key)

    def ask(tx: UnitOfWork) -> str | None:
        return captures.request_checkpoint(tx, world.settings, operations.workspace_of(tx, key))[0]

    first, second = world.do(ask), world.do(ask)
    claim = world.claim()
    third = world.do(ask)
    assert claim is not None
    assert (first == second == claim.operation, third != first, world.claim()) == (True, True, None)


def test_the_next_sleep_keeps_the_previous_environment_to_go_back_to(world: World) -> None:
    key = world.create()
    for number in range(2):
        world.run(key, handle=f"{number}:1")
        world.wish(key, desired="asleep")
        claim = world.claim()
        assert claim is not None
        result = captures.Result(f"sha256:{number}", [{"size_bytes": 1}], 1, True, [])
        world.do(lambda tx, c=claim, r=result: captures.finish(tx, world.settings, c.operation, c.fence, r))
        world.do(lambda tx: sleeps.removed(tx, world.settings, operations.workspace_of(tx, key)))
    world.wish(key, desired="running", environment="previous")
    preparation, _ = world.do(lambda tx: starts.preparation(tx, operations.workspace_of(tx, key)))
    assert preparation.checkpoint is not None
    assert preparation.checkpoint.digest == "sha256:0"


def test_stopping_without_saving_has_to_be_confirmed(world: World) -> None:
    key = world.create()
    world.run(key)
    with pytest.raises(InvalidRequest, match="loses what was installed"):
        world.wish(key, desired="stopped")
    world.wish(key, desired="stopped", discard=True)
    world.do(lambda tx: wakes.discarded(tx, operations.workspace_of(tx, key)))
    preparation, _ = world.do(lambda tx: starts.preparation(tx, operations.workspace_of(tx, key)))
    assert (world.show(key)["status"]["phase"], preparation.fresh, world.held()) == ("STOPPED", True, 0)


def test_a_crash_keeps_the_environment_and_says_why(world: World) -> None:
    key = world.create()
    world.run(key)
    log = "Traceback\nMemoryError: too much"
    world.do(lambda tx: wakes.gone(tx, operations.workspace_of(tx, key), exit_code=1, log=log, handle="1:1", kept=True))
    status = world.show(key)["status"]
    preparation, _ = world.do(lambda tx: starts.preparation(tx, operations.workspace_of(tx, key)))
    assert (status["phase"], "MemoryError: too much" in status["message"], preparation.fresh) == (
        "STOPPED",
        True,
        False,
    )


def test_a_server_that_turns_up_after_its_grant_expired_is_charged_again(world: World) -> None:
    key = world.create()
    world.wish(key, desired="running")
    world.do(lambda tx: starts.expired(tx, operations.workspace_of(tx, key)))
    fact = Fact(key, "gr-unknown", alive=True, answering=True, handle="9:9")
    world.do(lambda tx: wakes.adopt(tx, operations.workspace_of(tx, key), fact))
    assert (world.held(), world.show(key)["status"]["phase"]) == (1000, "RUNNING")


@pytest.mark.parametrize("stranger", ["ben"])
def test_a_strangers_workspace_looks_like_none(world: World, stranger: str) -> None:
    key = world.create()
    with pytest.raises(NotFound):
        world.do(lambda tx: workspaces.find(tx, world.actor(tx, stranger), key))


def test_a_viewer_may_look_at_the_tenant_but_not_run_in_it(world: World) -> None:
    with pytest.raises(Forbidden):
        world.create(tenant="operations")
    names = world.do(lambda tx: [item["name"] for item in tenants.tenants(tx, world.actor(tx))])
    assert names == ["operations", "research"]


def test_names_are_checked_and_unique_per_owner(world: World) -> None:
    world.create()
    with pytest.raises(Conflict, match="already"):
        world.create()
    with pytest.raises(InvalidRequest, match="cannot name a workspace"):
        world.create("-Nope")


def test_a_password_opens_and_wrong_ones_are_slowed_down(world: World) -> None:
    assert world.do(lambda tx: people.sign_in(tx, "ada", world.passwords["ada"])) is not None
    assert world.do(lambda tx: people.sign_in(tx, "nobody", "x")) is None
    for _ in range(people.FREE_FAILURES):
        assert world.do(lambda tx: people.sign_in(tx, "ada", "wrong")) is None
    with pytest.raises(TooManyAttempts, match="Too many wrong passwords"):
        world.do(lambda tx: people.sign_in(tx, "ada", world.passwords["ada"]))
    world.now += timedelta(seconds=people.LOCK_S + 1)
    assert world.do(lambda tx: people.sign_in(tx, "ada", world.passwords["ada"])) is not None


def test_seeding_again_changes_nothing_and_shows_no_password(world: World) -> None:
    assert seeded(world.store, world.settings) == {}
    assert world.do(lambda tx: tx.session.query(Workspace).count()) == 0


def test_two_starts_at_once_never_exceed_the_quota(world: World) -> None:
    keys = [world.create(f"w{number}", profile="large") for number in range(4)]

    def start(key: str) -> bool:
        try:
            world.wish(key, desired="running")
        except QuotaExceeded:
            return False
        return True

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        granted = list(pool.map(start, keys))
    assert (sum(granted), world.held()) == (2, 4000)


def test_the_environment_choice_of_a_running_workspace_is_refused(world: World) -> None:
    key = world.create()
    world.run(key)
    with pytest.raises(Conflict, match="runs with its environment"):
        world.wish(key, desired="running", environment=EnvironmentChoice.PROFILE)
    assert world.show(key)["status"]["phase"] == Phase.RUNNING
