from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_process import BASE, EXTENSION, JUPYTER_TOKEN, Jupyter, jupyter, platform_environment
from platform_stand_in import PAGE, WORKSPACE, Platform, Reply, datasets, jobs, workspace
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
CELLS: list[Any] = [
    {"cell_type": "code", "id": "first", "metadata": {}, "outputs": [], "execution_count": None, "source": "1 + 1"},
    {"cell_type": "code", "id": "last", "metadata": {}, "outputs": [], "execution_count": None, "source": "2 + 2"},
]
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
NOTEBOOK: dict[str, Any] = {"cells": CELLS, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Jupyter]]:
    assert (EXTENSION / "package.json").exists(), "the extension is not built: npm run build:prod in extensions/"
    platform = Platform()
    quiet = "--LabApp.news_url=None"
    with jupyter(tmp_path_factory.mktemp("lab"), "jupyterlab", platform_environment(platform.url), quiet) as server:
        yield platform, server
    platform.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """One profile for all tests, so that JupyterLab's own scripts are fetched once."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = started.new_context(viewport={"width": 1280, "height": 1400})
        context.set_default_timeout(10_000)
        yield context
        started.close()


@pytest.fixture
def platform(lab: tuple[Platform, Jupyter]) -> Platform:
    platform = lab[0]
    platform.overrides.clear()
    platform.requests.clear()
    platform.workspace = workspace()
    platform.jobs = {job["id"]: job for job in jobs()}
    platform.datasets = {dataset["id"]: dataset for dataset in datasets()}
    return platform


@pytest.fixture(scope="module")
def tab(browser: BrowserContext) -> Iterator[Page]:
    opened = browser.new_page()
    thrown: list[Any] = []
    opened.on("pageerror", lambda error: thrown.append(error))  # noqa: PLW0108 - playwright marks its handlers
    yield opened
    assert thrown == []


@pytest.fixture
def page(tab: Page, lab: tuple[Platform, Jupyter], platform: Platform) -> Page:
    """JupyterLab with the notebook and the panel in front; loaded anew only where a test has left it."""
    if f"{BASE}lab" not in tab.url or tab.get_by_role("dialog").count():
        open_notebook(tab, lab[1])
    if not tab.locator("#torpor-panel").is_visible():
        tab.locator("[data-id='torpor-panel']").click()
    tab.get_by_role("tab", name="delays.ipynb").click()
    for _ in range(2):
        tab.get_by_role("button", name=re.compile("^Data")).click()
    tab.get_by_role("searchbox", name="Search datasets").fill("")
    tab.get_by_role("button", name="Look again").click()
    return tab


def open_notebook(tab: Page, server: Jupyter) -> None:
    (server.folder / "delays.ipynb").write_text(json.dumps(NOTEBOOK))
    tab.goto(f"{server.url}lab/tree/delays.ipynb?reset&token={JUPYTER_TOKEN}")
    expect(cells(tab)).to_have_count(2, timeout=60_000)


@pytest.fixture
def panel(page: Page) -> Locator:
    return page.locator("#torpor-panel")


def cells(page: Page) -> Locator:
    return page.locator(".jp-Notebook .jp-Cell")


def item(panel: Locator, name: str) -> Locator:
    return panel.get_by_role("treeitem", name=re.compile(f"^{name}"))


def sources(page: Page) -> list[str]:
    return [each.inner_text() for each in page.locator(".jp-Notebook .jp-Cell .cm-content").all()]


def test_data_is_found_looked_at_and_inserted_once(page: Page, panel: Locator, platform: Platform) -> None:
    expect(item(panel, "Research")).to_be_visible()
    expect(item(panel, "flights")).to_contain_text("336,776 rows")
    expect(item(panel, "weather")).to_contain_text("The source has no folder")

    item(panel, "flights").locator(".tp-row").click()
    columns = panel.get_by_role("table", name="Columns")
    expect(columns.get_by_role("row", name="month")).to_contain_text("partition")
    expect(columns.get_by_role("row")).to_have_count(10)
    first_rows = panel.get_by_role("region", name="First rows")
    expect(first_rows.get_by_role("row").nth(1)).to_contain_text("N14228")

    before = cells(page).count()
    cells(page).first.click()
    item(panel, "flights").get_by_role("button", name="Insert", exact=True).dblclick()
    expect(cells(page)).to_have_count(before + 1)
    expect(cells(page).nth(1)).to_contain_text('torpor.dataset("research/flights")')
    assert sum("torpor.dataset" in source for source in sources(page)) == 1

    panel.get_by_role("searchbox").fill("air")
    expect(item(panel, "airports")).to_be_visible()
    expect(item(panel, "flights")).to_have_count(0)
    assert any(each.query.get("search") == ["air"] for each in platform.asked("GET", "datasets"))


def test_a_dataset_dragged_into_the_notebook_becomes_a_cell(page: Page, panel: Locator) -> None:
    before = cells(page).count()
    item(panel, "airports").locator(".tp-row-name").hover()
    page.mouse.down()
    notebook = cells(page).nth(1).bounding_box()
    assert notebook
    page.mouse.move(notebook["x"] + 200, notebook["y"] + 8, steps=8)
    page.mouse.up()
    expect(cells(page)).to_have_count(before + 1)
    assert sum('torpor.dataset("shared/airports")' in source for source in sources(page)) == 1


def test_the_tree_is_walked_by_keyboard(page: Page, panel: Locator) -> None:
    panel.get_by_role("searchbox").click()
    page.keyboard.press("Tab")
    expect(item(panel, "Research")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(item(panel, "flights")).to_be_focused()
    page.keyboard.press("Enter")
    expect(item(panel, "flights")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(item(panel, "planes")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(item(panel, "Research")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(item(panel, "flights")).to_have_count(0)


def test_what_the_platform_says_about_an_import_is_printed(panel: Locator, platform: Platform) -> None:
    item(panel, "planes").locator(".tp-row").click()
    expect(item(panel, "planes")).to_contain_text("Describes the columns (stage 3 of 3).")
    expect(item(panel, "planes").get_by_role("listitem").nth(1)).to_contain_text("1,000 rows from 2 of 12 partitions")

    item(panel, "weather").locator(".tp-row").click()
    expect(item(panel, "weather").get_by_role("alert")).to_contain_text("Check the path of the dataset")
    item(panel, "weather").get_by_role("button", name="Import again").click()
    expect(item(panel, "weather")).to_contain_text("Waits for an importer.")
    assert len(platform.asked("POST", "datasets/ds-3/imports")) == 1


def test_a_preview_shows_all_sample_rows_in_a_tab(page: Page, panel: Locator) -> None:
    item(panel, "flights").locator(".tp-row-name").dblclick()
    expect(page.locator(".tp-preview-said")).to_contain_text("200 sample rows of 336,776")
    rows = page.get_by_role("region", name="Sample rows of research/flights")
    expect(rows.get_by_role("row")).to_have_count(201)
    expect(rows.get_by_role("row").nth(5).get_by_role("cell").nth(7)).to_have_text("null")


def test_jobs_show_their_states_and_why_they_wait(page: Page, panel: Locator, platform: Platform) -> None:
    states = panel.locator(".tp-job-state")
    expect(states).to_have_text(["Queuedposition 2", "Running", "Succeeded", "Failed", "Cancelled"])
    expect(panel.locator("[data-job='job-5']")).to_contain_text("Needs 2 CPU; 1 of the tenant's 4 CPU is free.")

    panel.get_by_role("button", name="Show the log of train").click()
    expect(page.locator(".tp-log pre")).to_contain_text("epoch 39")

    panel.get_by_role("button", name="Cancel train").click()
    page.get_by_role("button", name="Keep it").click()
    assert platform.asked("PATCH", "jobs/job-4") == []
    panel.get_by_role("button", name="Cancel train").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(panel.locator("[data-job='job-4']")).to_contain_text("Cancelling")
    assert [each.document for each in platform.asked("PATCH", "jobs/job-4")] == [{"spec": {"desired": "cancelled"}}]


def test_a_refused_sleep_leaves_the_user_where_they_are(page: Page, panel: Locator, platform: Platform) -> None:
    refusal = {"detail": "Sleep is switched off for now.", "next_step": "Ask an administrator.", "code": "refused"}
    problem = Reply(409, refusal, headers={"Content-Type": "application/problem+json"})
    platform.overrides["PATCH", f"workspaces/{WORKSPACE}"] = lambda _: problem
    panel.get_by_role("button", name="Sleep now").click()
    page.get_by_role("dialog").get_by_role("button", name="Sleep now").click()
    expect(page.get_by_text("Sleep is switched off for now. Ask an administrator.").first).to_be_visible()
    assert "/lab" in page.url


def test_a_platform_that_is_away_is_said_and_what_was_seen_stays(
    panel: Locator, platform: Platform, lab: tuple[Platform, Jupyter]
) -> None:
    expect(item(panel, "flights")).to_be_visible()
    away = {"detail": "The platform rests.", "next_step": "Come back at noon.", "code": "unavailable"}
    platform.overrides["GET", "datasets"] = lambda _: Reply(503, away)
    panel.get_by_role("button", name="Look again").click()
    expect(panel.get_by_role("alert").first).to_contain_text("The platform rests.")
    expect(item(panel, "flights")).to_be_visible()


def test_without_data_or_jobs_the_panel_says_what_to_do(panel: Locator, platform: Platform) -> None:
    platform.datasets, platform.jobs = {}, {}
    panel.get_by_role("button", name="Look again").click()
    expect(panel).to_contain_text("registers a source and its datasets")
    expect(panel).to_contain_text("torpor.submit")


def test_nobody_is_asked_while_the_panel_is_hidden(page: Page, panel: Locator, platform: Platform) -> None:
    expect(item(panel, "flights")).to_be_visible()
    page.locator("[data-id='torpor-panel']").click()
    expect(panel).to_be_hidden()
    platform.requests.clear()
    page.wait_for_timeout(3500)
    assert platform.asked("GET", "jobs") == []
    assert platform.asked("GET", "datasets") == []


def test_sleep_asks_saves_wishes_and_goes_to_the_page(
    page: Page, panel: Locator, platform: Platform, lab: tuple[Platform, Jupyter]
) -> None:
    def platform_page(route: Route) -> None:
        route.fulfill(body="<h1>first sleeps</h1>", content_type="text/html")

    page.route(f"**{PAGE}", platform_page)
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    page.keyboard.type("answer = 42\n")

    panel.get_by_role("button", name="Sleep now").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The packages that you installed")
    expect(dialog).to_contain_text("Running kernels and their variables")
    dialog.get_by_role("button", name="Cancel").click()
    assert platform.asked("PATCH", f"workspaces/{WORKSPACE}") == []

    page.get_by_role("button", name="first: Running").click()
    page.get_by_role("menuitem", name="Put This Workspace to Sleep").click()
    expect(dialog).to_contain_text("1 open document will be saved first")
    dialog.get_by_role("button", name="Sleep now").click()
    expect(page.get_by_role("heading", name="first sleeps")).to_be_visible()
    wishes = [each.document for each in platform.asked("PATCH", f"workspaces/{WORKSPACE}")]
    assert wishes == [{"spec": {"desired": "asleep"}}]
    assert "answer = 42" in (lab[1].folder / "delays.ipynb").read_text()


QUESTION = "End 'first' and discard what was installed? It cannot be saved here, and is lost for good."
NOTES = [
    "What is installed here is not saved: this platform has no image registry. Stopping discards it; the home stays.",
    "The home can be used on one node at a time: all workspaces and jobs of ada in 'research' run on 'node-7'.",
]


def test_where_nothing_can_be_saved_the_panel_stops_after_asking_in_the_platforms_words(
    page: Page, panel: Locator, platform: Platform
) -> None:
    platform.workspace["version"] += 1
    amount = {"cpu_milli": 4000, "memory_bytes": 8 * 1024**3, "gpu_count": 1}
    platform.workspace["status"] |= {
        "actions": ["open", "stop_discard"],
        "confirmations": {"stop_discard": QUESTION},
        "notes": NOTES,
        "node": "node-7",
        "amount": amount,
    }
    page.route(f"**{PAGE}", lambda route: route.fulfill(body="<h1>first stopped</h1>", content_type="text/html"))
    page.get_by_role("button", name="Look again").click()
    for text in (*NOTES, "node-7", "Small, 1 GPU"):
        expect(panel.get_by_text(text, exact=True)).to_be_visible()
    expect(panel.get_by_role("button", name="Sleep now")).to_have_count(0)
    panel.get_by_role("button", name="Stop…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(QUESTION)
    dialog.get_by_role("button", name="Keep it").click()
    assert platform.asked("PATCH", f"workspaces/{WORKSPACE}") == []
    panel.get_by_role("button", name="Stop…").click()
    dialog.get_by_role("button", name="End and discard").click()
    expect(page.get_by_role("heading", name="first stopped")).to_be_visible()
    wishes = [request.document for request in platform.asked("PATCH", f"workspaces/{WORKSPACE}")]
    assert wishes == [{"spec": {"desired": "stopped", "discard": True}}]


def test_outside_of_the_platform_there_is_no_panel(lab: tuple[Platform, Jupyter], browser: BrowserContext) -> None:
    def without_workspace(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace(WORKSPACE, ""))

    page = browser.new_page()
    page.route("**/lab?**", without_workspace)
    page.goto(f"{lab[1].url}lab?reset&token={JUPYTER_TOKEN}")
    expect(page.locator(".jp-Launcher")).to_be_visible(timeout=30_000)
    expect(page.locator("[data-id='torpor-panel']")).to_have_count(0)
    assert page.evaluate("document.getElementById('jupyter-config-data').textContent").count('"torpor"') == 1
    page.close()
