"""The tests' own lister of folders: what an environment is, down to the nanosecond."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

Entry = tuple[int, int, int, str, int, str, tuple[tuple[str, bytes], ...]]


def listing(root: Path) -> dict[str, Entry]:
    """Return for every path below ``root``: type, mode, size, sha256, mtime in ns, target or link group, extended attributes."""
    groups: dict[tuple[int, int], str] = {}
    paths = [root, *sorted(root.rglob("*"))]
    return {str(path.relative_to(root)): _entry(path, root, groups) for path in paths}


def _entry(path: Path, root: Path, groups: dict[tuple[int, int], str]) -> Entry:
    held = path.lstat()
    size, content, link = 0, "", ""
    if stat.S_ISREG(held.st_mode):
        size, content = held.st_size, hashlib.sha256(path.read_bytes()).hexdigest()
        if held.st_nlink > 1:
            link = groups.setdefault((held.st_dev, held.st_ino), str(path.relative_to(root)))
    elif stat.S_ISLNK(held.st_mode):
        link = str(path.readlink())
    names = sorted(os.listxattr(path, follow_symlinks=False))
    attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    kind, mode = stat.S_IFMT(held.st_mode), stat.S_IMODE(held.st_mode)
    return (kind, mode, size, content, held.st_mtime_ns, link, attributes)
