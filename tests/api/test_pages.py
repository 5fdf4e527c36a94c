"""The pages as a browser gets them: what stands on them, and what their buttons ask first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api.test_every_route import Names
from tests.services.test_workspaces import World
from torpor_hub.api.app import create_app
from torpor_hub.api.context import Parts
from torpor_hub.api.pages import pages
from torpor_hub.services import operations, starts, tenants, wakes
from torpor_hub.services.people import tenant_named
from torpor_hub.services.tokens import Signer
from torpor_hub.stores.base import Store
from torpor_hub.stores.blobs import Blobs
from torpor_hub.stores.changes import ChangeFeed
from torpor_hub.stores.tables import Workspace

STOP = re.compile(r'data-confirm="([^"]*)" data-yes="End and discard">([^<]*)</button>')


class Browser:
    """A browser of ada's on the pages of a platform."""

    def __init__(self, world: World) -> None:
        signer = Signer("k" * 32)
        parts = Parts(
            world.settings, world.store, Blobs(world.settings.blobs), signer, Names(signer), ChangeFeed(world.store)
        )  # type: ignore[arg-type]
        self._client = TestClient(create_app(parts, pages.router), headers={"Authorization": "Bearer ada"})
        self._path = world.settings.service_path

    def page(self, path: str = "") -> str:
        answer = self._client.get(self._path + path)
        assert answer.status_code == 200, answer.text
        return unescape(answer.text)

    def press(self, path: str, **fields: str) -> str:
        return unescape(self._client.post(self._path + path, data=fields).text)


@pytest.fixture
def world(tmp_path: Path, migrated_sqlite: Path) -> Iterator[World]:
    file = tmp_path / "torpor.sqlite"
    file.write_bytes(migrated_sqlite.read_bytes())
    store = Store(f"sqlite:///{file}")
    yield World(store, tmp_path)
    store.close()


def change(world: World, key: str, **values: object) -> None:
    """Set what a place would have recorded."""

    def write(row: Workspace) -> None:
        for name, value in values.items():
            setattr(row, name, value)

    world.do(lambda tx: write(operations.workspace_of(tx, key)))


def test_a_running_workspace_names_its_node_and_what_its_profile_has(world: World) -> None:
    key = world.create()
    world.run(key)
    change(world, key, node="node-7")
    page = Browser(world).page(f"workspaces/{key}")
    assert "<dt>Node</dt><dd>node-7</dd>" in page
    assert 'small <span class="meta">1 core, 2 GiB</span>' in page
    assert "all workspaces and jobs of ada in 'research' run on 'node-7'" in page
    assert STOP.findall(page)[0][1] == "Stop without saving"


def test_where_nothing_is_saved_the_page_offers_no_sleep_and_stop_asks_first(world: World) -> None:
    world.settings = world.settings.model_copy(update={"save_environments": False})
    key = world.create()
    world.run(key)
    browser = Browser(world)
    page = browser.page(f"workspaces/{key}")
    [(question, label)] = STOP.findall(page)
    assert label == "Stop"
    assert question.startswith("End 'first' and discard what was installed?")
    assert "Sleep now" not in page
    assert "What is installed here is not saved" in page
    assert "No workspace can sleep here" in browser.press(f"workspaces/{key}/wish", desired="asleep")
    assert "Stopping ends the workspace" in browser.press(f"workspaces/{key}/wish", desired="stopped")


def test_what_a_lost_container_cost_stands_out_on_its_page_and_in_the_list(world: World) -> None:
    key = world.create()
    world.run(key, "uid-1")
    world.do(
        lambda tx: wakes.gone(tx, operations.workspace_of(tx, key), exit_code=None, log="", handle="uid-1", kept=False)
    )
    browser = Browser(world)
    loss = "<strong>Lost</strong> Its environment was never saved: what was installed in it is lost"
    assert loss in browser.page(f"workspaces/{key}")
    assert loss in browser.page()


def test_the_last_lines_of_a_server_that_failed_at_its_start_are_on_its_page(world: World) -> None:
    key = world.create()
    world.wish(key, desired="running")
    log = "Traceback\nModuleNotFoundError: No module named '<tornado>'"
    fail = {"code": "CRASHED", "message": "It broke.", "next_step": "Mend it."}
    world.do(lambda tx: starts.failed(tx, operations.workspace_of(tx, key), **fail))
    world.do(lambda tx: wakes.keep_log(tx, operations.workspace_of(tx, key), log))
    assert log in Browser(world).page(f"workspaces/{key}")


def test_a_start_says_on_its_page_what_it_waits_for(world: World) -> None:
    key = world.create()
    world.wish(key, desired="running")
    change(world, key, message="Fetching the image and mounting volumes.")
    assert "Fetching the image and mounting volumes." in Browser(world).page(f"workspaces/{key}")


def test_a_profile_that_cannot_be_had_is_shown_with_the_reason_and_cannot_be_chosen(world: World) -> None:
    with world.store.begin("test") as tx:
        tenants.profile_named(tx, "large").problem = "The image 'none:1' is not there."
    browser = Browser(world)
    page = browser.page()
    assert '<option value="large" disabled>Large — 2 cores, 4 GiB (not now)</option>' in page
    assert "<strong>Large</strong> The image 'none:1' is not there." in page
    refused = browser.press("workspaces", name="first", tenant="research", profile="large")
    assert "The profile 'large' cannot be used now: The image 'none:1' is not there." in refused


def test_a_tenants_gpus_and_what_is_held_of_them_are_shown_where_there_are_some(world: World) -> None:
    browser = Browser(world)
    assert "GPUs" not in browser.page()
    with world.store.begin("test") as tx:
        tenant_named(tx, "research").gpu_count = 2
    page = browser.page()
    assert "4 cores, 8 GiB, 2 GPUs free" in page
    assert '<td class="number">0 of 2</td>' in page


def test_no_button_can_be_pressed_before_what_answers_it_is_there(world: World) -> None:
    head, _, body = Browser(world).page().partition("<body")
    scripts = re.findall(r"<script[^>]*>", head)
    assert [name for script in scripts for name in re.findall(r"static/(\w+)\.js", script)] == ["htmx", "torpor"]
    assert not [script for script in scripts if "defer" in script or "async" in script]
    assert "hx-post" in body
    assert "<script" not in body
