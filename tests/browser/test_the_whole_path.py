"""The whole path in a browser: sign in, find the data, run jobs over it, install a package, sleep, wake, import it.

All names, columns and data are drawn from a seed, which is printed; ``TORPOR_SEED`` repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import re
import string
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.sites import USER, ProcessSite, Seen, Site
from tests.cluster.release import REGISTRY, Release, installed
from tests.support import wheels
from tests.support.browser import chromium
from tests.support.failpoints import Failpoints
from tests.support.platform import platform, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
SHOTS = Path("test-results")
SHOWN = ".jp-NotebookPanel:not(.lm-mod-hidden)"
MEASURES = ("dep_delay", "arr_delay", "air_time", "distance", "dep_time")
CARRIERS = ("UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX")


@dataclass
class Journey:
    """What one run draws from its seed, and where it goes."""

    site: Site
    draw: random.Random
    folder: Path
    page: Page
    names: dict[str, str] = field(default_factory=dict)

    def word(self, what: str) -> str:
        """Return the generated name for ``what``, the same at each call."""
        letters = string.ascii_lowercase
        return self.names.setdefault(what, "".join(self.draw.choice(letters) for _ in range(9)))

    def shot(self, name: str) -> None:
        """Keep a picture."""
        SHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    @property
    def workspace(self) -> str:
        """The id of the workspace."""
        return self.site.workspace(self.word("workspace"))


@contextmanager
def on_processes(folder: Path, draw: random.Random) -> Iterator[Site]:
    """Give a platform of local processes under a generated path prefix."""
    prefix = f"/{''.join(draw.choices(string.ascii_lowercase, k=5))}/{draw.randrange(100)}/"
    failpoints = Failpoints(folder / "failpoints")
    failpoints.folder.mkdir()
    environment = {"TORPOR_FAILPOINTS": str(failpoints.folder)}
    with platform(folder, demo_data=True, prefix=prefix, **environment) as running:
        yield ProcessSite(running, failpoints)


@contextmanager
def on_the_cluster(_: Path, draw: random.Random) -> Iterator[Site]:
    """Give a release of the chart under a generated path."""
    if REGISTRY not in os.environ:
        pytest.skip(f"needs the test cluster: {REGISTRY} is not set")
    with installed(
        f"/{''.join(draw.choices(string.ascii_lowercase, k=5))}/{draw.randrange(100)}/", Release("path", "hb")
    ) as site:
        yield site


PLACES = [
    pytest.param(on_processes, id="processes", marks=pytest.mark.embedded),
    pytest.param(on_the_cluster, id="cluster", marks=[pytest.mark.cluster, pytest.mark.alone]),
]


@pytest.fixture(params=PLACES)
def journey(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Journey]:
    seed = int(os.environ.get("TORPOR_SEED", random.SystemRandom().randrange(10**6)))
    print(f"TORPOR_SEED={seed}")
    draw = random.Random(seed)
    with request.param(tmp_path, draw) as site, chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(60_000)
        journey = Journey(site, draw, tmp_path, page)
        yield journey
        journey.shot("last")
        print("DIALOGS", page.locator(".jp-Dialog").all_inner_texts())


def test_from_sign_in_to_a_package_that_survives_sleep(journey: Journey) -> None:
    sign_in_and_create(journey)
    find_the_flights(journey)
    flights_agree_with_duckdb(journey)
    generated_data_agrees_with_duckdb(journey)
    install_a_package(journey)
    a_job_finds_the_package(journey)
    saved = sleep_from_the_panel(journey)
    wake_with_the_same_tree(journey, saved)
    the_notebook_finds_the_package(journey)
    assert journey.site.held() == [journey.workspace]


def sign_in_and_create(journey: Journey) -> None:
    page, site = journey.page, journey.site
    page.goto(site.url)
    page.fill("input[name=username]", USER)
    page.fill("input[name=password]", site.passwords[USER])
    page.click("input[type=submit]")
    page.fill("input[name=name]", journey.word("workspace"))
    journey.shot("workspaces")
    page.click("text=Create and start")
    expect(page.locator("#phase")).to_have_text("running", timeout=120_000)
    journey.shot("workspace")
    write_notebook(journey, "work", [])
    page.click("#open")
    open_notebook(journey, "work")


def find_the_flights(journey: Journey) -> None:
    """The flights are found in the panel, looked at, and inserted as a cell that runs."""
    page = journey.page
    open_panel(journey)
    panel = page.locator("#torpor-panel")
    flights = panel.get_by_role("treeitem", name=re.compile("^flights"))
    expect(flights).to_contain_text("336,776", timeout=120_000)
    flights.locator(".tp-row").click()
    expect(panel.get_by_role("table", name="Columns")).to_contain_text("carrier")
    page.locator(f"{SHOWN} .jp-Cell").last.click()
    flights.get_by_role("button", name="Insert", exact=True).click()
    expect(page.locator(SHOWN)).to_contain_text('torpor.dataset("research/flights")')
    run_cell(journey, "torpor.dataset", expected="carrier")
    journey.shot("panel")


def flights_agree_with_duckdb(journey: Journey) -> None:
    """Three grouped aggregates, drawn from the seed, submitted from the widget, equal DuckDB's on the same files."""
    draw = journey.draw
    queries = [
        {
            "column": column,
            "months": sorted(draw.sample(range(1, 13), 3)),
            "carriers": sorted(draw.sample(CARRIERS, 4)),
        }
        for column in draw.sample(MEASURES, 3)
    ]
    got = run_spark_form(journey, "flights", 'torpor.dataset("research/flights").path', queries)
    files, _ = journey.site.data("flights")
    assert got == aggregates(f"{files}/**/*.parquet", queries)


