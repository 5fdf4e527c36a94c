"""What the check from inside of an image takes for left behind."""

from __future__ import annotations

from pathlib import Path

from images import checks


def test_the_empty_folders_of_a_builds_mounts_are_nothing_left(tmp_path: Path) -> None:
    for name in checks.MOUNT_POINTS:
        (tmp_path / name[1:]).mkdir(parents=True)
    (tmp_path / "var/cache/uv").mkdir(parents=True)
    assert checks.left_behind(tmp_path) == []


def test_what_a_build_read_is_named_wherever_it_lies(tmp_path: Path) -> None:
    secret, script, cached = (
        tmp_path / name for name in ("run/secrets/network", "mnt/context/install-torpor", "var/cache/uv/wheels")
    )
    for file in (secret, script, cached):
        file.parent.mkdir(parents=True)
        file.write_text("export UV_DEFAULT_INDEX=https://me:secret@index")
    assert set(checks.left_behind(tmp_path)) == {secret, script.parent, cached}


def test_an_empty_folder_of_another_name_is_left_behind(tmp_path: Path) -> None:
    other = tmp_path / "mnt/other"
    other.mkdir(parents=True)
    assert checks.left_behind(tmp_path) == [other]
