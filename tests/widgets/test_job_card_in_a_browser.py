"""The card's front end in Chromium, alone on a page with a stub of the model."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("TORPOR_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
HERE = Path(__file__).parent
CARD = Path("sdk/torpor/widgets")
FILES = {
    "/job_card.html": (HERE / "job_card.html", "text/html"),
    "/job_card.js": (CARD / "job_card.js", "text/javascript"),
    "/job_card.css": (CARD / "job_card.css", "text/css"),
}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
BASE = {
    "id": "job-aaaaaaaaaaaaaaaaaaab",
    "name": "train",
    "kind": "spark",
    "amount": "2 cores, 4 GiB",
    "message": "",
    "next_step": "",
    "parts": [],
    "position": None,
    "attempt": 1,
    "elapsed_s": None,
    "running": False,
    "finished": False,
}
QUEUED = BASE | {
    "phase": "QUEUED",
    "tone": "idle",
    "position": 3,
    "message": "It starts when 2 cores are free.",
    "parts": [
        "Tenant research uses 4 of its 4 cores.",
        "The job nightly is before it, for another 12 minutes at most.",
    ],
}
RUNNING = BASE | {"phase": "RUNNING", "tone": "info", "elapsed_s": 125.0, "running": True, "message": "It runs."}
FAILED = BASE | {
    "phase": "FAILED",
    "tone": "error",
    "elapsed_s": 64.2,
    "finished": True,
    "message": "The function raised KeyError.",
    "next_step": "The traceback says where; correct it and submit again.",
}
DONE = BASE | {
    "phase": "SUCCEEDED",
    "tone": "success",
    "elapsed_s": 3725.0,
    "finished": True,
    "message": "It ended well.",
}
LOG = "".join(f"10:00:{second:02} round {second} loss {1 / (second + 1):.4f}\n" for second in range(60))
FRAME = "       month  flights  mean_delay\n0          1    27004       10.04\n1          2    24951       10.82\n"
RAISED = {
    "kind": "exception",
    "title": "KeyError: 'week'",
    "text": "Traceback (most recent call last):\n  File \"<cell>\", line 3, in train\nKeyError: 'week'\n",
}
CASES = [
    {"state": QUEUED},
    {"state": RUNNING, "log": LOG},
    {"state": FAILED, "log": "reading\n", "outcome": RAISED},
    {"state": DONE, "outcome": {"kind": "value", "title": "DataFrame", "text": FRAME}},
    {"state": RUNNING, "notice": "The platform at http://127.0.0.1:8000 does not answer (connection refused)."},
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (TORPOR_TEST_CHROMIUM names one)"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def page(browser):
    opened = browser.new_page(viewport={"width": 840, "height": 900})

    def serve(route):
        path, kind = FILES[route.request.url.removeprefix("http://card.test")]
        route.fulfill(body=path.read_text(), content_type=kind)

    opened.route("http://card.test/**", serve)
    opened.goto("http://card.test/job_card.html")
    opened.wait_for_function("window.ready === true")
    yield opened
    opened.close()


def show(page, **traits):
    page.evaluate("traits => window.show(traits)", traits)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_cards_fit_their_page_in_both_themes(page, theme):
    page.evaluate("theme => document.body.className = theme", theme)
    for case in CASES:
        show(page, **case)
    assert page.locator(".torpor-card").count() == len(CASES)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    folder = os.environ.get("TORPOR_TEST_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/job-card-{theme}.png", full_page=True)


def test_a_queued_job_shows_its_place_and_what_it_waits_for(page):
    show(page, state=QUEUED)
    assert page.locator(".torpor-position").inner_text() == "Number 3 in the queue"
    assert page.locator(".torpor-parts li").all_inner_texts() == QUEUED["parts"]


def test_cancel_asks_first_and_can_be_done_by_keyboard(page):
    show(page, state=RUNNING)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".torpor-sure").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("window.models[0].sent") == []
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Cancel job").click()
    assert page.evaluate("window.models[0].sent") == [{"type": "cancel"}]
    assert page.get_by_role("button", name="Cancelling…").is_disabled()


def test_after_a_refused_cancel_one_may_try_again(page):
    show(page, state=RUNNING)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel job").click()
    page.evaluate("window.models[0].set('notice', 'This job is bob\\u2019s.')")
    assert page.get_by_role("alert").inner_text() == "This job is bob’s."
    assert page.get_by_role("button", name="Cancel").is_enabled()


def test_a_finished_job_cannot_be_cancelled(page):
    show(page, state=DONE)
    assert page.get_by_role("button").count() == 0


def test_the_log_stays_at_its_end_until_one_scrolls_up(page):
    show(page, state=RUNNING, log=LOG)
    box = page.get_by_role("log")
    at_end = "node => node.scrollTop + node.clientHeight >= node.scrollHeight - 4"
    page.wait_for_function(f"({at_end})(document.querySelector('[role=log]'))")
    page.evaluate("log => window.models[0].set('log', log)", LOG * 2)
    assert box.evaluate(at_end)
    box.evaluate("node => { node.scrollTop = 0; }")
    page.evaluate("log => window.models[0].set('log', log)", LOG * 3)
    assert box.evaluate("node => node.scrollTop") == 0


def test_text_from_a_job_is_never_markup(page):
    evil = "<img src=x onerror='window.hurt = 1'>"
    outcome = {"kind": "value", "title": evil, "text": evil}
    show(page, state=DONE | {"name": evil, "message": evil, "parts": [evil]}, log=evil, outcome=outcome, notice=evil)
    assert page.locator("img").count() == 0
    assert page.locator(".torpor-message").inner_text() == evil


def test_the_clock_goes_on_between_two_answers(page):
    show(page, state=RUNNING)
    assert page.locator(".torpor-time").inner_text() == "2 min 5 s"
    page.wait_for_function("document.querySelector('.torpor-time').textContent !== '2 min 5 s'")
    assert page.locator(".torpor-time").inner_text().startswith("2 min")
