"""`torpor up` as a whole: one at a time, closed to strangers, and the same again after its end."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import zstandard

from tests.support import wheels
from tests.support.people import Person
from tests.support.platform import TORPOR, Platform, free_port, platform, until

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(600)]
SETTINGS = """
[[seed.tenants]]
name = "research"
cpu_milli = 1500
[[seed.tenants]]
name = "operations"
[[seed.users]]
name = "ada"
tenants = {research = "member"}
[[seed.users]]
name = "ben"
tenants = {operations = "member"}
[[seed.users]]
name = "root"
admin = true
"""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
REFUSED = (403, 404)


@dataclass
class Used:
    """A platform in use: both users have a workspace, and ada's has a package that no checkpoint holds yet."""

    site: Platform
    ada: Person
    ben: Person
    adas: str = ""
    bens: str = ""
    seen: set[str] = field(default_factory=set)

    def variables(self, workspace: str) -> dict[str, str]:
        """Return the environment of the workspace's server, from the process table."""
        for pid, command in self.site.processes().items():
            lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            known = dict(line.partition("=")[::2] for line in lines)
            if "singleuser" in command and "reaper" not in command and known.get("TORPOR_WORKSPACE") == workspace:
                return known
        raise AssertionError(f"no server of {workspace} in {self.site.processes()}")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Used]:
    folder = tmp_path_factory.mktemp("up")
    with platform(folder, prefix="/lab/one/", settings=SETTINGS) as site:
        made = Used(site, Person(site, "ada"), Person(site, "ben"))
        made.adas, made.bens = made.ada.create("first", "research"), made.ben.create("own", "operations")
        made.ada.reaches(made.adas, "RUNNING")
        made.ben.reaches(made.bens, "RUNNING")
        with made.ada.kernel(made.adas) as kernel:
            kernel.run(f"%pip install --no-index --no-deps {wheels.make(folder, 'kept', '2.0', 11)}")
        yield made


