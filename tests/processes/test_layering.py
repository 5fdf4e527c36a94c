from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from torpor_hub.errors import EnvironmentMismatch
from torpor_hub.processes import layering

PLATFORM = layering.here()
BARE = {"HOME": "/nonexistent", "LANG": "C.UTF-8"}


def wheel(folder: Path, name: str = "flightplan", version: str = "1.0") -> Path:
    """Return a wheel with one module and one console script."""
    content = {
        f"{name}.py": f"import sys\n\ndef main():\n    print({version!r}, sys.prefix)\n",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-{version}.dist-info/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = f"{name}-{version}.dist-info/RECORD"
    lines = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in content.items()]
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in {**content, record: "\n".join([*lines, f"{record},,"]) + "\n"}.items():
            archive.writestr(path, text)
    return file


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def workspace(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return an environment, ready, and the variables that its server would get."""
    root, home = folder / "ws-1", folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    layering.create(root / "env", PLATFORM)
    layering.configure(root, PLATFORM)
    inherited = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": "/elsewhere"}
    return root / "env", layering.variables(root, home, PLATFORM, inherited)


def run(environment: dict[str, str], *command: str | Path) -> str:
    ended = subprocess.run(
        [str(word) for word in command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=environment["HOME"],
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in [*folders, *names])):
            status = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


def test_what_a_user_installs_lands_in_the_environment(tmp_path: Path) -> None:
    env, variables = workspace(tmp_path)
    run(variables, "/bin/bash", "-c", f"pip install --quiet --no-index --no-deps {wheel(tmp_path)}")
    assert (env / f"lib/python{PLATFORM.minor}/site-packages/flightplan.py").is_file()
    assert run(variables, "/bin/bash", "-c", "flightplan").split() == ["1.0", str(env)]
    assert run(variables, "/bin/bash", "-c", "python -c 'import flightplan; flightplan.main()'").split() == [
        "1.0",
        str(env),
    ]
    assert "flightplan" in run(variables, "/bin/bash", "-c", "pip list --local --format=freeze")
    with pytest.raises(ImportError):
        __import__("flightplan")


def test_a_platform_package_is_there_can_be_overridden_and_cannot_be_harmed(tmp_path: Path) -> None:
    _, variables = workspace(tmp_path)
    before = snapshot(Path(sys.prefix) / f"lib/python{PLATFORM.minor}/site-packages/idna")
    answer = run(
        variables, "/bin/bash", "-c", "pip uninstall -y idna 2>&1; python -c 'import idna; print(idna.__file__)'"
    )
    assert "outside environment" in answer
    assert str(PLATFORM.site_packages[0]) in answer
    run(variables, "/bin/bash", "-c", f"pip install -q --no-index --no-deps {wheel(tmp_path, 'idna', '99.0')}")
    assert run(variables, "/bin/bash", "-c", "python -c 'import idna; idna.main()'").split()[0] == "99.0"
    assert snapshot(Path(sys.prefix) / f"lib/python{PLATFORM.minor}/site-packages/idna") == before


def test_no_pip_on_the_search_path_is_the_platforms(tmp_path: Path) -> None:
    env, variables = workspace(tmp_path)
    for name in ("pip", "pip3", "ipython"):
        assert run(variables, "/bin/bash", "-c", f"type -P {name}").strip() == str(env / "bin" / name)
        (env / "bin" / name).unlink()
        assert run(variables, "/bin/bash", "-c", f"type -P {name}").strip() == str(env.parent / "bin" / name)
    where = run(variables, "/bin/bash", "-c", "ipython -c 'import sys; print(sys.prefix)'")
    assert where.split()[-1] == str(env)


def test_a_kernel_runs_on_the_environments_python_whatever_a_package_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, variables = workspace(tmp_path)
    overwritten = env / "share/jupyter/kernels/python3/kernel.json"
    overwritten.parent.mkdir(parents=True)
    overwritten.write_text(
        '{"argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}'
    )
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        shown: list[str] = []
        client.execute_interactive(
            "import sys, torpor; print(sys.prefix)",
            output_hook=lambda message: shown.append(str(message["content"])),
            timeout=20,
        )
        assert str(env) in "".join(shown)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_terminals_are_no_login_shells(tmp_path: Path) -> None:
    env, variables = workspace(tmp_path)
    program = (
        "from jupyter_core.application import JupyterApp\n"
        "class Server(JupyterApp):\n"
        "    name = 'jupyter-server'\n"
        "app = Server(); app.load_config_file(); print(app.config.ServerApp.terminado_settings)\n"
    )
    shown = run(variables, sys.executable, "-c", program)
    assert "shell_command" in shown
    assert "-l" not in shown
    assert run(variables, "/bin/bash", "-i", "-c", "type -P python").strip() == str(env / "bin/python")


def test_a_second_refresh_changes_nothing(tmp_path: Path) -> None:
    env, variables = workspace(tmp_path)
    run(
        variables, "/bin/bash", "-c", f"pip install -q --no-index --no-deps {wheel(tmp_path)}; flightplan; ipython -c 1"
    )
    before = snapshot(env.parent)
    workspace(tmp_path)
    assert snapshot(env.parent) == before


def test_a_refresh_mends_what_was_lost_and_follows_a_platform_that_moved(tmp_path: Path) -> None:
    env, variables = workspace(tmp_path)
    packages = env / f"lib/python{PLATFORM.minor}/site-packages"
    (packages / layering.PTH).write_text("/gone/with/the/old/platform\n")
    (env / "bin/python").unlink()
    (env / "bin/pip").unlink()
    (env / layering.CONFIG).unlink()
    layering.refresh(env, PLATFORM)
    shown = run(variables, "/bin/bash", "-c", "python -c 'import sys, jupyter_core; print(sys.prefix)'; pip --version")
    assert str(env) in shown
    assert "platform\n" not in (packages / layering.PTH).read_text()


def test_a_users_own_pip_stays_theirs(tmp_path: Path) -> None:
    env, _ = workspace(tmp_path)
    theirs = f"#!{env}/bin/python\n# mine\n"
    (env / "bin/pip").write_text(theirs)
    layering.refresh(env, PLATFORM)
    assert (env / "bin/pip").read_text() == theirs


def test_another_python_is_refused_with_both_versions(tmp_path: Path) -> None:
    env, _ = workspace(tmp_path)
    other = layering.Platform(PLATFORM.interpreter, "3.99.1", PLATFORM.site_packages, PLATFORM.scripts)
    before = snapshot(env)
    for attempt in (layering.refresh, layering.for_job, layering.create):
        with pytest.raises(EnvironmentMismatch, match=rf"{PLATFORM.minor}.*3\.99"):
            attempt(env, other)
    assert {path: entry[1:] for path, entry in snapshot(env).items()} == {
        path: entry[1:] for path, entry in before.items()
    }


@pytest.mark.parametrize("depth", [1, 12], ids=["short path", "path too long for a shebang"])
def test_a_job_runs_a_checkpoint_at_another_path_and_cannot_write_there(tmp_path: Path, depth: int) -> None:
    env, variables = workspace(tmp_path)
    run(variables, "/bin/bash", "-c", f"pip install -q --no-index --no-deps {wheel(tmp_path)}")
    (env / "bin/report").write_text("#!/bin/sh\necho mine\n")
    unpacked = tmp_path.joinpath(*["deeper-and-deeper"] * depth, "environments", "0" * 64)
    unpacked.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", str(env), str(unpacked)], check=True)
    before = snapshot(env)
    python = layering.for_job(unpacked, PLATFORM)
    assert python == unpacked / "bin/python"
    job = {**BARE, "PATH": layering.search_path(unpacked, None, PLATFORM, "/usr/bin:/bin"), "HOME": str(tmp_path)}
    assert run(job, "/bin/bash", "-c", "flightplan").split() == ["1.0", str(unpacked)]
    assert run(job, python, "-c", "import torpor, sys; print(sys.prefix)").strip() == str(unpacked)
    assert f"{unpacked}/lib" in run(job, "/bin/bash", "-c", "pip show -f flightplan")
    assert not any(path.lstat().st_mode & 0o222 for path in unpacked.rglob("*") if not path.is_symlink())
    settled = snapshot(unpacked)
    assert layering.for_job(unpacked, PLATFORM) == python
    assert snapshot(unpacked) == settled
    assert snapshot(env) == before, "the workspace's own environment was touched"


def test_scripts_of_every_installer_follow_the_environment(tmp_path: Path) -> None:
    env, _ = workspace(tmp_path)
    old = env / "bin"
    first_lines = {
        "plain": (f"#!{old}/python3\n", "#!{new}/python3\n"),
        "options": (f"#!{old}/python -I\n", "#!{new}/python -I\n"),
        "pip": (f"#!/bin/sh\n'''exec' \"{old}/python\" \"$0\" \"$@\"\n' '''\n", "#!{new}/python\n"),
        "uv": (f"#!/bin/sh\n'''exec' '{old}/python3.11' \"$0\" \"$@\"\n' '''\n", "#!{new}/python3.11\n"),
        "distlib": (f"#!/bin/sh\n'''exec' {old}/python \"$0\" \"$@\"\n' '''\n", "#!{new}/python\n"),
        "system": ("#!/usr/bin/python3\n", "#!/usr/bin/python3\n"),
        "neighbour": (f"#!{env}2/bin/python\n", f"#!{env}2/bin/python\n"),
    }
    for name, (first, _) in first_lines.items():
        (old / name).write_text(first + "print(1)\n")
        (old / name).chmod(0o750)
    moved = env.rename(env.with_name("e"))
    layering.refresh(moved, PLATFORM)
    for name, (_, expected) in first_lines.items():
        assert (moved / "bin" / name).read_text() == expected.format(new=moved / "bin") + "print(1)\n"
        assert (moved / "bin" / name).stat().st_mode & 0o777 == 0o750
