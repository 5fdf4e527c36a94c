from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import threading
from pathlib import Path

import httpx
import pytest

from tests.spawning.hub_site import Site, within
from torpor_hub.processes import identity, launch


def works(site: Site, name: str) -> bool:
    """Whether its owner gets in and its token serves it."""
    page = site.visit(site.signed_in("ada"), f"user/ada/{name}/lab")
    return page.status_code == 200 and site.hub("GET", "user", site.server_token(name)).status_code == 200


def test_a_killed_hub_finds_the_running_server_again(site: Site, first: object) -> None:
    pid = site.server_pid("first")
    site.kill_hub()
    assert httpx.get(f"{site.url}user/ada/first/api").status_code == 200
    site.start_hub()
    within(20, lambda: site.server("first").get("ready"), "the server is known again")
    assert site.server_pid("first") == pid
    assert works(site, "first")


def test_after_a_lost_database_a_start_adopts_the_running_server(site: Site, first: object) -> None:
    pid = site.server_pid("first")
    site.lose_database()
    assert site.server("first") == {}
    assert site.start_server("first") == pid
    assert works(site, "first")


def test_a_server_that_ends_after_a_restart_of_the_hub_leaves_no_token_behind(site: Site) -> None:
    site.start_server("outlived")
    token = site.server_token("outlived")
    site.kill_hub()
    site.start_hub()
    within(20, lambda: site.server("outlived").get("ready"), "the server is known again")
    assert site.hub("GET", "user", token).status_code == 200
    site.end("outlived")
    within(20, lambda: not site.server("outlived"), "the hub notices the end")
    assert site.hub("GET", "user", token).status_code == 403


def test_a_stop_that_no_person_asked_for_is_refused_and_ends_nothing(site: Site, first: object) -> None:
    pid = site.server_pid("first")
    wishes = list(site.api.wishes)
    answer = site.hub("DELETE", "users/ada/servers/first")
    assert answer.status_code == 409
    assert "only people put workspaces to sleep" in answer.json()["message"]
    assert site.api.wishes == wishes
    assert site.server("first")["ready"] is True
    assert site.server_pid("first") == pid
    assert works(site, "first")


def test_a_stop_that_the_platform_cannot_record_leaves_the_server_reachable(site: Site, first: object) -> None:
    browser = site.signed_in("ada")
    site.api.away = True
    try:
        answer = site.asks_to_delete(browser, "users/ada/servers/first")
    finally:
        site.api.away = False
    assert answer.status_code == 503
    assert "being upgraded" in answer.json()["message"]
    assert site.server("first")["ready"] is True
    assert works(site, "first")


def test_the_hub_does_not_forget_a_person_whose_workspaces_run(site: Site, first: object) -> None:
    answer = site.asks_to_delete(site.signed_in("root"), "users/ada")
    assert answer.status_code == 409
    assert site.server("first")["ready"] is True
    assert works(site, "first")


def test_a_hub_that_is_shut_down_takes_no_server_with_it(site: Site, first: object) -> None:
    answer = site.asks(site.signed_in("root"), "POST", "shutdown", {"servers": True})
    assert answer.status_code == 409
    assert "outlive the hub" in answer.json()["message"]
    assert works(site, "first")


def test_a_refusal_tells_nothing_to_who_may_not_ask(site: Site, first: object) -> None:
    browser = site.signed_in("ben")
    asked = [
        site.asks_to_delete(browser, "users/ada"),
        site.asks_to_delete(browser, "users/ada/servers/first"),
        site.asks(browser, "POST", "shutdown", {"servers": True}),
    ]
    assert {answer.status_code for answer in asked} <= {403, 404}
    assert works(site, "first")


def test_a_start_is_not_broken_off_halfway(site: Site) -> None:
    site.api.before["halfway"] = [(202, {"operation": "op-1", "progress": 1, "message": "Waits."})] * 10
    site.hub("POST", "users/ada/servers/halfway").raise_for_status()
    assert site.asks_to_stop("halfway", "ben").status_code in (403, 404)
    answer = site.asks_to_stop("halfway")
    assert answer.status_code == 409
    assert "Stop it once it runs" in answer.json()["message"]
    within(60, lambda: site.server("halfway").get("ready"), "the start goes on")
    site.end("halfway")


