from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from torpor_hub.supervisor import java
from torpor_hub.supervisor.java import Java, choose, parse_version

OLD, NEW, NEWER, BROKEN = (
    Java(Path("/j8"), 8),
    Java(Path("/j17"), 17),
    Java(Path("/j21"), 21),
    Java(Path("/none"), None),
)


@pytest.mark.parametrize(
    ("found", "home"),
    [
        ([], None),
        ([OLD], None),
        ([BROKEN], None),
        ([NEW], Path("/j17")),
        ([NEWER, NEW], Path("/j21")),
        ([OLD, NEW], Path("/j17")),
        ([BROKEN, NEWER], Path("/j21")),
    ],
)
def test_the_first_java_that_spark_can_use_is_chosen(found: list[Java], home: Path | None) -> None:
    assert choose(found) == home


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('openjdk version "22-ea" 2024-03-19', 22),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
        ("", None),
    ],
)
def test_versions_of_java_are_read(text: str, version: int | None) -> None:
    assert parse_version(text) == version


def test_the_java_of_java_home_comes_before_the_one_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("home", "path"):
        program = tmp_path / name / "bin" / "java"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
        program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path' / 'bin'}:/bin:/usr/bin")
    assert [found.home for found in java.candidates()] == [tmp_path / "home", tmp_path / "path"]
    assert java.home(tmp_path) == tmp_path / "home"


def test_without_a_java_the_packaged_one_runs_what_spark_asks_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "absent"))
    monkeypatch.setenv("PATH", "/nowhere")
    home = java.home(tmp_path)
    program = home / "bin" / "java"
    arguments = ["--add-modules=jdk.incubator.vector", "-Dwords=two words", "-version"]
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert home == tmp_path / "java"
    assert (parse_version(ended.stderr) or 0) >= 17
    assert ended.returncode == 0
