"""Where environments are not saved: no sleep, a stop that discards and asks first, and jobs that say what they run with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.services.test_workspaces import RESULT, World
from torpor_hub.domain.workspaces import Fact
from torpor_hub.errors import Conflict
from torpor_hub.services import captures, job_views, jobs, operations, sleeps, starts, wakes
from torpor_hub.stores.base import Store

NO_REGISTRY = "this platform has no image registry"


def without_saving(world: World) -> None:
    world.settings = world.settings.model_copy(update={"save_environments": False})


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    made = World(store, tmp_path)
    without_saving(made)
    return made


def submit(world: World, key: str, environment: str) -> dict[str, Any]:
    spec = {
        "name": "count",
        "kind": "command",
        "workspace": key,
        "environment": environment,
        "amount": {"cpu_milli": 100, "memory_bytes": 256 * 1024**2},
        "code": {"type": "command", "argv": ["true"]},
    }
    return world.do(
        lambda tx: job_views.job(tx, jobs.submit(tx, world.settings, world.actor(tx), jobs.Submission(spec)))
    )


def test_a_sleep_is_refused_with_the_way_out_and_not_offered(world: World) -> None:
    key = world.create()
    world.run(key)
    with pytest.raises(Conflict, match=NO_REGISTRY) as refusal:
        world.wish(key, desired="asleep")
    status = world.show(key)["status"]
    assert "Stop it instead, which discards what was installed" in refusal.value.next_step
    assert (status["phase"], status["actions"]) == ("RUNNING", ["open", "stop_discard"])
    assert world.claim() is None


def test_a_stop_has_to_be_confirmed_and_the_question_says_what_is_lost(world: World) -> None:
    key = world.create()
    world.run(key)
    status = world.show(key)["status"]
    assert status["confirmations"]["stop_discard"].startswith("End 'first' and discard what was installed?")
    assert any(NO_REGISTRY in note for note in status["notes"])
    with pytest.raises(Conflict, match="discards what was installed"):
        world.wish(key, desired="stopped")
    world.wish(key, desired="stopped", discard=True)
    world.do(lambda tx: wakes.discarded(tx, operations.workspace_of(tx, key)))
    preparation, _ = world.do(lambda tx: starts.preparation(tx, operations.workspace_of(tx, key)))
    assert (world.show(key)["status"]["phase"], preparation.fresh, world.held()) == ("STOPPED", True, 0)


def test_a_job_in_the_workspaces_environment_runs_at_once_with_the_profiles_image_and_says_so(world: World) -> None:
    key = world.create()
    world.run(key)
    status = submit(world, key, "workspace")["status"]
    assert (status["phase"], status["environment"], world.claim()) == ("QUEUED", None, None)
    assert "profile's own image" in status["notice"]
    assert submit(world, key, "profile")["status"]["notice"] == ""


def test_the_form_for_jobs_offers_the_profile_alone_and_says_why(world: World) -> None:
    key = world.create()
    form = world.do(lambda tx: job_views.options(tx, world.settings, world.actor(tx), key))
    assert [choice["value"] for choice in form["environments"]] == ["profile"]
    assert (form["default"]["environment"], NO_REGISTRY in form["notice"]) == ("profile", True)


def test_where_environments_are_saved_nothing_is_said(store: Store, tmp_path: Path) -> None:
    world = World(store, tmp_path)
    key = world.create()
    world.run(key)
    form = world.do(lambda tx: job_views.options(tx, world.settings, world.actor(tx), key))
    status = world.show(key)["status"]
    assert ([choice["value"] for choice in form["environments"]], form["notice"]) == (["workspace", "profile"], "")
    assert (status["notes"], "sleep" in status["actions"]) == ([], True)


def test_what_was_saved_before_the_registry_went_is_not_silently_left_out(store: Store, tmp_path: Path) -> None:
    world = World(store, tmp_path)
    key = world.create()
    world.run(key)
    world.wish(key, desired="asleep")
    claim = world.claim()
    assert claim is not None
    world.do(lambda tx: captures.finish(tx, world.settings, claim.operation, claim.fence, RESULT))
    world.do(lambda tx: sleeps.removed(tx, world.settings, operations.workspace_of(tx, key)))
    without_saving(world)
    with pytest.raises(Conflict, match="cannot be read"):
        world.wish(key, desired="running")
    with pytest.raises(Conflict, match="cannot be read"):
        submit(world, key, "sha256:" + "0" * 64)
    assert world.show(key)["status"]["actions"] == ["start_profile", "delete"]
    world.wish(key, desired="running", environment="profile")
    assert world.show(key)["status"]["phase"] == "STARTING"


def test_a_lost_container_costs_what_was_installed_and_the_next_page_says_so_too(world: World) -> None:
    key = world.create()
    world.run(key, "uid-1")
    world.do(
        lambda tx: wakes.gone(tx, operations.workspace_of(tx, key), exit_code=None, log="", handle="uid-1", kept=False)
    )
    lost = world.show(key)["status"]["lost"]
    assert lost == "Its environment was never saved: what was installed in it is lost; files in the home are not."
    world.wish(key, desired="running")
    assert world.show(key)["status"]["lost"] == lost
    notice = world.do(lambda tx: wakes.notice(tx, operations.workspace_of(tx, key), "", fell_back=False))
    world.do(lambda tx: starts.prepared(tx, operations.workspace_of(tx, key), from_checkpoint="", notice=notice))
    grant = world.answer(key)
    assert isinstance(grant, starts.Granted)
    fact = Fact(key, grant.id, alive=True, answering=True, handle="uid-2")
    world.do(lambda tx: starts.running(tx, operations.workspace_of(tx, key), fact))
    status = world.show(key)["status"]
    assert (status["message"], status["lost"]) == (lost, "")
