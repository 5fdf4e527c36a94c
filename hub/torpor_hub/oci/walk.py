"""A walk over a folder whose owner may be hostile: by directory descriptor, without ever following a link.

Every step opens one name below an open directory with ``O_NOFOLLOW``, so that no swap of a folder by a link leads outside.
The way back up is ``..`` and must arrive at the very directory that the walk came from, unchanged. One descriptor is open
at a time, so depth has no limit.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from torpor_hub.errors import CaptureFailed, FileChanged

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

VANISHED = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ESTALE, errno.ENXIO, errno.EISDIR}


class Found(NamedTuple):
    """One thing in the folder.

    ``directory`` is an open descriptor, valid until the next step: of the folder that holds the thing, or, where the thing
    is a folder, of itself. ``path`` is relative to the root and empty for the root.
    """

    path: bytes
    name: str
    status: os.stat_result
    directory: int


class _Level(NamedTuple):
    path: bytes
    status: os.stat_result
    names: Iterator[str]


def walk(
    root: Path,
    excludes: Sequence[str] = (),
    *,
    wanted: Callable[[bytes], bool] | None = None,
    live: bool = False,
) -> Iterator[Found]:
    """Yield the root and everything below it, folders before their content, names in byte order.

    ``excludes`` are shell patterns: one without a slash matches a name at any depth, one with a slash the path from the
    root (a ``*`` there crosses slashes). What is excluded, or has a path that is not ``wanted``, is left out with all that it
    holds. A ``live`` folder may be written to meanwhile: what vanishes is left out.

    Raises:
        FileChanged: something vanished or changed its place during the walk, and the folder is not ``live``.
        CaptureFailed: something cannot be read.
    """
    if live:
        yield from _walk_live(root, _matcher(excludes))
        return
    excluded = _matcher(excludes)
    current = _open_root(root)
    try:
        status = os.fstat(current)
        yield Found(b"", "", status, current)
        levels = [_Level(b"", status, _names(current, b""))]
        while levels:
            level = levels[-1]
            name = next(level.names, None)
            if name is None:
                levels.pop()
                current = _climb(current, level, levels)
                continue
            encoded = os.fsencode(name)
            path = level.path + b"/" + encoded if level.path else encoded
            if excluded(encoded, path) or (wanted and not wanted(path)):
                continue
            try:  # not by _Reading: this is passed for every file
                status = os.stat(name, dir_fd=current, follow_symlinks=False)
            except OSError as error:
                raise _failure(path, error) from error
            if stat.S_ISDIR(status.st_mode):
                current = _descend(current, name, path)
                levels.append(_Level(path, status, _names(current, path)))
            yield Found(path, name, status, current)
    finally:
        os.close(current)


def _walk_live(root: Path, excluded: Callable[[bytes, bytes], bool]) -> Iterator[Found]:
    """Yield what is there at the moment of each look; folders on the way are reached anew when they were moved away."""
    top = _open_root(root)
    current = os.dup(top)
    try:
        status = os.fstat(current)
        yield Found(b"", "", status, current)
        levels = [_Level(b"", status, _names(current, b""))]
        while levels:
            level = levels[-1]
            name = next(level.names, None)
            if name is None:
                levels.pop()
                current = _climb_live(top, current, levels)
                continue
            encoded = os.fsencode(name)
            path = level.path + b"/" + encoded if level.path else encoded
            if excluded(encoded, path):
                continue
            try:
                with _Reading(path):
                    status = os.stat(name, dir_fd=current, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    current = _descend(current, name, path)
                    status = os.fstat(current)
                    levels.append(_Level(path, status, _names_live(current, path)))
            except FileChanged:
                continue
            yield Found(path, name, status, current)
    finally:
        os.close(current)
        os.close(top)


def _climb_live(top: int, current: int, above: list[_Level]) -> int:
    """Return the nearest folder above that is still in its place; the levels that are not are dropped."""
    reached = None
    while len(above) > 1 and reached is None:
        reached = _reach(top, above[-1])
        if reached is None:
            above.pop()
    os.close(current)
    return os.dup(top) if reached is None else reached


def _reach(top: int, level: _Level) -> int | None:
    descriptor = os.dup(top)
    try:
        for part in level.path.split(b"/"):
            below = os.open(part, DIRECTORY_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except OSError as error:
        os.close(descriptor)
        if error.errno in VANISHED:
            return None
        raise CaptureFailed(f"{shown(level.path)} cannot be read ({error.strerror})") from error
    found = os.fstat(descriptor)
    if (found.st_dev, found.st_ino) == (level.status.st_dev, level.status.st_ino):
        return descriptor
    os.close(descriptor)
    return None


def open_file(found: Found) -> int:
    """Return a descriptor of a regular file that is still the one that the walk saw.

    Raises:
        FileChanged: it was replaced or removed.
        CaptureFailed: it cannot be read.
    """
    with _Reading(found.path):
        descriptor = os.open(found.name, FILE_FLAGS, dir_fd=found.directory)
    if not same(os.fstat(descriptor), found.status):
        os.close(descriptor)
        raise changed(found.path)
    return descriptor


def read_link(found: Found) -> bytes:
    """Return the target of a symbolic link."""
    with _Reading(found.path):
        return os.fsencode(os.readlink(found.name, dir_fd=found.directory))


def same(one: os.stat_result, other: os.stat_result) -> bool:
    """Return whether two looks saw the same thing with the same content: a change moves ``ctime``."""
    return (one.st_dev, one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_dev,
        other.st_ino,
        other.st_mode,
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )


def changed(path: bytes) -> FileChanged:
    """Return the error for a thing that changed while it was read."""
    return FileChanged(f"{shown(path)} changed while it was read; try again, or freeze the workspace first")


def shown(path: bytes) -> str:
    """Return ``path`` as text fit to show and to store, whatever its bytes."""
    return path.decode("utf-8", "backslashreplace") or "the folder itself"


def _open_root(root: Path) -> int:
    try:
        return os.open(root, DIRECTORY_FLAGS)
    except OSError as error:
        raise CaptureFailed(f"the folder {root} cannot be read: {error.strerror}") from error


def _descend(current: int, name: str, path: bytes) -> int:
    """Return the directory below; whether it is the one that was seen is checked on the way back."""
    with _Reading(path):
        below = os.open(name, DIRECTORY_FLAGS, dir_fd=current)
    os.close(current)
    return below


def _climb(current: int, level: _Level, above: list[_Level]) -> int:
    """Return the directory above, after a check that the one left behind is as it was when it was entered."""
    if not same(os.fstat(current), level.status):
        raise changed(level.path)
    if not above:
        return current
    with _Reading(level.path):
        parent = os.open("..", DIRECTORY_FLAGS, dir_fd=current)
    if not same(os.fstat(parent), above[-1].status):
        os.close(parent)
        raise changed(above[-1].path)
    os.close(current)
    return parent


def _names(directory: int, path: bytes) -> Iterator[str]:
    with _Reading(path):
        return iter(sorted(os.listdir(directory), key=os.fsencode))


def _names_live(directory: int, path: bytes) -> Iterator[str]:
    try:
        return _names(directory, path)
    except FileChanged:  # it has been removed since it was opened
        return iter(())


def _matcher(excludes: Sequence[str]) -> Callable[[bytes, bytes], bool]:
    names = _any_of([pattern for pattern in excludes if "/" not in pattern])
    paths = _any_of([pattern for pattern in excludes if "/" in pattern])
    if names is None and paths is None:
        return lambda _name, _path: False
    return lambda name, path: bool((names and names.match(name)) or (paths and paths.match(path)))


def _any_of(patterns: Sequence[str]) -> re.Pattern[bytes] | None:
    return re.compile(os.fsencode("|".join(map(fnmatch.translate, patterns)))) if patterns else None


class _Reading:
    """Names the path in whatever the system refuses; a class, because this is entered several times for each file."""

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise _failure(self._path, error) from error


def _failure(path: bytes, error: OSError) -> CaptureFailed:
    """Return the error for what the system refuses at ``path``."""
    if error.errno in VANISHED:
        return changed(path)
    return CaptureFailed(f"{shown(path)} cannot be read ({error.strerror}); make it readable, remove it or exclude it")
