"""Files that are written whole or not at all, and folders that are removed whatever lies in them."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

ASIDE = ".removed-"


def write_atomically(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Put ``content`` in place of ``file`` by one rename; a reader sees the old content or the new one."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def write_if_changed(file: Path, content: bytes, mode: int = 0o644) -> bool:
    """Return whether ``file`` had to be written; one that holds ``content`` already keeps its times.

    A file whose right to write was taken away counts as unchanged.
    """
    readable = file.is_file() and not file.is_symlink()
    if readable and file.read_bytes() == content and (file.stat().st_mode ^ mode) & 0o555 == 0:
        return False
    write_atomically(file, content)
    file.chmod(mode)
    return True


def link_if_changed(link: Path, target: str) -> bool:
    """Return whether the symbolic link had to be made; whatever else bears its name is replaced."""
    if link.is_symlink() and os.readlink(link) == target:  # noqa: PTH115 - the bare text, not a path made from it
        return False
    draft = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    draft.symlink_to(target)
    if link.is_dir() and not link.is_symlink():
        remove_folder(link)
    draft.replace(link)
    return True


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it; one that is not there is success.

    It is renamed first, so that a crash leaves no half of it under its own name; ``remove_leftovers`` ends what a crash left.
    """
    aside = folder.with_name(f"{ASIDE}{folder.name}-{secrets.token_hex(4)}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    _remove(aside)


def remove_leftovers(parent: Path) -> None:
    """Remove what an interrupted ``remove_folder`` left in ``parent``."""
    for leftover in parent.glob(f"{ASIDE}*"):
        _remove(leftover)


def _remove(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(folder)
    except PermissionError:
        # People and jobs' environments have folders that even their owner may not write.
        folder.chmod(0o700)
        for parent, folders, _ in os.walk(folder):
            for name in folders:
                if not Path(parent, name).is_symlink():
                    Path(parent, name).chmod(0o700)
        shutil.rmtree(folder)
