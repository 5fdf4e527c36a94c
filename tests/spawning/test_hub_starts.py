from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import httpx

from tests.spawning.hub_site import Site, within
from tests.spawning.starts_stand_in import problem


def test_a_server_starts_with_the_grant_and_shows_each_step(site: Site, first: list[dict[str, Any]]) -> None:
    said = [event["message"] for event in first]
    assert said.index("Layer 25 of 50") < said.index("Layer 50 of 50") < said.index("Starting JupyterLab.")
    assert said.count("Layer 25 of 50") == 1
    assert first[-1]["ready"] is True
    asked = [asked for asked in site.api.asked if asked["server"] == "first"]
    assert asked[0] == {"user": "ada", "server": "first", "options": {"tenant": "research"}}
    assert httpx.get(f"{site.url}user/ada/first/api").status_code == 200


def test_a_person_gets_into_their_server_and_nobody_elses(site: Site, first: list[dict[str, Any]]) -> None:
    assert site.visit(site.signed_in("ada"), "user/ada/first/lab").status_code == 200
    assert site.visit(site.signed_in("ben"), "user/ada/first/lab").status_code == 403


def test_a_server_runs_in_its_home_on_the_platforms_interpreter_alone(site: Site, first: list[dict[str, Any]]) -> None:
    run = site.api.runs["first"]
    process = Path(f"/proc/{site.server_pid('first')}")
    assert process.joinpath("cwd").resolve() == Path(run.home_dir).resolve()
    headers = {"Authorization": f"token {site.server_token('first')}"}
    made = httpx.post(f"{site.url}user/ada/first/api/kernels", headers=headers, json={}, timeout=30)
    assert made.status_code == 201
    command = within(20, lambda: kernel_command(made.json()["id"]), "the kernel's process")
    assert command.startswith(f"{run.root_dir}/env/bin/python\0")
    assert b"\0-I\0" in process.joinpath("cmdline").read_bytes()


def test_a_refusal_shows_its_sentence_and_the_next_step(site: Site) -> None:
    refusal = problem(409, "quota_exceeded", "'research' has used 100 % of its 4 cores.", "Put a workspace to sleep.")
    site.api.before["refused"] = [refusal, refusal]
    answer = site.hub("POST", "users/ada/servers/refused")
    assert answer.status_code == 409
    assert answer.json()["message"] == "'research' has used 100 % of its 4 cores. Put a workspace to sleep."
    page = site.signed_in("ada").get("hub/spawn/ada/refused")
    assert "has used 100 % of its 4 cores." in page.text.replace("&#39;", "'")
    assert "<p>Put a workspace to sleep.</p>" in page.text


def test_a_late_refusal_ends_the_progress_with_its_sentence(site: Site) -> None:
    waiting = [(202, {"operation": "op-1", "progress": 1, "message": "Waiting"})] * 4
    site.api.before["late"] = [
        *waiting,
        problem(409, "start_failed", "The checkpoint does not read back.", "Wake the previous."),
    ]
    assert site.hub("POST", "users/ada/servers/late").status_code == 202
    last = list(site.progress("late"))[-1]
    assert last["failed"] is True
    assert "The checkpoint does not read back. Wake the previous." in last["message"]


def test_a_start_outlives_a_short_absence_of_the_platform(site: Site) -> None:
    away = problem(503, "unavailable", "The platform is being upgraded.")
    site.api.before["patient"] = [away, away, problem(409, "conflict", "Answered.")]
    site.hub("POST", "users/ada/servers/patient")
    assert "Answered." in list(site.progress("patient"))[-1]["message"]
    assert site.api.before["patient"] == []


def test_the_unnamed_server_is_refused_with_the_way_to_the_platform(site: Site) -> None:
    answer = site.hub("POST", "users/ada/server")
    assert answer.status_code == 400
    assert f"{site.base_path}services/torpor/" in answer.json()["message"]


def test_a_server_that_dies_at_once_fails_at_once_with_its_last_line(site: Site) -> None:
    site.api.environment["broken"] = {"JUPYTERHUB_SERVICE_URL": ""}
    started = time.monotonic()
    answer = site.hub("POST", "users/ada/servers/broken")
    text = answer.text if answer.status_code == 500 else list(site.progress("broken"))[-1]["message"]
    assert "Missing required environment $JUPYTERHUB_SERVICE_URL" in text
    assert "exit code 1" in text
    assert time.monotonic() - started < 20


def test_a_rescue_environment_is_asked_for_once(site: Site) -> None:
    site.api.before["rescued"] = [problem(409, "conflict", "No."), problem(409, "conflict", "No.")]
    site.hub("POST", "users/ada/servers/rescued", json={"environment": "previous", "profile": "large", "other": "x"})
    site.hub("POST", "users/ada/servers/rescued")
    first, second = [asked["options"] for asked in site.api.asked if asked["server"] == "rescued"]
    assert first == {"environment": "previous", "profile": "large"}
    assert second == {"profile": "large"}


def test_a_servers_token_tells_who_it_is_and_can_do_nothing_else_in_the_hub(
    site: Site, first: list[dict[str, Any]]
) -> None:
    token = site.server_token("first")
    me = site.hub("GET", "user", token).json()
    assert me["name"] == "ada"
    assert {"access:services!service=torpor", "custom:torpor:read", "custom:torpor:write"} <= set(me["scopes"])
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert site.hub("POST", "users/ada/activity", token, json={"last_activity": now}).status_code == 200
    refused = [
        site.hub("GET", "users", token),
        site.hub("POST", "users/ada/servers/second", token),
        site.hub("DELETE", "users/ada/servers/first", token),
        site.hub("POST", "users/ada/tokens", token),
    ]
    assert [answer.status_code for answer in refused] == [403] * 4
    others = [
        site.hub("GET", "users/ben", token),
        site.hub("POST", "users/ben/activity", token, json={"last_activity": now}),
    ]
    assert [answer.status_code for answer in others] == [404, 404]


def test_when_a_server_has_ended_its_token_is_worthless_and_its_visitors_see_the_workspaces_page(site: Site) -> None:
    site.start_server("gone")
    token = site.server_token("gone")
    assert site.hub("GET", "user", token).status_code == 200
    site.end("gone")
    within(20, lambda: not site.server("gone"), "the hub notices the end")
    assert site.hub("GET", "user", token).status_code == 403
    answer = site.signed_in("ada").get("hub/user/ada/gone/lab", headers={"Accept": "text/html"})
    assert answer.status_code == 303
    assert (
        answer.headers["location"] == f"{site.base_path}services/torpor/workspaces/{site.api.runs['gone'].workspace_id}"
    )


def kernel_command(kernel: str) -> str:
    """Return the command of a kernel's process, from the process table."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = file.read_text(errors="replace")
            if f"kernel-{kernel}.json" in command:
                return command
    return ""
