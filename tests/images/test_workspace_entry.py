"""The entry point of workspace images, on a folder that is laid out as in the image."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.job_api import JobApi
from torpor_hub.processes import layering
from torpor_hub.programs import workspace

ENTRY = (sys.executable, "-I", "-m", "torpor_hub.programs.workspace")
ATTEMPT = "job-x-a1"
HEAVY = {"pydantic", "sqlalchemy", "httpx", "yaml", "asyncio", "jupyterhub", "tornado", "traitlets"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace's folder with its home beside it."""
    root, platform = tmp_path / "workspace", layering.here()
    layering.create(root / "env", platform)
    layering.configure(root, platform)
    (tmp_path / "home").mkdir()
    return root


def told(root: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TORPOR_ROOT": str(root), "HOME": str(root.parent / "home"), **more}


def run(root: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ENTRY, *arguments], env=told(root, **more), capture_output=True, text=True, check=False)


def test_the_entry_becomes_jupyterhubs_server(root: Path) -> None:
    import jupyterhub

    assert run(root, "--version").stdout.strip() == jupyterhub.__version__


def test_the_server_is_what_runs_where_nothing_else_is_named() -> None:
    assert workspace.split(["--ip=0.0.0.0"]) == ("server", ["--ip=0.0.0.0"])
    assert workspace.split(["server", "job"]) == ("server", ["job"])
    assert workspace.split(["job"]) == ("job", [])


def test_a_job_runs_on_the_environments_interpreter_with_the_files_where_the_runner_said(
    root: Path, tmp_path: Path
) -> None:
    api = JobApi()
    program = "import os, sys; print(sys.executable, os.environ['HOME'], os.getcwd())"
    api.add(ATTEMPT, {"type": "command", "argv": ["python", "-c", program]})
    about = {
        "TORPOR_URL": api.url,
        "TORPOR_JOB": "job-x",
        "TORPOR_ATTEMPT": ATTEMPT,
        "TORPOR_JOB_TOKEN": "torpor.token",
    }
    ended = run(root, "job", **about, TORPOR_FOLDER=str(tmp_path / "job"))
    api.stop()
    assert ended.returncode == 0, ended.stderr
    assert api.log(ATTEMPT).split() == [
        str(root / "env/bin/python"),
        str(tmp_path / "home"),
        str(tmp_path / "job/scratch"),
    ]


def test_a_job_has_the_images_java_and_no_shims_before_its_own_programs(root: Path) -> None:
    found = workspace.for_job(root, Path("/home/user"), layering.here(), {"JAVA_HOME": "/java", "PATH": "/usr/bin"})
    assert found["JAVA_HOME"] == "/java"
    assert found["PATH"].split(":")[0] == str(root / "env/bin")
    assert str(root / "bin") not in found["PATH"].split(":")


def test_a_server_opens_the_home_and_keeps_its_settings_there(root: Path) -> None:
    home = root.parent / "home"
    found = workspace.for_server(root, home, layering.here(), {})
    assert found["JUPYTERHUB_ROOT_DIR"] == found["HOME"] == str(home)
    assert found["JUPYTER_RUNTIME_DIR"] == str(root / "runtime")
    assert "JUPYTER_CONFIG_DIR" not in found
    assert not list(home.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_home_that_cannot_be_written_sends_settings_elsewhere_and_says_so(
    root: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**options: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    found = workspace.for_server(root, root.parent / "home", layering.here(), {})
    five = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "IPYTHONDIR",
    )
    assert all(found[name].startswith(f"{root}/runtime/") for name in five)
    assert os.strerror(number) in capsys.readouterr().err


def test_a_broken_environment_is_repaired_and_a_whole_one_is_left_as_it_is(root: Path) -> None:
    env, platform = root / "env", layering.here()
    (env / "bin/python").unlink()
    workspace.mend(env, platform)
    assert (env / "bin/python").exists()
    before = times(env)
    workspace.mend(env, platform)
    assert times(env) == before


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_the_server_opens_over_an_environment_that_cannot_be_repaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = tmp_path / "env"
    env.write_text("no folder")
    workspace.mend(env, layering.here())
    assert str(env) in capsys.readouterr().err


def test_a_containers_first_process_gets_an_init_that_reaps_orphans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = tmp_path / "tini"
    monkeypatch.setattr(workspace, "INIT", str(init))
    assert workspace.reaper(1) == []
    init.touch()
    assert workspace.reaper(1) == [str(init), "--"]
    assert workspace.reaper(2) == []


def test_the_entry_point_imports_little_because_every_start_waits_for_it() -> None:
    program = "import sys, torpor_hub.programs.workspace; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {name.partition(".")[0] for name in loaded.split()} & HEAVY
