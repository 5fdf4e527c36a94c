"""The content of layers written into a folder, by archives that are not trusted.

Every name is taken apart and every folder on the way is opened with ``O_NOFOLLOW``, so that nothing is written outside of
the folder, whatever links an archive made before.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from torpor_hub.errors import UnsafeArchive
from torpor_hub.oci import tarfmt
from torpor_hub.oci.tarfmt import Entry
from torpor_hub.oci.walk import DIRECTORY_FLAGS, shown

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
KEPT_XATTRS = {b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"}

CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
REFUSED_XATTR = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSPC, errno.E2BIG}
SET_ID = stat.S_ISUID | stat.S_ISGID
ZEROS = bytes(1024 * 1024)


def is_kept_xattr(key: bytes) -> bool:
    """Return whether a layer carries the extended attribute ``key``: the user's own, capabilities and access lists."""
    return key.startswith(b"user.") or key in KEPT_XATTRS


class Unpacker:
    """Writes entries into the folder ``root``, which exists and which nobody else writes to.

    Times and modes of folders are set by :meth:`finish`, because what is written into a folder changes them.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, DIRECTORY_FLAGS)
        self._current = os.dup(self._root)
        self._current_parts: tuple[bytes, ...] = ()
        self._folders: dict[tuple[bytes, ...], Entry] = {}
        self._fresh: set[tuple[bytes, ...]] | None = None
        self._layers = 0
        self._left_out: list[str] = []
        self._is_root = os.geteuid() == 0

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._current)
        os.close(self._root)

    def begin_layer(self) -> None:
        """Start a layer: its deletions are for what earlier layers wrote, not for what it holds itself."""
        self._layers += 1
        self._fresh = set() if self._layers > 1 else None

    def add(self, entry: Entry, content: Iterable[bytes]) -> None:
        """Write one entry, in place of what an earlier layer has there.

        Raises:
            UnsafeArchive: its name or type is not acceptable.
        """
        parts = _parts(entry.path)
        if parts and parts[-1].startswith(WHITEOUT):
            self._delete(parts)
            return
        if self._fresh is not None:
            self._fresh.add(parts)
        if entry.kind == tarfmt.DIRECTORY:
            self._make_folder(parts)
            self._folders[parts] = entry
            return
        if not parts:
            raise UnsafeArchive("the archive has an entry that would replace the folder itself")
        try:
            self._make(entry, parts, content)
        except FileExistsError:
            self._remove(parts)
            self._make(entry, parts, content)

    def finish(self) -> tuple[str, ...]:
        """Set what belongs to folders, and return what could not be restored, each with the reason."""
        for parts, entry in sorted(self._folders.items(), reverse=True):
            folder = os.dup(self._open_folder(parts))
            try:
                self._open_folder(parts[:-1])  # while the mode of the folder still lets its owner through
                self._own(folder, entry)
            finally:
                os.close(folder)
        return tuple(self._left_out)

    def _make(self, entry: Entry, parts: tuple[bytes, ...], content: Iterable[bytes]) -> None:
        folder, name = self._open_folder(parts[:-1]), parts[-1]
        if entry.kind == tarfmt.FILE:
            self._make_file(entry, folder, name, content)
        elif entry.kind == tarfmt.HARD_LINK:
            self._make_link(entry, folder, name)
        elif entry.kind == tarfmt.SYMLINK:
            if not entry.target or b"\0" in entry.target:
                raise UnsafeArchive(f"the archive has the link {shown(entry.path)} without a usable target")
            os.symlink(entry.target, name, dir_fd=folder)
            self._own_name(entry, folder, name)
        elif entry.kind == tarfmt.FIFO:
            os.mkfifo(name, 0o600, dir_fd=folder)
            self._own_name(entry, folder, name)
        else:
            raise UnsafeArchive(f"the archive has {tarfmt.DEVICES[entry.kind]}, {shown(entry.path)}: not restored")

    def _make_file(self, entry: Entry, folder: int, name: bytes, content: Iterable[bytes]) -> None:
        descriptor = os.open(name, CREATE_FLAGS, 0o600, dir_fd=folder)
        try:
            _write(descriptor, content, entry.size)
            self._own(descriptor, entry)
        finally:
            os.close(descriptor)

    def _make_link(self, entry: Entry, folder: int, name: bytes) -> None:
        target = _parts(entry.target)
        kept = os.dup(folder)
        try:
            if not target or not _exists(source := self._open_folder(target[:-1]), target[-1]):
                raise UnsafeArchive(f"the archive has a hard link from {shown(entry.path)} to what it does not hold")
            if stat.S_ISDIR(os.stat(target[-1], dir_fd=source, follow_symlinks=False).st_mode):
                raise UnsafeArchive(f"the archive has a hard link from {shown(entry.path)} to a folder")
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=kept, follow_symlinks=False)
        finally:
            os.close(kept)

    def _make_folder(self, parts: tuple[bytes, ...]) -> None:
        if not parts:
            return
        folder = self._open_folder(parts[:-1])
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=folder)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                return
            os.unlink(parts[-1], dir_fd=folder)
            os.mkdir(parts[-1], 0o700, dir_fd=folder)

    def _own(self, descriptor: int, entry: Entry) -> None:
        """Set owner, mode, attributes and time, in the order in which none undoes another."""
        if self._is_root:
            os.fchown(descriptor, entry.uid, entry.gid)
        os.fchmod(descriptor, self._mode(entry))
        for key, value in entry.xattrs:
            try:
                if not is_kept_xattr(key):
                    raise OSError(errno.EPERM, "not an attribute of files that users make")
                os.setxattr(descriptor, key, value)
            except OSError as error:
                if error.errno not in REFUSED_XATTR:
                    raise
                self._left_out.append(f"{shown(entry.path)} (the attribute {shown(key)}: {error.strerror})")
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def _own_name(self, entry: Entry, folder: int, name: bytes) -> None:
        if self._is_root:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        if entry.kind != tarfmt.SYMLINK:
            os.chmod(name, self._mode(entry), dir_fd=folder)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def _mode(self, entry: Entry) -> int:
        """Return the mode, without set-id bits where they would lend another's identity than they did."""
        return entry.mode if self._is_root or entry.uid == os.geteuid() else entry.mode & ~SET_ID

    def _open_folder(self, parts: tuple[bytes, ...]) -> int:
        """Return a descriptor of a folder in the archive, good until the next call: most entries are near the last one."""
        if parts == self._current_parts:
            return self._current
        shared = _shared(parts, self._current_parts)
        steps = (b"..",) * (len(self._current_parts) - shared) + parts[shared:]
        near = len(steps) <= len(parts)
        descriptor = os.dup(self._current if near else self._root)
        try:
            for step in steps if near else parts:
                above, descriptor = descriptor, os.open(step, DIRECTORY_FLAGS, dir_fd=descriptor)
                os.close(above)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            name = shown(b"/".join(parts))
            raise UnsafeArchive(f"the archive writes into {name}, which is a link or no folder of its own") from error
        os.close(self._current)
        self._current, self._current_parts = descriptor, parts
        return descriptor

    def _remove(self, parts: tuple[bytes, ...]) -> None:
        """Remove what an earlier entry made."""
        folder, name = self._open_folder(parts[:-1]), parts[-1]
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        _empty(os.open(name, DIRECTORY_FLAGS, dir_fd=folder))
        os.rmdir(name, dir_fd=folder)
        for known in [known for known in self._folders if known[: len(parts)] == parts]:
            del self._folders[known]

    def _delete(self, parts: tuple[bytes, ...]) -> None:
        """Act on a whiteout: remove what *earlier* layers have there (OCI image spec, "Whiteouts")."""
        if self._fresh is None:
            return
        if parts[-1] == OPAQUE:
            self._delete_stale(parts[:-1])
            return
        gone = (*parts[:-1], parts[-1].removeprefix(WHITEOUT))
        if gone[-1] in (b"", b".", b".."):
            raise UnsafeArchive(f"the archive has the deletion {shown(b'/'.join(parts))}, which names nothing")
        folder = self._open_folder(gone[:-1])
        if gone not in self._fresh and _exists(folder, gone[-1]):
            self._remove(gone)

    def _delete_stale(self, parts: tuple[bytes, ...]) -> None:
        fresh = self._fresh or set()
        with os.scandir(self._open_folder(parts)) as entries:
            present = [os.fsencode(entry.name) for entry in entries]
        for name in present:
            path = (*parts, name)
            if path not in fresh:
                self._remove(path)
            elif path in self._folders:
                self._delete_stale(path)


