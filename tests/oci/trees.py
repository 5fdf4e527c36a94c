"""The oracle of the tests of layers: what a folder holds, read with nothing of the product."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from torpor_hub.oci.images import LayerRecord

IS_ROOT = os.geteuid() == 0
NOBODY = 65534
KEPT = ("user.", "security.capability", "system.posix_acl")


def listing(root: Path) -> dict[bytes, dict[str, Any]]:
    """Type, mode, owner, size, content, time, attributes, target and link group of everything in ``root``."""
    top = os.fsencode(root)
    found: dict[bytes, dict[str, Any]] = {b".": _look(top)}
    groups: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes
            relative = os.path.relpath(path, top)
            found[relative] = _look(path)
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                groups[status.st_dev, status.st_ino].append(relative)
    for group in groups.values():
        for path in group:
            found[path]["links"] = sorted(group)
    return found


def _look(path: bytes) -> dict[str, Any]:
    status = os.lstat(path)
    seen: dict[str, Any] = {
        "type": stat.S_IFMT(status.st_mode),
        "mode": oct(stat.S_IMODE(status.st_mode)),
        "owner": (status.st_uid, status.st_gid),
        "mtime_ns": status.st_mtime_ns,
    }
    if stat.S_ISREG(status.st_mode):
        seen["size"] = status.st_size
        with open(path, "rb") as file:  # noqa: PTH123 - bytes
            seen["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    if stat.S_ISLNK(status.st_mode):
        seen["target"] = os.readlink(path)  # noqa: PTH115 - bytes
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        seen["xattrs"] = {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith(KEPT)}
    return seen


def age(root: Path, mtime_ns: int = 1_600_000_000_123_456_789) -> None:
    """Give everything an old time, so that any change moves it whatever the step of the clock."""
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            os.utime(Path(folder) / name, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
    os.utime(root, ns=(mtime_ns, mtime_ns))


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Without the rights of root, if there are any."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def sha256(content: bytes) -> str:
    """The digest of ``content`` as images write it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def packed(tar: bytes) -> tuple[LayerRecord, bytes]:
    """A layer made of any tar, with true digests."""
    content = zstandard.compress(tar)
    return LayerRecord(sha256(content), sha256(tar), len(content), len(tar)), content
