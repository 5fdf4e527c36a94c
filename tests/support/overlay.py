"""A real overlay mount, as a container runtime makes one."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torpor_hub.oci.overlay_marks import Upper


@dataclass(frozen=True)
class Overlay:
    """``merged`` is what a container sees; ``base`` is the layer below, ``upper`` where changes go."""

    base: Path
    upper: Path
    merged: Path
    options: str

    @property
    def change(self) -> Upper:
        return Upper(self.upper, (self.base,), user_marks="userxattr" in self.options)


@contextlib.contextmanager
def mounted(folder: Path, base: Path, *, options: str = "") -> Iterator[Overlay]:
    """Mount an empty upper directory over ``base`` in ``folder``."""
    upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
    for directory in (upper, work, merged):
        directory.mkdir(parents=True)
    places = f"lowerdir={base},upperdir={upper},workdir={work}" + (f",{options}" if options else "")
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", places, str(merged)], check=True, capture_output=True)
    try:
        yield Overlay(base, upper, merged, options)
    finally:
        subprocess.run(["umount", "--lazy", str(merged)], check=True)


@functools.cache
def can_mount() -> bool:
    """Whether overlay file systems can be mounted here, with the marks of the kernel to be seen."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        base.mkdir()
        try:
            with mounted(Path(folder), base):
                return True
        except subprocess.CalledProcessError:
            return False
