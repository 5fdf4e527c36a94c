from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from jupyter_process import JUPYTER_TOKEN, Jupyter, jupyter, platform_environment
from platform_stand_in import PAGE, TOKEN, WORKSPACE, Platform, Reply, problem

from torpor_lab.app import workspace_config
from torpor_lab.platform import Answer, target
from torpor_lab.platform import Platform as Client


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Jupyter]]:
    platform = Platform()
    with jupyter(tmp_path_factory.mktemp("jupyter"), "jupyter_server", platform_environment(platform.url)) as server:
        yield platform, server
    platform.close()


@pytest.fixture
def lab(served: tuple[Platform, Jupyter]) -> Iterator[tuple[Platform, httpx.Client]]:
    platform, server = served
    platform.overrides.clear()
    headers = {"Authorization": f"token {JUPYTER_TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=20) as client:
        yield platform, client


def test_the_platform_is_asked_with_the_servers_token_and_the_wire_version(lab: tuple[Platform, httpx.Client]) -> None:
    platform, client = lab
    answer = client.get("torpor/api/me")
    assert answer.status_code == 200
    assert answer.json()["name"] == "ada"
    asked = platform.asked("GET", "me")[-1].headers
    assert (asked["Authorization"], asked["Torpor-Wire"]) == (f"Bearer {TOKEN}", "1")


def test_what_has_not_changed_is_not_sent_again(lab: tuple[Platform, httpx.Client]) -> None:
    _, client = lab
    first = client.get(f"torpor/api/workspaces/{WORKSPACE}")
    again = client.get(f"torpor/api/workspaces/{WORKSPACE}", headers={"If-None-Match": first.headers["ETag"]})
    assert first.headers["ETag"] == '"7"'
    assert (again.status_code, again.content) == (304, b"")


def test_a_list_without_an_etag_gets_one(lab: tuple[Platform, httpx.Client]) -> None:
    _, client = lab
    first = client.get("torpor/api/jobs")
    again = client.get("torpor/api/jobs", headers={"If-None-Match": first.headers["ETag"]})
    assert len(first.json()["items"]) == 5
    assert again.status_code == 304


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 503])
def test_a_refusal_comes_through_as_it_was_written(lab: tuple[Platform, httpx.Client], status: int) -> None:
    platform, client = lab
    refusal = problem(status, "some_code", "A sentence.", "What to do.")
    refusal.headers["Retry-After"] = "7"
    platform.overrides["GET", "profiles"] = lambda _: refusal
    answer = client.get("torpor/api/profiles")
    assert answer.status_code == status
    assert answer.json() == refusal.document
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == "7"


def test_a_wish_reaches_the_platform_with_its_body_and_condition(lab: tuple[Platform, httpx.Client]) -> None:
    platform, client = lab
    wish = {"spec": {"desired": "cancelled"}}
    answer = client.patch("torpor/api/jobs/job-4", json=wish, headers={"If-Match": '"1"'})
    assert answer.json()["status"]["phase"] == "CANCELLING"
    asked = platform.asked("PATCH", "jobs/job-4")[-1]
    assert asked.document == wish
    assert asked.headers["If-Match"] == '"1"'


def test_post_and_delete_pass(lab: tuple[Platform, httpx.Client]) -> None:
    platform, client = lab
    platform.overrides["DELETE", "jobs/job-1"] = lambda _: Reply(204)
    assert client.post("torpor/api/datasets/ds-3/imports", json={}).status_code == 201
    gone = client.delete("torpor/api/jobs/job-1")
    assert (gone.status_code, gone.content) == (204, b"")


def test_a_log_keeps_its_type_and_its_offset(lab: tuple[Platform, httpx.Client]) -> None:
    _, client = lab
    answer = client.get("torpor/api/jobs/job-4/log?offset=0")
    assert answer.text.startswith("epoch  0")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert int(answer.headers["Torpor-Next-Offset"]) == len(answer.content)


def test_a_page_from_the_platform_cannot_run_on_jupyterlabs_origin(lab: tuple[Platform, httpx.Client]) -> None:
    platform, client = lab
    page = Reply(body=b"<script>alert(1)</script>", headers={"Content-Type": "text/html"})
    platform.overrides["GET", "me"] = lambda _: page
    answer = client.get("torpor/api/me")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_redirect_is_not_followed_with_the_token(lab: tuple[Platform, httpx.Client]) -> None:
    platform, client = lab
    platform.overrides["GET", "me"] = lambda _: Reply(302, headers={"Location": "/elsewhere"})
    assert client.get("torpor/api/me").status_code == 302
    assert platform.asked("GET", "/elsewhere") == []


def test_who_is_not_signed_in_to_jupyter_gets_nothing(lab: tuple[Platform, httpx.Client]) -> None:
    platform, client = lab
    before = len(platform.requests)
    stranger = {"Authorization": "token wrong"}
    for path in ("me", "workspaces", "jobs"):
        assert client.get(f"torpor/api/{path}", headers=stranger).status_code == 403
    assert client.get("torpor/config", headers=stranger).status_code == 403
    assert client.patch("torpor/api/jobs/job-4", json={}, headers=stranger).status_code == 403
    assert len(platform.requests) == before


