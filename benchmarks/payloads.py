"""What a user has installed when a workspace goes to sleep: the same files for all that save them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sleep_path import MIB, make_tree

# Whom the files belong to in a workspace, and the name of their folder there.
OWNER = 1000
NAME = "benchmark"
LARGE = {"files": 30_000, "libraries": 100, "library_bytes": 8 * MIB}
LARGE_IN_SMOKE = {"files": 500, "libraries": 2, "library_bytes": 8 * MIB}


@dataclass(frozen=True)
class Payload:
    """Files of a ``title``: the folder ``tree``, and ``archive``, a tar file of it as the folder ``benchmark`` of uid 1000.

    Whoever unpacks the archive gives the files the time of that moment (``tar -m``): else a second image of the same files would have
    the same layer, which registries and nodes know already.
    """

    title: str
    tree: Path
    archive: Path


def make(name: str, folder: Path, seed: int, *, smoke: bool) -> Payload:
    """Return the files of `small` (1 KiB) or `large` (1 GB in 30,000 files), made in ``folder``."""
    tree = folder / NAME
    tree.mkdir(parents=True)
    if name == "small":
        (tree / "notes.txt").write_bytes(b"1234567\n" * 128)
        title = "1 KiB"
    else:
        size = make_tree(tree, seed, **(LARGE_IN_SMOKE if smoke else LARGE))
        title = f"{size / MIB:.0f} MiB in {sum(file.is_file() for file in tree.rglob('*'))} files"
    archive = folder / "benchmark.tar"
    owner = (f"--owner={OWNER}", f"--group={OWNER}")
    subprocess.run(["tar", "-c", *owner, "-f", str(archive), "-C", str(folder), NAME], check=True)
    return Payload(title, tree, archive)