def refusal(*arguments: str) -> str:
    """Return what a start says that has to be refused."""
    ended = subprocess.run([TORPOR, "up", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended
    return ended.stderr


def test_a_second_platform_on_the_same_state_is_refused_with_a_sentence(used: Used) -> None:
    assert used.site.process is not None
    said = refusal("--state", str(used.site.state), "--port", str(free_port()))
    assert (
        f"The state folder {used.site.state} is in use by process {used.site.process.pid}, at {used.site.url}" in said
    )
    assert f"kill {used.site.process.pid}" in said
    assert "Traceback" not in said


def test_a_port_in_use_is_refused_with_one_that_is_free(used: Used, tmp_path: Path) -> None:
    said = refusal("--state", str(tmp_path / "state"), "--port", str(used.site.port))
    assert f"Port {used.site.port} on 127.0.0.1 cannot be used: another program listens there." in said
    assert "--port " in said.partition("Choose another port:")[2]
    assert "Traceback" not in said


def test_generated_secrets_are_for_their_owner_alone(used: Used) -> None:
    folder = used.site.state / "secrets"
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert len(modes) >= 10
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(used.site.state.stat().st_mode) == 0o700


def test_a_workspaces_own_token_reaches_its_own_and_nothing_else(used: Used) -> None:
    variables = used.variables(used.adas)
    token = variables["JUPYTERHUB_API_TOKEN"]
    used.seen.add(token)
    headers = {"Authorization": f"Bearer {token}"}
    hub, port = f"{used.site.url}hub/api", _control_port(used.site)
    now = datetime.now(UTC).isoformat()
    activity = {"servers": {"first": {"last_activity": now}}}
    with httpx.Client(headers=headers, timeout=30) as client:
        assert client.get(f"{used.site.api}/workspaces/{used.adas}").status_code == 200
        assert client.get(f"{used.ada.server_url(used.adas)}api/status").status_code == 200
        assert client.post(f"{hub}/users/ada/activity", json=activity).status_code == 200
        refused = {
            "users": client.get(f"{hub}/users"),
            "another user": client.get(f"{hub}/users/ben"),
            "start": client.post(f"{hub}/users/ada/servers/second"),
            "stop": client.delete(f"{hub}/users/ada/servers/first"),
            "new token": client.post(f"{hub}/users/ada/tokens", json={}),
            "another's start": client.post(f"{hub}/users/ben/servers/own"),
            "another's activity": client.post(f"{hub}/users/ben/activity", json={"servers": {}, "last_activity": now}),
            "routes": client.get(f"{hub}/proxy"),
            "shutdown": client.post(f"{hub}/shutdown", json={}),
            "groups": client.post(f"{hub}/groups/some"),
            "another's server": client.get(f"{used.ben.server_url(used.bens)}api/status"),
            "control port": client.get(f"http://127.0.0.1:{port}/api/routes"),
            "another's workspace": client.get(f"{used.site.api}/workspaces/{used.bens}"),
            "all workspaces' wish": client.patch(f"{used.site.api}/workspaces/{used.bens}", json={"spec": {}}),
        }
    assert {name: answer.status_code for name, answer in refused.items() if answer.status_code not in REFUSED} == {}
    assert refused["another's workspace"].status_code == 404


def test_a_refusal_for_the_quota_says_its_numbers(used: Used) -> None:
    body = {"name": "toomuch", "tenant": "research", "profile": "small", "desired": "running"}
    answer = used.ada.client.post("/workspaces", json=body)
    assert answer.status_code == 409, answer.text
    problem = answer.json()
    assert problem["code"] == "quota_exceeded"
    assert "Tenant 'research' may hold 1.5 cores at once and holds 1 core; this needs 1 core more." in problem["detail"]
    assert problem["next_step"]


def test_users_of_different_tenants_see_nothing_of_each_other(used: Used) -> None:
    job = used.ada.submit(None, ["true"], tenant="research")
    mine, theirs = used.ada.get("/workspaces"), used.ben.get("/workspaces")
    assert [item["id"] for item in mine["items"]] != [item["id"] for item in theirs["items"]] == [used.bens]
    assert used.ben.get("/jobs")["items"] == []
    assert [item["name"] for item in used.ben.get("/tenants")["items"]] == ["operations"]
    unknown = used.ben.client.get(f"/workspaces/ws-{'0' * 20}")
    for path in (f"/workspaces/{used.adas}", f"/workspaces/{used.adas}/log", f"/jobs/{job}", f"/jobs/{job}/log"):
        answer = used.ben.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, unknown.json()["code"]), path
    refused = used.ben.client.post("/workspaces", json={"name": "spy", "tenant": "research", "profile": "small"})
    assert refused.status_code == 404
    server = httpx.get(
        f"{used.ada.server_url(used.adas)}api/status", headers={"Authorization": f"token {used.ben.token}"}
    )
    assert server.status_code in REFUSED
    assert used.ada.ended(job)["phase"] == "SUCCEEDED"


@pytest.mark.slow
def test_after_ctrl_c_and_a_new_start_everything_is_as_it_was(used: Used) -> None:
    site, ada = used.site, used.ada
    again = "test -e $HOME/again && exit 0; touch $HOME/again; exec sleep 600"
    running = ada.submit(used.adas, ["sh", "-c", again])
    until((site.state / "homes/research/ada/again").exists, 120, "the job's first attempt")
    until(lambda: ada.job(running)["phase"] == "RUNNING", 60, "the running job")
    used.seen.add(_job_token(site, running))
    amount = {"cpu_milli": 1000, "memory_bytes": 256 * 1024**2, "gpu_count": 0}
    waiting = ada.submit(used.adas, ["python", "-c", "import kept; print(kept.VALUE)"], amount=amount)
    until(lambda: ada.job(waiting)["phase"] == "QUEUED" and ada.job(waiting)["parts"], 60, "the queued job")

    site.down()
    assert site.processes() == {}
    assert site.held() == []
    assert site.rows("SELECT phase, reason, unsaved FROM workspaces WHERE id = ?", used.adas) == [
        {"phase": "STOPPED", "reason": "PLATFORM_STOPPED", "unsaved": 1}
    ]
    stopped = site.rows("SELECT phase, reason, attempt FROM jobs WHERE id = ?", running)
    assert stopped == [{"phase": "QUEUED", "reason": "PLATFORM_STOPPED", "attempt": 1}]
    assert site.rows("SELECT phase FROM jobs WHERE id = ?", waiting) == [{"phase": "QUEUED"}]

    shown = dict(site.passwords)
    site.up()
    assert site.passwords == shown
    assert "Users and their passwords" not in site.output
    assert ada.ended(running)["phase"] == "SUCCEEDED"
    assert ada.job(running)["attempt"] == 2
    assert ada.ended(waiting)["phase"] == "SUCCEEDED"
    assert "11" in ada.job_log(waiting)
    ada.wished(used.adas, desired="running")
    ada.reaches(used.adas, "RUNNING")
    with ada.kernel(used.adas) as kernel:
        assert kernel.run("import kept; print(kept.VALUE)") == "11\n"


def test_no_secret_is_in_a_log_or_an_image(used: Used) -> None:
    site = used.site
    used.ada.wished(used.adas, desired="asleep")
    used.ada.reaches(used.adas, "ASLEEP")
    secrets = {file.name: file.read_text().strip() for file in (site.state / "secrets").iterdir()}
    secrets |= {f"password of {name}": password for name, password in site.passwords.items()}
    secrets |= {f"token {number}": token for number, token in enumerate([used.ada.token, used.ben.token, *used.seen])}
    assert len(secrets) >= 16
    files = [site.state.parent / "up.err", *(site.state / "logs").rglob("*"), *(site.state / "blobs").rglob("*")]
    files += [*(site.state / "workspaces").glob("*/logs/*"), *(site.state / "jobs").rglob("*")]
    contents = {file: file.read_bytes() for file in files if file.is_file()}
    images = {file: _unpacked(file) for file in (site.state / "images").rglob("*") if file.is_file()}
    assert any(b"kept/__init__.py" in content for content in images.values())
    assert len(contents) > 5
    found = [
        (str(file.relative_to(site.state.parent)), name)
        for file, content in {**contents, **images}.items()
        for name, secret in secrets.items()
        if secret.encode() in content
    ]
    assert found == []


def _unpacked(file: Path) -> bytes:
    content = file.read_bytes()
    if not content.startswith(ZSTD_MAGIC):
        return content
    with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as stream:
        return stream.read()


def _control_port(site: Platform) -> int:
    command = Path(f"/proc/{site.services()['proxy']}/cmdline").read_bytes().decode().split("\0")
    return int(command[command.index("--api-port") + 1])


def _job_token(site: Platform, job: str) -> str:
    for pid in site.processes():
        for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = line.partition(b"=")
            if name == b"TORPOR_JOB_TOKEN" and job.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                return os.fsdecode(value)
    raise AssertionError(f"no wrapper of {job}")
