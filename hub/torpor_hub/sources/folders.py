"""Finding a dataset's files: below the root, nowhere else, and the partition that each of them is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from torpor_hub.domain.datasets import FailureCode, path_problem
from torpor_hub.errors import SourceFailed
from torpor_hub.sources.failures import translated

SUFFIXES = (".parquet", ".parq", ".pq")
MOST_FILES = 100_000
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

Keys = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Part:
    """One file of a dataset. ``keys`` are its partition's, in the order of the folders; None where hive wrote null."""

    path: str
    size_bytes: int
    keys: Keys


def locate_root(root: str, allowed: tuple[Path, ...]) -> Path:
    """Return a source's root without symbolic links.

    Raises:
        SourceFailed: NOT_FOUND, or FORBIDDEN when it lies outside of the folders where files sources may be.
    """
    with translated(f"The root '{root}'"):
        found = Path(root).resolve(strict=True)
    if not found.is_dir():
        raise SourceFailed(FailureCode.UNSUPPORTED, f"The root '{root}' is not a folder.", "Name a folder.")
    if not any(found.is_relative_to(folder.resolve()) for folder in allowed):
        raise SourceFailed(
            FailureCode.FORBIDDEN,
            f"The root '{root}' leads outside of the folders where files sources may lie.",
            "Ask an admin to add its folder to the setting source_roots.",
        )
    return found


def locate_object(root: Path, path: str) -> Path:
    """Return the dataset's file or folder without symbolic links.

    Raises:
        SourceFailed: NOT_FOUND, or FORBIDDEN when it leads out of the root.
    """
    problem = path_problem(path)
    if problem:
        raise SourceFailed(FailureCode.FORBIDDEN, problem, "Name a file or folder below the source's root.")
    with translated(f"'{path}'"):
        found = (root / path).resolve(strict=True)
    _check_inside(found, root, path)
    return found


def parts(root: Path, found: Path, path: str) -> tuple[Part, ...]:
    """Return the dataset's Parquet files, sorted by path.

    Raises:
        SourceFailed: NOT_FOUND when there are none, TOO_LARGE when there are too many.
    """
    if found.is_file():
        return (Part(str(found), found.stat().st_size, ()),)
    if not found.is_dir():
        raise SourceFailed(FailureCode.UNSUPPORTED, f"'{path}' is neither a file nor a folder.", "")
    with translated(f"The folder '{path}'"):
        listed = sorted(_walk(root, found, ()), key=lambda part: part.path)
    if not listed:
        known = ", ".join(SUFFIXES)
        raise SourceFailed(
            FailureCode.NOT_FOUND, f"The folder '{path}' holds no Parquet files ({known}).", "Check the path."
        )
    return tuple(listed)


def _walk(root: Path, folder: Path, keys: Keys) -> Iterator[Part]:
    pending, count = [(folder, keys)], 0
    while pending:
        here, inherited = pending.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith((".", "_")):
                    continue
                if _is_folder(entry):
                    pending.append((Path(entry.path), inherited + _key(entry.name)))
                elif entry.name.endswith(SUFFIXES):
                    count += 1
                    _check_count(count, folder)
                    yield _part(root, entry, inherited)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink() and entry.is_dir():
        raise SourceFailed(
            FailureCode.FORBIDDEN,
            f"The folder '{entry.name}' is a symbolic link, which is not followed inside of a dataset.",
            "Replace it with the folder itself.",
        )
    return entry.is_dir(follow_symlinks=False)


def _part(root: Path, entry: os.DirEntry[str], keys: Keys) -> Part:
    path = Path(entry.path)
    if entry.is_symlink():
        path = path.resolve(strict=True)
        _check_inside(path, root, entry.name)
    if not path.is_file():
        raise SourceFailed(FailureCode.UNSUPPORTED, f"'{entry.name}' is not a regular file.", "Remove it.")
    return Part(str(path), path.stat().st_size, keys)


def _key(folder: str) -> Keys:
    name, separator, value = folder.partition("=")
    if not separator or not name:
        return ()
    return ((unquote(name), None if value == HIVE_NULL else unquote(value)),)


def _check_inside(found: Path, root: Path, named: str) -> None:
    if not found.is_relative_to(root):
        raise SourceFailed(
            FailureCode.FORBIDDEN,
            f"'{named}' leads outside of the source's root.",
            "Name a file or folder below the source's root.",
        )


def _check_count(count: int, folder: Path) -> None:
    if count > MOST_FILES:
        raise SourceFailed(
            FailureCode.TOO_LARGE,
            f"The folder '{folder.name}' holds more than {MOST_FILES:,} files.",
            "Register a folder below it, or write fewer, larger files.",
        )