def generated_data_agrees_with_duckdb(journey: Journey) -> None:
    """The same over a dataset that nobody knew before: registered through the api, read by a job."""
    name, draw = journey.word("dataset"), journey.draw
    folder, root = journey.site.data(name)
    rows = (
        "SELECT range AS i, (random() * 11)::INT + 1 AS month, ['UA', 'B6', 'EV'][range % 3 + 1] AS carrier, "
        f"round(random() * 1000) AS {name} FROM range({draw.randrange(2000, 9000)})"
    )
    duckdb.sql(
        f"SELECT setseed({draw.random()}); COPY ({rows}) TO '{folder}' (FORMAT parquet, PARTITION_BY (month), OVERWRITE)"
    )
    with journey.site.client("root") as client:
        body = {"name": name, "tenant": "research", "kind": "files", "spec": {"root": root}}
        assert client.post("/sources", json=body).status_code == 201
        body = {"name": name, "tenant": "research", "source": name, "path": "."}
        made = client.post("/datasets", json=body)
        assert made.status_code == 201, made.text
        until(lambda: ready(client, made.json()["id"]), 60, "the import of the generated dataset")
    queries = [{"column": name, "months": [1, 2, 5], "carriers": ["B6", "UA"]}]
    got = run_spark_form(journey, "generated", f'torpor.dataset("research/{name}").path', queries)
    assert got == aggregates(f"{folder}/**/*.parquet", queries)


def install_a_package(journey: Journey) -> None:
    package, version = journey.word("package"), f"{journey.draw.randrange(1, 9)}.{journey.draw.randrange(99)}"
    journey.names["version"], journey.names["value"] = version, str(journey.draw.randrange(10**6))
    wheel = wheels.make(journey.folder, package, version, int(journey.names["value"]))
    path = journey.site.put_home(wheel.name, wheel.read_bytes())
    write_notebook(journey, "install", [f"%pip install --no-index --no-deps {path}"])
    open_notebook(journey, "install")
    run_cell(journey, "%pip install", expected=f"Successfully installed {package}-{version}")


def a_job_finds_the_package(journey: Journey) -> None:
    package = journey.word("package")
    cell = (
        f"import torpor\ndef look():\n    import {package}\n    return {package}.__version__, {package}.VALUE\n"
        "print('job says', torpor.submit(look).result(timeout=120))"
    )
    write_notebook(journey, "job", [cell])
    open_notebook(journey, "job")
    run_cell(
        journey,
        "torpor.submit",
        expected=f"job says ('{journey.names['version']}', {journey.names['value']})",
        within_s=120,
    )


def sleep_from_the_panel(journey: Journey) -> Seen:
    """Sleep now: the browser is taken to the workspace's page; what is saved is listed."""
    page, workspace = journey.page, journey.workspace
    open_panel(journey)
    panel = page.locator("#torpor-panel")
    with journey.site.sleeping(workspace) as saved:
        panel.get_by_role("button", name=re.compile("^Sleep")).click()
        page.locator(".jp-Dialog").get_by_role("button", name=re.compile("^Sleep")).click()
        page.wait_for_url("**/services/torpor/workspaces/ws-*")
        journey.shot("sleeping")
    expect(page.locator("#phase")).to_have_text("asleep", timeout=60_000)
    journey.shot("asleep")
    assert journey.site.left(workspace) == []
    assert journey.site.held() == []
    return saved


def wake_with_the_same_tree(journey: Journey, saved: Seen) -> None:
    page = journey.page
    with journey.site.waking(journey.workspace) as restored:
        page.click("text=Wake")
    print(f"{len(saved.tree)} entries before the sleep, {len(restored.tree)} after it")
    assert len(saved.tree) > journey.site.fewest_entries
    assert restored.tree == saved.tree
    expect(page.locator("#phase")).to_have_text("running", timeout=120_000)
    expect(page.locator("#message")).to_contain_text("were restored as of")
    journey.shot("awake")


def the_notebook_finds_the_package(journey: Journey) -> None:
    package = journey.word("package")
    write_notebook(journey, "after", [f"import {package}\nprint('still', {package}.__version__, {package}.VALUE)"])
    journey.page.click("#open")
    open_notebook(journey, "after")
    run_cell(journey, package, expected=f"still {journey.names['version']} {journey.names['value']}")
    journey.shot("after")


# Steps


