"""What the kernel's overlay file system writes into its upper directory beside what users write.

A deletion is a character device 0:0, and a folder that hides what is below it has an attribute. A mark of another meaning is
refused, because ignoring it would lose changes. Source: Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from torpor_hub.errors import CaptureFailed
from torpor_hub.oci.walk import Found, shown

TRUSTED, USER = b"trusted.overlay.", b"user.overlay."
OPAQUE_MARK, YES = b"opaque", b"y"
BOOKKEEPING = {b"origin", b"impure", b"nlink", b"uuid"}
"""Marks that the kernel needs for its own ends and that say nothing about the content."""


@dataclass(frozen=True, slots=True)
class Upper:
    """Where an overlay mount keeps changes. ``lowers`` are the unpacked layers below, the topmost first.

    With ``user_marks`` the kernel keeps its marks in ``user.overlay.*``; without, such attributes are the user's own.
    """

    path: Path
    lowers: tuple[Path, ...] = ()
    user_marks: bool = False

    @property
    def prefix(self) -> bytes:
        """What the names of the kernel's marks begin with."""
        return USER if self.user_marks else TRUSTED


def check_mark(found: Found, mark: bytes, value: bytes) -> None:
    """Return when an attribute of the kernel's own says nothing that a layer would lose.

    Raises:
        CaptureFailed: its meaning is unknown.
    """
    is_folder = stat.S_ISDIR(found.status.st_mode)
    if mark in BOOKKEEPING or (mark == OPAQUE_MARK and value == YES and is_folder):
        return
    raise CaptureFailed(
        f"{shown(found.path)} carries the mark {shown(mark)} of the container's file system, whose meaning is unknown here;"
        " the node's overlay file system must be used without metacopy, redirect_dir and new kinds of deletions"
    )


def hides(upper: Upper, path: bytes, directory: int) -> bool:
    """Return whether the folder at ``path``, open as ``directory``, hides what the layers below have there.

    Raises:
        CaptureFailed: it does so in a way that is unknown here.
    """
    try:
        value = os.getxattr(directory, upper.prefix + OPAQUE_MARK)
    except OSError:
        return False
    if value != YES:
        raise CaptureFailed(
            f"{shown(path)} hides what is below it in a way that is unknown here ({value!r}); use the node's overlay file"
            " system without new kinds of deletions"
        )
    return True


def is_deletion(status: os.stat_result) -> bool:
    """Return whether a thing in an upper directory says that what is below it was deleted."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
