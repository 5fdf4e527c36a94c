"""What changed between two looks at an upper directory, by names and times alone."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torpor_hub.oci.overlay_marks import Upper, hides
from torpor_hub.oci.walk import walk

CLOCK_STEP_NS = 20_000_000
"""Two writes within one tick of the kernel's clock (10 ms at most) may leave the same times; twice that is safe."""

UNKNOWN = b""
"""What differs from every signature."""

_SIGNATURE = struct.Struct("<QQQQIB")
_LENGTH = struct.Struct("<I")
_WRAP = 2**64 - 1


@dataclass(slots=True)
class Scan:
    """What an upper directory held at one look: for each path, in the order of the walk, what any change moves."""

    entries: dict[bytes, bytes] = field(default_factory=dict)
    content_bytes: int = 0
    newest_ns: int = 0
    started_ns: int = field(default_factory=time.time_ns)

    @property
    def settled(self) -> bool:
        """Whether any later change shows: nothing changed so shortly before the look that its time could be the same."""
        return self.newest_ns < self.started_ns - CLOCK_STEP_NS

    @property
    def digest(self) -> bytes:
        """What two looks have in common exactly where nothing changed between them."""
        hashed = hashlib.blake2b()
        for path, signature in self.entries.items():
            hashed.update(_LENGTH.pack(len(path)) + path + signature)
        return hashed.digest()


@dataclass(frozen=True, slots=True)
class Change:
    """What has to be written over an earlier copy. ``wanted`` None is everything.

    ``gone`` are the topmost paths of the copy that are there no more, ``hiding`` the folders that hide what is below them and
    in the copy did not.
    """

    wanted: frozenset[bytes] | None
    gone: tuple[bytes, ...] = ()
    hiding: frozenset[bytes] | None = None
    content_bytes: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether the copy is the same as what is there."""
        return self.wanted is not None and not self.wanted


def scan(
    upper: Upper, excludes: Sequence[str] = (), check: Callable[[], object] | None = None, *, live: bool = False
) -> Scan:
    """Return a look at names and times alone; ``check`` is called for each path and may raise to stop."""
    seen, linked = Scan(), set()
    for path, _name, status, directory in walk(upper.path, excludes, live=live):
        if check:
            check()
        if not path:
            continue
        hiding = stat.S_ISDIR(status.st_mode) and hides(upper, path, directory)
        seen.entries[path] = _signature(status, hiding)
        seen.newest_ns = max(seen.newest_ns, status.st_ctime_ns)
        if stat.S_ISREG(status.st_mode):
            if status.st_nlink > 1:
                identity = (status.st_dev, status.st_ino)
                if identity in linked:
                    continue
                linked.add(identity)
            seen.content_bytes += status.st_size
    return seen


def compare(copied: Mapping[bytes, bytes], now: Scan) -> Change:
    """Return what has to be written over a copy that holds ``copied``, so that it becomes what there is ``now``."""
    if not copied:
        return Change(None if now.entries else frozenset(), content_bytes=now.content_bytes)
    wanted: set[bytes] = set()
    hiding: set[bytes] = set()
    below_hiding = None
    for path, signature in now.entries.items():
        if below_hiding is not None and not path.startswith(below_hiding):
            below_hiding = None
        known = copied.get(path, UNKNOWN)
        if below_hiding is not None or known != signature:
            wanted.add(path)
        if _is_hiding(signature) and (below_hiding is not None or not _is_hiding(known)):
            hiding.add(path)
            below_hiding = below_hiding or path + b"/"
            wanted.add(path)
    gone = tuple(path for path in copied if path not in now.entries and _is_folder(now, _parent(path)))
    size = sum(_size_of(now.entries[path]) for path in wanted)
    for path in [*wanted, *gone]:
        parent = _parent(path)
        while parent and parent not in wanted:
            wanted.add(parent)
            parent = _parent(parent)
    return Change(frozenset(wanted), gone, frozenset(hiding), size)


def is_untouched(upper: Upper, now: Scan, excludes: Sequence[str] = ()) -> bool:
    """Return whether an upper directory holds nothing but folders as they are below it.

    The kernel makes such folders on the way to what is excluded, the mount points of volumes for example; the time of a folder
    that holds anything excluded says nothing.
    """
    for path, _name, status, directory in walk(upper.path, excludes):
        if not path:
            continue
        if not stat.S_ISDIR(status.st_mode) or _is_hiding(now.entries.get(path, UNKNOWN)):
            return False
        below = _below(upper, path)
        if below is None or _owned(below) != _owned(status):
            return False
        if below.st_mtime_ns != status.st_mtime_ns and not _holds_excluded(directory, path, now):
            return False
    return True


def _signature(status: os.stat_result, hiding: bool) -> bytes:
    return _SIGNATURE.pack(
        status.st_ino,
        status.st_size,
        status.st_mtime_ns & _WRAP,
        status.st_ctime_ns & _WRAP,
        status.st_mode,
        hiding,
    )


def _is_hiding(signature: bytes) -> bool:
    return signature[-1:] == b"\1"


def _mode_of(signature: bytes) -> int:
    return int(_SIGNATURE.unpack(signature)[4])


def _size_of(signature: bytes) -> int:
    values = _SIGNATURE.unpack(signature)
    return int(values[1]) if stat.S_ISREG(values[4]) else 0


def _is_folder(now: Scan, path: bytes) -> bool:
    return not path or (path in now.entries and stat.S_ISDIR(_mode_of(now.entries[path])))


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _below(upper: Upper, path: bytes) -> os.stat_result | None:
    """Return what the layers below have at ``path``, as it shows through where nothing is over it."""
    for lower in upper.lowers:
        try:
            return os.lstat(os.path.join(os.fsencode(lower), path))  # noqa: PTH118 - bytes
        except (FileNotFoundError, NotADirectoryError):
            continue
    return None


def _owned(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def _holds_excluded(directory: int, path: bytes, now: Scan) -> bool:
    return any(path + b"/" + os.fsencode(name) not in now.entries for name in os.listdir(directory))
