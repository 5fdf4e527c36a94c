"""What goes into images: the wheel, and nothing of how the builder reaches its package index."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from images import build, engines, plan, sources

ROOT = Path(__file__).resolve().parents[2]


def sourced(settings: str, name: str) -> str:
    return subprocess.run(
        ["sh", "-c", f'{settings}\nprintf %s "${name}"'], capture_output=True, text=True, check=True, env={}
    ).stdout


def test_a_build_reaches_the_index_that_pip_is_set_to() -> None:
    settings = sources.network_settings({"PIP_INDEX_URL": "https://me:p'w@index/simple", "LANG": "C"})
    assert sourced(settings, "UV_DEFAULT_INDEX") == "https://me:p'w@index/simple"
    assert "LANG" not in settings


def test_a_setting_for_uv_wins_over_the_one_for_pip() -> None:
    both = {"PIP_INDEX_URL": "https://pip", "UV_DEFAULT_INDEX": "https://uv"}
    assert sourced(sources.network_settings(both), "UV_DEFAULT_INDEX") == "https://uv"


def test_secrets_are_files_that_only_the_builder_reads_and_that_are_gone_afterwards(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_text("certificates")
    with sources.secrets(tmp_path, {"PIP_CERT": str(bundle), "HTTPS_PROXY": "http://proxy"}) as given:
        assert given.certificates.read_text() == "certificates"
        assert {path.stat().st_mode & 0o777 for path in (given.network, given.certificates)} == {0o600}
    assert list(tmp_path.iterdir()) == [bundle]


def test_a_step_sees_only_what_it_is_made_from(tmp_path: Path) -> None:
    lock, folder = tmp_path / "a.txt", tmp_path / "modules"
    folder.mkdir()
    for file in (lock, folder / "index.js", tmp_path / "other"):
        file.write_text(file.name)
    step = plan.Step("x", lock, "root", {"lock.txt": lock, "node/node_modules": folder})
    with sources.context_of(step, tmp_path) as context:
        found = {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()}
    assert found == {"lock.txt", "node/node_modules/index.js"}


def test_the_wheel_has_what_images_need_beside_python(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name.partition(".data/data/")[2] or name for name in wheel.namelist()}
    assert {"share/torpor/jupyterhub_config.py", "share/torpor/node/package-lock.json"} <= names
    assert "etc/jupyter/jupyter_server_config.d/torpor_lab.json" in names
    assert "share/jupyter/labextensions/@torpor/lab/package.json" in names
    assert "torpor_hub/programs/workspace.py" in names


def test_an_engine_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engines.EngineFailed, match="podman"):
        engines.choose("podman", tmp_path / "log")


def test_a_client_whose_daemon_does_not_run_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon.' >&2\nexit 1\n")
    client.chmod(0o755)
    asked_for: list[str] = []

    def install(programs: Sequence[str]) -> None:
        asked_for.extend(programs)
        (tmp_path / "buildah").symlink_to("/bin/true")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build.rootfs, "install_missing", install)
    assert build.engine_of("", tmp_path / "log").name == "buildah"
    assert "buildah" in asked_for


def test_a_docker_that_lacks_its_builder_is_no_engine_and_the_plugin_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "docker"
    client.write_text('#!/bin/sh\n[ "$1" = info ] || { echo "the buildx component is missing" >&2; exit 1; }\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(engines.EngineFailed, match="plugin buildx"):
        engines.choose("docker", tmp_path / "log")


def test_docker_builds_with_buildkit_where_there_is_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "docker"
    said = tmp_path / "said"
    client.write_text(f'#!/bin/sh\necho "BuildKit: $DOCKER_BUILDKIT, docker $*" >{said}\n[ "$1" != buildx ]\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    secrets = engines.Secrets(tmp_path / "network", tmp_path / "certificates")
    engines.choose("docker", tmp_path / "log").build("torpor/x:1", tmp_path / "Dockerfile", tmp_path, {}, secrets)
    assert said.read_text().startswith("BuildKit: 1, docker build ")


def test_no_engine_takes_an_older_builds_layers_for_those_of_today() -> None:
    cached_by_default = {engines.Podman, engines.Docker}
    assert {engine for engine in engines.KNOWN.values() if "--no-cache" in engine.build_command} == cached_by_default
    assert "--layers" not in engines.Buildah.build_command


def test_sizes_are_read_as_buildah_prints_them() -> None:
    assert engines.parse_size("1.65 GB") == 1_650_000_000
    assert engines.parse_size("512 B") == 512