def aggregates(files: str, queries: list[dict[str, object]]) -> list[list[list[object]]]:
    """Return what DuckDB finds: per query carrier, month, count and sum, in order."""
    answers = []
    for query in queries:
        months, carriers = ", ".join(map(str, query["months"])), ", ".join(f"'{one}'" for one in query["carriers"])  # type: ignore[attr-defined, call-overload]
        rows = duckdb.sql(
            f"SELECT carrier, month::INT AS month, count({query['column']}), sum({query['column']})::BIGINT "
            f"FROM read_parquet('{files}', hive_partitioning=true) WHERE month IN ({months}) AND carrier IN ({carriers}) "
            "GROUP BY 1, 2 ORDER BY 1, 2"
        ).fetchall()
        answers.append([list(row) for row in rows])
    assert all(answers)
    return answers


def run_spark_form(journey: Journey, name: str, path: str, queries: list[dict[str, object]]) -> object:
    """Submit a function with a global and a helper through the form of a notebook, and return what the job returned."""
    cells = [
        "import json, torpor\nfrom torpor.widgets import JobForm\n"
        f"PATH = {path}\nQUERIES = json.loads('''{json.dumps(queries)}''')\n"
        "def select(frame, query):\n"
        "    kept = frame.filter(frame.month.isin(query['months']) & frame.carrier.isin(query['carriers']))\n"
        "    return kept.groupBy('carrier', 'month')\n"
        "def aggregate(spark):\n    from pyspark.sql import functions as f\n    frame = spark.read.parquet(PATH)\n    answers = []\n"
        "    for query in QUERIES:\n        column = query['column']\n"
        "        rows = select(frame, query).agg(f.count(column), f.sum(column)).orderBy('carrier', 'month').collect()\n"
        "        answers.append([[r[0], int(r[1]), r[2], int(r[3])] for r in rows])\n"
        "    print('aggregated', len(answers))\n    return answers\n"
        "form = JobForm(aggregate)\nform",
        "print('ANSWER', json.dumps(form.job.result(timeout=240)), 'END')",
    ]
    write_notebook(journey, name, cells)
    open_notebook(journey, name)
    run_cell(journey, "JobForm(aggregate)", expected="Submit")
    page = journey.page
    kind = page.locator(f"{SHOWN} .widget-dropdown", has_text="Kind").last.locator("select")
    kind.select_option(label=kind.locator("option", has_text="Spark").inner_text())
    page.locator(SHOWN).get_by_role("button", name="Submit").last.click()
    card = page.locator(f"{SHOWN} .torpor-card").last
    expect(card).to_contain_text(re.compile("succeeded|failed|cancelled", re.IGNORECASE), timeout=240_000)
    assert "succeeded" in card.inner_text().lower(), card.inner_text()
    open_panel(journey)
    journey.shot(f"job-{name}")
    run_cell(journey, "ANSWER", expected="END")
    text = page.locator(f"{SHOWN} .jp-OutputArea-output", has_text="ANSWER").last.inner_text()
    return json.loads(text.partition("ANSWER")[2].rpartition("END")[0])


def ready(client: httpx.Client, dataset: str) -> bool:
    status = client.get(f"/datasets/{dataset}").json()["status"]
    assert status["phase"] != "FAILED", status
    return bool(status["phase"] == "READY")


def write_notebook(journey: Journey, name: str, sources: list[str]) -> None:
    """Write a notebook into the home, as an upload would."""
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source,
        }
        for number, source in enumerate([*sources, ""])
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    journey.site.put_home(f"{journey.word(name)}.ipynb", json.dumps(notebook).encode())


def open_notebook(journey: Journey, name: str) -> None:
    page = journey.page
    address = re.sub(r"/lab.*", "/lab", page.url)
    page.goto(f"{address}/tree/{journey.word(name)}.ipynb?reset")
    expect(page.locator(f"{SHOWN} .jp-Cell").first).to_be_visible(timeout=60_000)
    # The notebook's own indicator says idle before it knows; a cell that is run without a kernel asks for one in a dialog.
    expect(page.locator("#jp-main-statusbar")).to_contain_text("Python 3 (ipykernel) | Idle", timeout=60_000)


def open_panel(journey: Journey) -> None:
    """Show the panel; a click on the tab of one that is shown would hide it."""
    if not journey.page.locator("#torpor-panel").is_visible():
        journey.page.locator("[data-id='torpor-panel']").click()
    expect(journey.page.locator("#torpor-panel")).to_be_visible()


def run_cell(journey: Journey, source: str, *, expected: str, within_s: float = 180) -> None:
    """Run the cell that contains ``source`` and wait until its output has ``expected``."""
    cell = journey.page.locator(f"{SHOWN} .jp-CodeCell", has_text=source).last

    def runs() -> bool:
        """Run it; a notebook that is still meeting its kernel drops the first request."""
        cell.locator(".jp-InputArea-editor").click()
        journey.page.keyboard.press("Shift+Enter")
        journey.page.wait_for_timeout(1500)
        return cell.locator(".jp-InputPrompt").inner_text() != "[ ]:"

    until(runs, 60, "the cell runs")
    expect(cell.locator(".jp-OutputArea")).to_contain_text(expected, timeout=within_s * 1000)