def test_a_write_from_a_browser_needs_the_xsrf_header(served: tuple[Platform, Jupyter]) -> None:
    platform, server = served
    with httpx.Client(base_url=server.url) as browser:
        browser.get(f"tree?token={JUPYTER_TOKEN}", follow_redirects=False)
        assert browser.get("torpor/api/me", headers={"Referer": server.url}).status_code == 200
        before = len(platform.asked("PATCH", "jobs/job-5"))
        assert browser.patch("torpor/api/jobs/job-5", json={}).status_code == 403
        assert len(platform.asked("PATCH", "jobs/job-5")) == before


@pytest.mark.parametrize(
    "path", ["events", "sources", "component-tokens", "workspace-starts", "import-claims", "health"]
)
def test_paths_that_the_panel_does_not_need_are_not_passed_on(lab: tuple[Platform, httpx.Client], path: str) -> None:
    platform, client = lab
    answer = client.post(f"torpor/api/{path}", json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert platform.asked("POST", path) == []


def test_a_body_that_is_too_large_is_refused_with_the_limit(lab: tuple[Platform, httpx.Client]) -> None:
    platform, client = lab
    answer = client.post("torpor/api/jobs", content=b"x" * (1024**2 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "1 MiB" in answer.json()["detail"]
    assert platform.asked("POST", "jobs") == []


def test_watching_the_panel_is_not_activity(lab: tuple[Platform, httpx.Client]) -> None:
    _, client = lab
    before = client.get("api/status?no_track_activity=1").json()["last_activity"]
    client.get("torpor/api/me")
    client.get("torpor/config")
    assert client.get("api/status?no_track_activity=1").json()["last_activity"] == before


def test_the_config_names_the_workspace(lab: tuple[Platform, httpx.Client]) -> None:
    _, client = lab
    config = client.get("torpor/config").json()
    expected = {"workspace": WORKSPACE, "name": "first", "tenant": "research", "user": "ada", "page": PAGE}
    assert config == expected


def test_outside_of_the_platform_there_is_no_workspace() -> None:
    assert workspace_config({"TORPOR_URL": "http://x/services/torpor/"}).workspace == ""
    answer = ask(Client("", ""))
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "no_platform")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "jobs/",
        "jobs/../sources",
        "jobs/..",
        "jobs//x",
        "jobs/./x",
        "jobs/x?y",
        "jobs/x#y",
        "jobs/%2e%2e",
        "/jobs",
        "jobs/x\r\nA: b",
    ],
)
def test_a_path_cannot_leave_its_root(path: str) -> None:
    assert target(path, "") is None


def test_the_time_that_jupyterlab_adds_to_addresses_is_left_out() -> None:
    assert target("jobs", "workspace=ws-1&1763700000000") == "jobs?workspace=ws-1"
    assert target("jobs", "1763700000000") == "jobs"
    assert target("datasets", "search=a%26b%20c") == "datasets?search=a%26b+c"


def ask(client: Client, path: str = "me") -> Answer:
    async def once() -> Answer:
        try:
            return await client.ask("GET", path, {}, b"")
        finally:
            await client.close()

    return asyncio.run(once())


def test_a_platform_that_hangs_is_given_up_with_a_sentence(platform: Platform) -> None:
    def hang(_: object) -> None:
        platform.stopped.wait(10)

    platform.overrides["GET", "me"] = hang
    answer = ask(Client(platform.url, TOKEN, timeout_s=0.2))
    said = json.loads(answer.body)
    assert (answer.status, said["code"]) == (504, "platform_slow")
    assert "0.2 seconds" in said["detail"]
    assert "keep working" in said["next_step"]


def test_a_platform_that_is_away_is_a_problem_with_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer = ask(Client(f"http://127.0.0.1:{taken.getsockname()[1]}/services/torpor/", TOKEN))
    said = json.loads(answer.body)
    assert (answer.status, said["code"]) == (502, "platform_unreachable")
    assert said["detail"] == "The platform cannot be reached."
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_an_answer_that_is_too_large_is_given_up(platform: Platform) -> None:
    platform.overrides["GET", "me"] = lambda _: Reply(body=b"x" * (2 * 1024**2))
    answer = ask(Client(platform.url, TOKEN, max_answer_bytes=1024**2))
    assert (answer.status, json.loads(answer.body)["code"]) == (502, "too_large")
    assert b"1 MiB" in answer.body


def test_the_extension_loads_nothing_of_the_platforms_server() -> None:
    sources = (Path(__file__).parents[2] / "extensions" / "torpor_lab").glob("*.py")
    imports = [
        line for file in sources for line in file.read_text().splitlines() if line.startswith(("import", "from"))
    ]
    assert imports
    assert not [line for line in imports if "torpor_hub" in line or "pydantic" in line]
