"""The command line: what it asks the platform, what it writes where, and how it ends."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from tests.client.fake_platform import AT, TOKEN, URL, FakePlatform, problem
from torpor import errors
from torpor.cli import exits, plugins
from torpor.cli.context import Context
from torpor.cli.root import application

pytestmark = pytest.mark.filterwarnings("error")


APP = application()


class Shell:
    """Runs commands in this process against a platform in memory."""

    def __init__(self, platform: FakePlatform, home: Path) -> None:
        self.platform = platform
        self.environ = {"HOME": str(home), "TORPOR_URL": URL, "TORPOR_TOKEN": TOKEN}

    def __call__(self, *words: str, stdin: str = "", code: int = 0):
        context = Context(environ=self.environ, transport=self.platform.transport)
        answer = CliRunner().invoke(APP, list(words), obj=context, input=stdin)
        if answer.exception is not None and not isinstance(answer.exception, SystemExit):
            raise answer.exception
        assert answer.exit_code == code, answer.output
        return answer

    def json(self, *words: str):
        return json.loads(self(*words, "-o", "json").stdout)


@pytest.fixture
def platform():
    return FakePlatform()


@pytest.fixture
def torpor(platform, tmp_path):
    return Shell(platform, tmp_path)


@pytest.fixture
def first(platform):
    """A running workspace."""
    status = {"message": "It runs since 10:00.", "actions": ["sleep", "delete"]}
    return platform.add(
        "workspace", "first", spec={"profile": "small", "desired": "running"}, phase="RUNNING", **status
    )


def test_json_is_the_platforms_own_document(torpor, platform, first):
    assert torpor.json("workspaces", "show", "first") == platform.things[first]
    assert torpor.json("workspaces", "list") == [platform.things[first]]


def test_without_a_terminal_json_is_the_default(torpor, first):
    assert json.loads(torpor("workspaces", "list").stdout)[0]["id"] == first


def test_yaml_says_the_same_as_json(torpor, first):
    answer = torpor("workspaces", "list", "-o", "yaml")
    assert yaml.safe_load(answer.stdout) == torpor.json("workspaces", "list")


def test_a_table_has_no_colours_without_a_terminal(torpor, first):
    lines = torpor("workspaces", "list", "-o", "table").stdout.splitlines()
    assert lines[0].split() == ["NAME", "TENANT", "PROFILE", "PHASE", "SINCE"]
    assert lines[1].split() == ["first", "research", "small", "RUNNING", "2026-11-02", "10:00"]


def test_a_shown_workspace_says_the_platforms_words(torpor, first):
    shown = torpor("workspaces", "show", first, "-o", "table").stdout
    assert "It runs since 10:00." in shown
    assert "sleep, delete" in shown


NAMES = {
    "workspaces": ("workspace", "first", lambda key: "first"),
    "jobs": ("job", "nightly", lambda key: key),
    "datasets": ("dataset", "flights", lambda key: "research/flights"),
}


@pytest.mark.parametrize("group", NAMES)
def test_names_are_such_as_other_commands_take(torpor, platform, group):
    kind, name, shown = NAMES[group]
    key = platform.add(kind, name)
    printed = torpor(group, "list", "-o", "name").stdout.strip()
    assert printed == shown(key)
    assert torpor.json(group, "show", printed)["id"] == key
    assert torpor.json(group, "show", key)["id"] == key


CODES = [
    (400, 1),
    (401, 4),
    (403, 5),
    (404, 3),
    (409, 6),
    (412, 6),
    (422, 1),
    (429, 7),
    (500, 1),
    (503, 7),
]


@pytest.mark.parametrize(("status", "code"), CODES)
def test_each_refusal_has_its_exit_code(status, code):
    assert exits.code_of(errors.from_answer(status, b"{}")) == code


def test_a_refusal_is_sentences_on_stderr_and_nothing_on_stdout(torpor, platform, first):
    refusal = problem(409, "quota_exceeded", "Tenant research uses all 4 cores.", "Stop a job, or ask for more.")
    platform.answers["PATCH", f"workspaces/{first}"] = lambda _: refusal
    answer = torpor("workspaces", "wake", "first", code=6)
    expected = "Error: Tenant research uses all 4 cores.\nStop a job, or ask for more.\nRequest: req-7f\n"
    assert (answer.stdout, answer.stderr) == ("", expected)


def test_what_is_not_there_ends_with_3(torpor):
    assert "There is no workspace 'nope'" in torpor("workspaces", "show", "nope", code=3).stderr


def test_a_wrong_word_ends_with_2(torpor):
    assert "No such command" in torpor("workspaces", "fly", code=2).stderr


def test_without_a_configuration_it_says_how_to_get_in(torpor):
    torpor.environ = {"HOME": torpor.environ["HOME"]}
    assert "torpor login --url" in torpor("jobs", "list", code=4).stderr


def test_an_interrupt_ends_with_130(torpor, platform):
    def interrupted(_):
        raise KeyboardInterrupt

    platform.answers["GET", "jobs"] = interrupted
    assert torpor("jobs", "list", code=130).stdout == ""


def test_sleep_waits_until_it_sleeps_and_tells_how_far_it_is(torpor, platform, first):
    saving = {"phase": "SLEEPING", "message": "Saving the environment.", "progress": 40}
    platform.script[first] = [{}, saving, {"phase": "ASLEEP", "message": "Asleep.", "progress": None}]
    answer = torpor("workspaces", "sleep", "first", "--wait", "-o", "json")
    assert json.loads(answer.stdout)["status"]["phase"] == "ASLEEP"
    assert "first: Saving the environment. 40 %" in answer.stderr
    assert platform.things[first]["spec"]["desired"] == "asleep"


def test_a_sleep_that_was_called_off_is_a_failure(torpor, platform, first):
    def look(_):
        platform.things[first]["spec"]["desired"] = "running"
        platform.set(first, message="The workspace goes on: its owner came back.")
        return httpx.Response(200, json=platform.things[first])

    platform.answers["GET", f"workspaces/{first}"] = look
    answer = torpor("workspaces", "sleep", "first", "--wait", code=1)
    assert "its owner came back" in answer.stderr


def test_a_start_that_takes_too_long_ends_with_7(torpor, platform, first):
    platform.set(first, phase="STARTING")
    assert "not running after" in torpor("workspaces", "start", "first", "--wait", "--timeout", "0.05", code=7).stderr


def test_a_start_names_the_environment(torpor, platform, first):
    torpor("workspaces", "start", first, "--environment", "previous")
    assert platform.things[first]["spec"]["environment"] == "previous"


@pytest.mark.parametrize("words", [("delete", "first"), ("stop", "first", "--discard")])
def test_what_cannot_be_undone_needs_a_yes(torpor, platform, first, words):
    assert "Add --yes" in torpor("workspaces", *words, code=2).stderr
    assert first in platform.things
    assert "discard" not in platform.things[first]["spec"]
    torpor("workspaces", *words, "--yes")
    assert first not in platform.things or platform.things[first]["spec"]["discard"] is True


def test_a_plain_stop_does_not_ask(torpor, platform, first):
    torpor("workspaces", "stop", "first")
    assert platform.things[first]["spec"]["desired"] == "stopped"


def test_where_nothing_can_be_saved_a_stop_asks_in_the_platforms_words_and_discards(
    torpor, platform, first, monkeypatch
):
    question = "End 'first' and discard what was installed? It cannot be saved here, and is lost for good."
    platform.set(first, actions=["open", "stop_discard"], confirmations={"stop_discard": question})
    assert "Add --yes" in torpor("workspaces", "stop", "first", code=2).stderr
    monkeypatch.setattr("torpor.cli.context.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    assert question in torpor("workspaces", "stop", "first", stdin="n\n", code=1).stderr
    assert platform.things[first]["spec"]["desired"] == "running"
    torpor("workspaces", "stop", "first", "--yes")
    assert platform.things[first]["spec"]["discard"] is True


def test_a_shown_workspace_says_what_was_lost_where_it_runs_and_what_holds_for_it(torpor, platform, first):
    lost, note = "What was changed since 10:12 UTC is lost.", "The home can be used on one node at a time."
    amount = {"cpu_milli": 1000, "memory_bytes": 2 * 1024**3, "gpu_count": 1}
    platform.set(first, lost=lost, notes=[note], node="node-7", image="registry/workspace:1", amount=amount)
    shown = torpor("workspaces", "show", "first", "-o", "table").stdout
    for text in (lost, note, "node-7", "registry/workspace:1", "1 core, 2 GiB, 1 GPU"):
        assert text in shown


def test_a_start_that_waits_says_for_what(torpor, platform, first):
    waits = {"phase": "STARTING", "message": "Fetching the image and mounting volumes.", "progress": 60}
    platform.script[first] = [waits, {"phase": "RUNNING", "message": "", "progress": None}]
    told = torpor("workspaces", "start", "first", "--wait").stderr
    assert "first: Fetching the image and mounting volumes. 60 %" in told


def test_tenants_show_their_limits_and_what_is_held_of_them(torpor, platform):
    used = {"cpu_milli": 1500, "memory_bytes": 3 * 1024**3, "gpu_count": 1}
    spec = {"cpu_milli": 4000, "memory_bytes": 8 * 1024**3, "gpu_count": 2}
    platform.add("tenant", "research", spec=spec, used=used, workspaces=1, jobs=0, message="Its namespace is not ours.")
    assert "1.5 of 4" in torpor("tenants", "list", "-o", "table").stdout
    shown = torpor("tenants", "show", "research", "-o", "table").stdout
    assert "1 of 2" in shown
    assert "Its namespace is not ours." in shown
    assert "torpor tenants list" in torpor("tenants", "show", "none", code=3).stderr


def test_a_workspace_is_created_from_what_was_said(torpor, platform):
    torpor("workspaces", "create", "second", "--tenant", "research", "--profile", "small", "--start")
    body = json.loads(platform.requests[-1].content)
    assert body == {"name": "second", "tenant": "research", "profile": "small", "desired": "running"}


def test_without_a_tenant_it_is_the_first_that_one_may_work_in(torpor, platform):
    tenants = [{"name": "guests", "role": "viewer"}, {"name": "research", "role": "member"}]
    person = {"name": "ada", "tenants": tenants, "can_write": True}
    platform.answers["GET", "me"] = lambda _: httpx.Response(200, json=person)
    assert torpor.json("workspaces", "create", "second")["spec"]["tenant"] == "research"


def test_the_log_of_a_workspace(torpor, platform, first):
    platform.logs[first] = b"started\nready\n"
    assert torpor("workspaces", "logs", "first").stdout == "started\nready\n"


def test_a_command_is_submitted_and_waited_for(torpor, platform):
    def submitted(request):
        answer = platform._submitted(request)
        platform.script[answer.json()["id"]] = [{"phase": "RUNNING"}, {"phase": "SUCCEEDED"}]
        return answer

    platform.answers["POST", "jobs"] = submitted
    words = ("jobs", "submit", "--cores", "2", "--memory", "2GiB", "--wait", "--", "python", "train.py", "-o", "x")
    job = json.loads(torpor(*words).stdout)
    assert job["spec"]["code"]["argv"] == ["python", "train.py", "-o", "x"]
    assert job["spec"]["amount"] == {"cpu_milli": 2000, "memory_bytes": 2 * 1024**3, "gpu_count": 0}
    assert job["status"]["phase"] == "SUCCEEDED"


def test_an_amount_that_is_none_is_a_usage_error(torpor):
    assert "Write it like '2GiB'" in torpor("jobs", "submit", "--memory", "much", "--", "true", code=2).stderr


def test_waiting_for_a_job_that_failed_ends_with_1(torpor, platform):
    key = platform.add("job", "nightly", phase="FAILED", message="It ended with code 3.", next_step="Read its log.")
    answer = torpor("jobs", "wait", key, code=1)
    assert "It ended with code 3.\nRead its log." in answer.stderr


def test_waiting_too_long_for_a_job_ends_with_7(torpor, platform):
    key = platform.add("job", "nightly", phase="QUEUED")
    assert "nightly" in torpor("jobs", "wait", key, "--timeout", "0.01", code=7).stderr


def test_a_job_is_cancelled(torpor, platform):
    key = platform.add("job", "nightly", phase="RUNNING")
    torpor("jobs", "cancel", "nightly")
    assert platform.things[key]["spec"]["desired"] == "cancelled"


def test_the_log_of_a_job(torpor, platform):
    key = platform.add("job", "nightly", phase="SUCCEEDED", attempt=1)
    platform.logs[key] = b"1\n2\n3\n"
    assert torpor("jobs", "logs", key).stdout == "1\n2\n3\n"
    assert torpor("jobs", "logs", key, "--follow").stdout == "1\n2\n3\n"
    assert torpor("jobs", "logs", key, "--tail", "1").stdout == "3\n"


def test_jobs_are_chosen_by_workspace_name_and_phase(torpor, platform, first):
    torpor("jobs", "list", "--workspace", "first", "--phase", "queued")
    params = platform.requests[-1].url.params
    assert (params["workspace"], params["phase"]) == (first, "QUEUED")


def test_a_job_that_was_not_given_all_says_so(torpor, platform):
    notice = "Jobs run with the profile's own image, without what you installed."
    key = platform.add("job", "nightly", phase="RUNNING", notice=notice)
    assert notice in torpor("jobs", "show", key, "-o", "table").stdout


def test_a_queued_job_says_what_it_waits_for(torpor, platform):
    key = platform.add("job", "nightly", phase="QUEUED", parts=["Tenant research uses 4 of 4 cores."])
    assert "Tenant research uses 4 of 4 cores." in torpor("jobs", "show", key, "-o", "table").stdout


def test_stored_rows_as_records_and_as_a_table(torpor, platform):
    platform.add("dataset", "flights", as_of=AT)
    assert torpor.json("datasets", "sample", "research/flights", "-n", "1") == [{"month": 1, "carrier": "UA"}]
    assert torpor("datasets", "sample", "flights", "-o", "table").stdout.split() == [
        "MONTH",
        "CARRIER",
        "1",
        "UA",
        "2",
        "AA",
    ]


def test_a_shown_dataset_has_its_columns(torpor, platform):
    platform.add("dataset", "flights", as_of=AT, rows=12)
    assert "month    int64   partition key" in torpor("datasets", "show", "flights", "-o", "table").stdout


def test_a_dataset_is_registered_and_imported_again(torpor, platform):
    torpor("datasets", "add", "research/flights", "--source", "files", "--path", "flights")
    made = json.loads(platform.requests[-1].content)
    assert (made["name"], made["tenant"], made["format"]) == ("flights", "research", "parquet")
    assert torpor.json("datasets", "refresh", "research/flights")["kind"] == "import"


def test_a_token_is_tried_and_kept_where_nobody_else_reads_it(torpor, tmp_path):
    torpor.environ = {"HOME": str(tmp_path)}
    answer = torpor("login", "--token-stdin", "--url", "http://platform.test/", "--env", "work", stdin=f"{TOKEN}\n")
    kept = tmp_path / ".config" / "torpor" / "tokens" / "work"
    assert kept.read_text().strip() == TOKEN
    assert kept.stat().st_mode & 0o077 == 0
    assert TOKEN not in answer.output
    assert torpor.json("workspaces", "list") == []


def test_a_token_that_is_refused_is_not_kept(torpor, tmp_path):
    torpor("login", "--token-stdin", stdin="wrong\n", code=4)
    assert not list(tmp_path.rglob("tokens/*"))


def test_environments_are_listed_chosen_and_explained(torpor, tmp_path):
    path = tmp_path / ".config" / "torpor" / "config.toml"
    path.parent.mkdir(parents=True)
    text = '# mine\ndefault = "a"\n[env.a]\nurl = "https://a.example"\n[env.b]\nurl = "https://b.example"\n'
    path.write_text(text)
    torpor.environ = {"HOME": str(tmp_path)}
    assert [one["default"] for one in torpor.json("env", "list")] == [True, False]
    torpor("env", "use", "b")
    assert path.read_text() == text.replace('"a"\n[', '"b"\n[')
    assert torpor("env", "show").stdout == "https://b.example/services/torpor/\n"
    assert "default of" in torpor("env", "explain").stdout
    torpor("env", "use", "c", code=4)


def test_a_protected_environment_asks_before_every_change(torpor, platform, tmp_path):
    folder = tmp_path / ".config" / "torpor"
    (folder / "tokens").mkdir(parents=True)
    (folder / "tokens" / "live").write_text(TOKEN)
    (folder / "config.toml").write_text(f'[env.live]\nurl = "{URL}"\nprotected = true\n')
    platform.add("job", "nightly", phase="RUNNING")
    assert "This changes live" in torpor("--env", "live", "jobs", "cancel", "nightly", code=2).stderr
    torpor("jobs", "cancel", "nightly", "--yes", "--env", "live")


def test_the_doctor_finds_nothing_wrong(torpor):
    findings = torpor.json("doctor")
    assert [finding["check"] for finding in findings] == ["local", "configuration", "api", "token", "jobs"]
    assert all(finding["ok"] for finding in findings)


def test_the_doctor_names_a_token_that_may_only_read(torpor, platform):
    reader = {"name": "ada", "tenants": [{"name": "research", "role": "viewer"}], "can_write": False}
    platform.answers["GET", "me"] = lambda _: httpx.Response(200, json=reader)
    answer = torpor("doctor", "-o", "table", code=1)
    assert "FAIL  The token of ada may read only." in answer.stdout
    assert "custom:torpor:write" in answer.stdout


def test_the_doctor_names_another_wire_version(torpor, platform):
    platform.answers["GET", "health"] = lambda _: httpx.Response(200, json={"version": "9.0", "wire": [7]})
    assert "speaks the wire versions 7" in torpor("doctor", "-o", "table", code=1).stdout


class Point:
    """An entry point of another package."""

    def __init__(self, name, function):
        self.name = name
        self.load = function


def greet_plugin():
    def add(app):
        @app.command("greet")
        def greet():
            """Say hello."""
            print("hello")

    return add


def broken_plugin():
    raise ImportError("No module named 'fastapi'")


def test_a_command_of_another_package_is_there():
    app = application()
    plugins.load(app, ["greet"], lambda: [Point("greet", greet_plugin)])
    assert CliRunner().invoke(app, ["greet"]).stdout == "hello\n"


def test_a_broken_package_costs_a_sentence(capsys):
    app = application()
    plugins.load(app, [], lambda: [Point("up", broken_plugin), Point("greet", greet_plugin)])
    assert CliRunner().invoke(app, ["greet"]).exit_code == 0
    told = capsys.readouterr().err
    assert told.startswith("The command 'up' cannot be loaded here (ImportError: No module named 'fastapi').")
    assert "pip install 'torpor[embedded]'" in told


def test_asking_for_a_broken_command_ends_with_its_sentence(capsys):
    with pytest.raises(SystemExit) as caught:
        plugins.load(application(), ["up"], lambda: [Point("up", broken_plugin)])
    assert caught.value.code == 1
    assert "cannot be loaded here" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["jobs", "list"], ["--env", "work", "doctor"], ["env", "list"]])
def test_other_packages_are_not_looked_for_when_the_command_is_here(words):
    def found():
        raise AssertionError("looked")

    app = application()
    plugins.load(app, words, found)
    assert app.registered_groups


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['torpor', 'jobs', '--help']\n"
        "from torpor.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('httpx', 'rich.console', 'pandas', 'yaml', 'tomlkit') if m in sys.modules])"
    )
    took = []
    for _ in range(3):
        began = time.monotonic()
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        took.append(time.monotonic() - began)
    assert answer.stdout.splitlines()[-1] == "[]"
    # The promise is 300 ms; five times that is the limit of the test, so that a busy machine does not fail it.
    assert min(took) < 1.5


def test_phases_have_colours_unless_they_are_not_wanted(torpor, first, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[34mRUNNING" in torpor("workspaces", "list", "-o", "table").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[34m" not in torpor("workspaces", "list", "-o", "table").stdout
