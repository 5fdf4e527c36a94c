"""A platform that saves nothing, in a browser: Stop asks, discards what was installed, and the next start is a fresh one."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support import wheels
from tests.support.browser import chromium
from tests.support.people import Person
from tests.support.platform import Platform, platform

pytestmark = [pytest.mark.embedded, pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("no-saving"), settings="save_environments = false\n") as made:
        yield made


@pytest.fixture
def page(site: Platform) -> Iterator[Page]:
    with chromium() as browser:
        opened = browser.new_page()
        opened.goto(site.url)
        opened.fill("input[name=username]", "ada")
        opened.fill("input[name=password]", site.passwords["ada"])
        opened.click("input[type=submit]")
        yield opened


@pytest.mark.slow
def test_stop_asks_and_discards_and_a_job_says_what_it_runs_with(site: Platform, page: Page, tmp_path: Path) -> None:
    ada = Person(site, "ada")
    package = "".join(random.choices(string.ascii_lowercase, k=8))
    workspace = ada.create("first", "research")
    ada.reaches(workspace, "RUNNING")
    with ada.kernel(workspace) as kernel:
        said = kernel.run(f"%pip install --no-index --no-deps {wheels.make(tmp_path, package, '1.0', 1)}")
    assert "Successfully installed" in said

    job = ada.submit(workspace, ["python", "-c", f"import {package}"])
    assert "profile's own image" in ada.job(job)["notice"]
    assert ada.ended(job)["phase"] == "FAILED"
    assert f"No module named '{package}'" in ada.job_log(job)

    page.goto(f"{site.url}services/torpor/workspaces/{workspace}")
    expect(page.get_by_role("button", name="Sleep now")).to_have_count(0)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#confirm-text")).to_contain_text("discard what was installed?")
    page.get_by_role("button", name="Keep it").click()
    expect(page.locator("#phase")).to_have_text("running")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="End and discard").click()
    expect(page.locator("#phase")).to_have_text("stopped", timeout=60_000)
    assert not (site.state / "workspaces" / workspace / "env").exists()
    assert site.held() == []

    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#phase")).to_have_text("running", timeout=120_000)
    with ada.kernel(workspace) as kernel:
        assert kernel.run(f"import importlib.util; print(importlib.util.find_spec('{package}'))").strip() == "None"
