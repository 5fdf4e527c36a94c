"""The root file system that images begin with."""

from __future__ import annotations

from pathlib import Path

from images import rootfs


def test_the_root_file_system_knows_itself_so_that_no_start_makes_a_file_in_etc(tmp_path: Path) -> None:
    (tmp_path / "etc/apt").mkdir(parents=True)
    rootfs.settle(tmp_path, "http://mirror/debian")
    lines = [line.split() for line in (tmp_path / "etc/hosts").read_text().splitlines()]
    assert {address for address, *names in lines if "localhost" in names} == {"127.0.0.1", "::1"}
    assert "deb http://mirror/debian-security" in (tmp_path / "etc/apt/sources.list").read_text()