@pytest.mark.parametrize("who", ["ada", "root"])
def test_a_stop_on_a_page_of_the_hub_is_a_sleep_an_admins_too(site: Site, who: str) -> None:
    name = f"stopped-by-{who}"
    site.start_server(name)
    site.api.on_wish = lambda run: site.end(run.name)
    assert site.asks_to_stop(name, who).status_code in (202, 204)
    within(20, lambda: not site.server(name), "the hub sees the end of the sleep")
    assert site.api.wishes[-1] == (name, "asleep")


def test_a_person_who_stops_a_server_puts_its_workspace_to_sleep(site: Site) -> None:
    site.start_server("sleepy")
    may_end = threading.Event()

    def sleep(run: object) -> None:
        may_end.wait(20)
        site.end("sleepy")

    site.api.on_wish = sleep
    assert site.asks_to_stop("sleepy").status_code == 202
    assert site.server("sleepy")["pending"] == "stop"
    may_end.set()
    within(20, lambda: not site.server("sleepy"), "the hub sees the end of the sleep")
    assert site.api.wishes[-1] == ("sleepy", "asleep")


@pytest.mark.slow
def test_a_hub_that_is_killed_before_it_knows_the_server_takes_it_up_by_itself(site: Site) -> None:
    site.failpoints.joinpath("spawner.launched").write_text("kill")
    with contextlib.suppress(httpx.TransportError):
        site.hub("POST", "users/ada/servers/early")
    site.programs.pop("hub").wait(20)
    pid = site.server_pid("early")
    site.start_hub()
    within(30, lambda: site.server("early").get("ready"), "ready without a new start")
    assert site.server_pid("early") == pid
    assert works(site, "early")


@pytest.mark.slow
def test_a_hub_that_is_killed_with_a_grant_starts_one_server(site: Site) -> None:
    site.failpoints.joinpath("spawner.granted").write_text("kill")
    with contextlib.suppress(httpx.TransportError):
        site.hub("POST", "users/ada/servers/granted")
    site.programs.pop("hub").wait(20)
    assert launch.read_run(Path(site.api.runs["granted"].root_dir)) is None
    site.start_hub()
    assert site.start_server("granted") > 0
    assert works(site, "granted")


@pytest.mark.slow
def test_a_hub_that_starts_beside_a_frozen_server_waits_for_it(site: Site, first: object) -> None:
    pid = site.server_pid("first")
    os.kill(pid, signal.SIGSTOP)
    try:
        site.kill_hub()
        site.start_hub()
        assert site.server("first")["pending"] == "check"
    finally:
        os.kill(pid, signal.SIGCONT)
    within(20, lambda: site.server("first").get("ready"), "ready after the thaw")
    assert identity.of(pid) is not None
    assert works(site, "first")


@pytest.mark.slow
def test_a_server_that_ends_while_the_hub_waits_for_it_at_its_start_is_given_up(site: Site) -> None:
    os.kill(site.start_server("waning"), signal.SIGSTOP)
    site.kill_hub()
    site.start_hub()
    assert site.server("waning")["pending"] == "check"
    site.end("waning")
    within(20, lambda: not site.server("waning"), "the hub gives it up")
    assert site.start_server("waning") > 0


@pytest.mark.slow
def test_a_hub_that_is_killed_while_it_waits_for_the_server_takes_it_up_by_itself(site: Site) -> None:
    started = threading.Thread(target=_start_and_lose, args=(site, "halfway"), daemon=True)
    started.start()
    within(20, lambda: "halfway" in site.api.runs and saved(site, "halfway"), "the state is saved")
    site.kill_hub()
    started.join(20)
    pid = site.server_pid("halfway")
    site.start_hub()
    within(30, lambda: site.server("halfway").get("ready"), "ready without a new start")
    assert site.server_pid("halfway") == pid
    assert works(site, "halfway")


@pytest.mark.slow
def test_a_server_that_ends_while_the_hub_is_away_is_known_as_ended(site: Site) -> None:
    site.start_server("lost")
    site.kill_hub()
    site.end("lost")
    site.start_hub()
    within(20, lambda: not site.server("lost"), "the hub knows of the end")
    assert site.start_server("lost") > 0
    assert works(site, "lost")


def _start_and_lose(site: Site, name: str) -> None:
    with contextlib.suppress(httpx.TransportError):
        site.hub("POST", f"users/ada/servers/{name}")


def saved(site: Site, name: str) -> bool:
    """Whether the hub has written down how to find the server."""
    with contextlib.closing(sqlite3.connect(site.state / "jupyterhub.sqlite")) as database:
        row = database.execute("select state from spawners where name = ?", (name,)).fetchone()
    return row is not None and bool(json.loads(row[0] or "{}").get("handle"))
