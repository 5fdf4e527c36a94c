"""The root file system that images begin with, where none is named: Debian's smallest, made by debootstrap."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
TRIES = 3
# What containers never read; licences stay.
LEFT_OUT = ("./var/cache/apt", "./var/lib/apt/lists/*", "./var/log/*", "./usr/share/man", "./usr/share/info", "./dev/*")
LAST_LINES = 20
# The runtime of containers mounts a file over it, and makes one where there is none: at every start `/etc` would be another.
HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


class RootFailed(Exception):
    """The root file system could not be made; the text says why and what to do."""


def debian(cache: Path, mirror: str) -> Path:
    """Return the archive of Debian's root file system, made now where ``cache`` has none.

    Raises:
        RootFailed: when this machine cannot make one.
    """
    archive = cache / f"debian-{SUITE}-with-hosts.tar"
    if archive.exists():
        return archive
    if os.geteuid():
        raise RootFailed(
            "Only root can make a root file system. Name one: --base ROOTFS.tar, or an image: --base NAME."
        )
    install_missing(("debootstrap",))
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        root = Path(folder) / "root"
        _debootstrap(root, mirror)
        settle(root, mirror)
        draft = archive.with_suffix(".part")
        left_out = [f"--exclude={path}" for path in LEFT_OUT]
        _call(["tar", "--numeric-owner", "--sort=name", *left_out, "-C", str(root), "-cf", str(draft), "."])
        draft.replace(archive)
    return archive


def install_missing(programs: Sequence[str]) -> None:
    """Install from Debian those programs that are not on this machine.

    Raises:
        RootFailed: when one is missing and cannot be installed.
    """
    missing = [program for program in programs if not shutil.which(program)]
    if not missing:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise RootFailed(f"Not on this machine: {', '.join(missing)}. Install it and run this again.")
    _call(["apt-get", "-qq", "update"])
    _call(
        [
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-qq",
            "install",
            "-y",
            "--no-install-recommends",
            *missing,
        ]
    )


def package_sources(mirror: str) -> str:
    """Return what apt reads in images: the release, its updates, and the fixes that mirrors keep beside it."""
    updated = f"deb {mirror} {SUITE} main\ndeb {mirror} {SUITE}-updates main\n"
    return f"{updated}deb {mirror}-security {SUITE}-security main\n"


def settle(root: Path, mirror: str) -> None:
    """Write what debootstrap leaves to others: where packages come from, and the names of the machine itself."""
    (root / "etc/apt/sources.list").write_text(package_sources(mirror))
    (root / "etc/hosts").write_text(HOSTS)


def _debootstrap(root: Path, mirror: str) -> None:
    # One that failed in the middle goes on where it stopped: a mirror may miss a beat.
    for left in reversed(range(TRIES)):
        try:
            _call(["debootstrap", "--variant=minbase", SUITE, str(root), mirror])
        except RootFailed:
            if not left:
                raise
        else:
            return


def _call(command: list[str]) -> None:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = "\n".join((ended.stdout + ended.stderr).splitlines()[-LAST_LINES:])
        raise RootFailed(f"{said}\n\n`{command[0]}` ended with {ended.returncode}.")