def remove_tree(root: Path) -> None:
    """Remove a folder and all that it holds, at any depth, also what its owner may not write; nothing there is fine."""
    try:
        descriptor = os.open(root, DIRECTORY_FLAGS)
    except FileNotFoundError:
        return
    except PermissionError:
        root.chmod(0o700)
        descriptor = os.open(root, DIRECTORY_FLAGS)
    _empty(descriptor)
    root.rmdir()


def _empty(directory: int) -> None:
    """Remove what an open folder holds, and close it; one descriptor at a time, so depth has no limit."""
    try:
        levels = [_unlink_files(directory)]
        while True:
            if levels[-1]:
                directory = _step(directory, levels[-1][-1])
                levels.append(_unlink_files(directory))
                continue
            levels.pop()
            if not levels:
                return
            directory = _step(directory, "..")
            os.rmdir(levels[-1].pop(), dir_fd=directory)
    finally:
        os.close(directory)


def _unlink_files(directory: int) -> list[str]:
    """Unlink all that is no folder, and return the names of the folders."""
    os.fchmod(directory, 0o700)
    folders = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return folders


def _step(directory: int, name: str) -> int:
    try:
        reached = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=directory)
        reached = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
    os.close(directory)
    return reached


def _parts(path: bytes) -> tuple[bytes, ...]:
    if path.startswith(b"/") or b"\0" in path or not path:
        raise UnsafeArchive(f"the archive has an entry with the name {shown(path)}")
    parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise UnsafeArchive(f"the archive has an entry that leaves its folder: {shown(path)}")
    if any(len(part.removeprefix(WHITEOUT)) > 255 for part in parts):
        raise UnsafeArchive(f"the archive has an entry with a name of over 255 bytes: {shown(path)}")
    return parts


def _shared(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    """Return how many parts two paths have in common."""
    count = 0
    for part, counterpart in zip(one, other, strict=False):
        if part != counterpart:
            break
        count += 1
    return count


def _exists(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _write(descriptor: int, content: Iterable[bytes], size: int) -> None:
    """Write ``content``, leaving holes where a whole chunk is zeros."""
    hole = False
    for chunk in content:
        hole = len(chunk) == len(ZEROS) and chunk == ZEROS
        if hole:
            os.lseek(descriptor, len(chunk), os.SEEK_CUR)
            continue
        written = os.write(descriptor, chunk)
        while written < len(chunk):
            written += os.write(descriptor, chunk[written:])
    if hole:
        os.ftruncate(descriptor, size)
