"""Changes an environment in every way that its user can: run inside a workspace by its interpreter, never imported there."""

import contextlib
import os
import shutil
import socket
import sys
from pathlib import Path

ENV = Path("/opt/workspace/env")


def main() -> None:
    """Make the changes in the environment; a second call finds those of the first, and changes them."""
    new = ENV / "changes"
    if new.exists():
        _again(new)
    else:
        _first(new)


def _first(new: Path) -> None:
    new.mkdir()
    (new / "one").write_bytes(bytes(range(256)) * 100)
    os.link(new / "one", new / "two")
    (new / "other side").mkdir()
    os.link(new / "one", new / "other side" / "three")
    (new / "folder").mkdir()
    (new / "folder" / "file").write_text("a folder that moves")
    (new / "folder").rename(new / "moved")
    os.setxattr(new / "one", "user.any", bytes(range(256)))
    os.setxattr(new / "moved", "user.overlay.opaque", b"y")
    with (new / "sparse").open("wb") as file:
        file.truncate(300_000_000)
    (new / "set-id").write_text("#!/bin/sh\n")
    (new / "set-id").chmod(0o6755)
    (new / "sticky").mkdir()
    (new / "sticky").chmod(0o1777)
    for name, time_ns in (("zero", 0), ("far", 4_102_444_800_000_000_001), ("ns", 1_700_000_000_123_456_789)):
        (new / name).write_text(name)
        os.utime(new / name, ns=(time_ns, time_ns))
    folder = os.fsencode(new)
    for name in (b"\xff\xfe not UTF-8", b"new\nline", b"n" * 255, "Ümlaut".encode()):
        os.close(os.open(folder + b"/" + name, os.O_CREAT | os.O_WRONLY, 0o644))
    deep = new / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(14):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    for name, target in (("absolute", "/etc/passwd"), ("looping", "looping"), ("dangling", "../" * 50 + "x" * 2000)):
        (new / name).symlink_to(target)
    os.mkfifo(new / "pipe")
    (new / ".wh.user").write_text("cannot be kept")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(new / "socket"))
    _of_the_image()


def _of_the_image() -> None:
    """Change what the image brought along, as far as it is the user's."""
    config = ENV / "pyvenv.cfg"
    with contextlib.suppress(FileNotFoundError):
        config.write_text(config.read_text() + "\n")
    binaries = sorted((ENV / "bin").iterdir())
    binaries[0].unlink()
    link = next((path for path in binaries[1:] if path.is_symlink()), None)
    if link is not None:
        link.unlink()
        link.mkdir()
        (link / "inside").write_text("a link became a folder")
    library = next((ENV / "lib").glob("python*"))
    shutil.rmtree(library)
    library.mkdir()
    (library / "anew").write_text("a folder made anew hides what was below it")


def _again(new: Path) -> None:
    moved = new / "moved"
    (new / "two").unlink(missing_ok=True)
    (new / "one").write_text((new / "one").read_text("latin-1")[:100] + "changed", "latin-1")
    if moved.is_dir():
        shutil.rmtree(moved)
        moved.write_text("a folder became a file")
    else:
        moved.unlink()
        moved.mkdir()
        (moved / "file").write_text("a file became a folder")
    (new / "late").write_text("late")


if __name__ == "__main__":
    sys.exit(main())
