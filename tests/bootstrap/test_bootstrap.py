from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bootstrap
from bootstrap import Stage, StageFailed, digest, extension_sources, kind_to_install, missing_programs, stale


def stages(*names: str, made: list[str] | None = None) -> list[Stage]:
    acts = made if made is not None else []
    return [Stage(name, name, f"key of {name}", (), lambda name=name: acts.append(name)) for name in names]


def test_everything_runs_on_a_new_machine() -> None:
    all_stages = stages("venv", "packages", "project")
    assert stale(all_stages, {}) == all_stages


def test_nothing_runs_when_nothing_changed() -> None:
    all_stages = stages("venv", "packages", "project")
    assert stale(all_stages, {stage.name: stage.key for stage in all_stages}) == []


def test_what_follows_a_changed_stage_runs_again() -> None:
    all_stages = stages("venv", "packages", "project", "proxy")
    stamps = {stage.name: stage.key for stage in all_stages} | {"packages": "another key"}
    assert [stage.name for stage in stale(all_stages, stamps)] == ["packages", "project", "proxy"]


def test_a_stage_whose_output_is_gone_runs_again(tmp_path: Path) -> None:
    output = tmp_path / "node_modules"
    stage = Stage("proxy", "Proxy", "key", (output,), lambda: None)
    assert stale([stage], {"proxy": "key"}) == [stage]
    output.mkdir()
    assert stale([stage], {"proxy": "key"}) == []


def test_a_stage_that_fails_is_repeated_with_all_that_follow(tmp_path: Path) -> None:
    installation = bootstrap.Installation(tmp_path, "platform")
    made: list[str] = []
    first, second = stages("first", "second", made=made)
    (tmp_path / ".venv" / "bootstrap").mkdir(parents=True)
    for stage in (first, second):
        installation.run(stage, [])

    def fail() -> None:
        raise StageFailed("no network")

    with pytest.raises(StageFailed):
        installation.run(Stage("first", "first", "new key", (), fail), [second])
    assert installation.stamps() == {}
    assert made == ["first", "second"]


def test_a_digest_changes_with_content_name_and_facts(tmp_path: Path) -> None:
    file = tmp_path / "package.json"
    absent = digest([file], tmp_path)
    file.write_text("one")
    one = digest([file], tmp_path)
    other = tmp_path / "package-lock.json"
    other.write_text("one")
    file.write_text("two")
    seen = [absent, one, digest([file], tmp_path), digest([other], tmp_path), digest([other], tmp_path, "dev")]
    assert len(set(seen)) == len(seen)
    file.write_text("one")
    assert digest([file], tmp_path) == one


@pytest.mark.parametrize(
    ("asked", "installed", "wanted"),
    [
        ("platform", "", "platform"),
        ("dev", "platform", "dev"),
        ("platform", "dev", "dev"),
        ("platform", "platform", "platform"),
    ],
)
def test_a_developers_environment_is_never_made_smaller(asked: str, installed: str, wanted: str) -> None:
    assert kind_to_install(asked, installed) == wanted


def test_builds_are_no_sources_of_the_extension(tmp_path: Path) -> None:
    for name in (
        "src/index.ts",
        "package.json",
        "node_modules/a/index.js",
        "lib/index.js",
        "torpor_lab/labextension/a.js",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = {str(path.relative_to(tmp_path)) for path in extension_sources(tmp_path)}
    assert found == {"src/index.ts", "package.json"}


def test_what_is_missing_from_debian_is_named() -> None:
    assert missing_programs(None, []) == ["Chromium", "PostgreSQL"]
    assert missing_programs("/usr/bin/chromium", [Path("/usr/lib/postgresql/15/bin/initdb")]) == []


def test_a_failing_command_shows_its_last_lines(tmp_path: Path) -> None:
    installation = bootstrap.Installation(tmp_path, "platform")
    with pytest.raises(StageFailed, match="no such mirror"):
        installation._call(sys.executable, "-c", "import sys; sys.exit('no such mirror')")


def test_a_wrong_argument_gets_the_usage() -> None:
    ended = subprocess.run([sys.executable, bootstrap.__file__, "all"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "platform|dev" in ended.stderr
