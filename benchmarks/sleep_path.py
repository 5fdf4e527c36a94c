"""The sleep path against ``tar | zstd -1``: the same generated environment to one compressed file on the same disk.

Ours computes two digests on the way, writes an image, and reads all of it back; the peer does none of that, so it is the bound that a
sleep can come near to and not a rival. Both end when the bytes are on the disk.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Outcome
from torpor_hub.capture.base import CaptureTask
from torpor_hub.capture.directory import DirectoryCapture
from torpor_hub.oci.layout import Layout

MIB = 1024**2
FULL = {"files": 12_000, "libraries": 24, "library_bytes": 8 * MIB}
SMOKE = {"files": 60, "libraries": 1, "library_bytes": MIB}
PAIRS = (("image, read back", "tar | zstd"),)
REPOSITORY = "benchmarks/sleep"
WORDS = ("import", "self", "value", "index", "for", "in", "range", "None", "\n    ", "\n", "=")
PEER = 'tar --create --format=pax --xattrs --sort=name --directory "$1" . | zstd -1 -T2 -q -o "$2" && sync "$2"'


def make_tree(root: Path, seed: int, *, files: int, libraries: int, library_bytes: int) -> int:
    """Return the bytes of a new tree like an environment's: many small text files, and some large ones that hardly compress."""
    draw = random.Random(seed)
    for number in range(files):
        folder = root / f"lib/package{number % 97}/part{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"module{number}.py").write_text(" ".join(draw.choices(WORDS, k=draw.randrange(50, 3000))))
    for number in range(libraries):
        half = library_bytes // 2
        (root / f"lib/native{number}.so").write_bytes(
            draw.randbytes(half) + bytes(draw.choices(range(16), k=4096)) * (half // 4096)
        )
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file())


def outcomes(folder: Path, seed: int, rounds: int, *, smoke: bool) -> Iterator[Outcome]:
    """Yield the one outcome, and fill it."""
    size = make_tree(folder / "tree", seed, **(SMOKE if smoke else FULL))
    outcome = Outcome(f"Writing an environment of {size / MIB:.0f} MiB", PAIRS)
    yield outcome
    outcome.seconds |= SleepPath(folder / "tree", folder / "scratch").rounds(rounds)


class SleepPath:
    """Both ways over one tree; each measure leaves nothing behind."""

    def __init__(self, tree: Path, scratch: Path) -> None:
        self._tree = tree
        self._scratch = scratch

    def rounds(self, count: int) -> dict[str, list[float]]:
        """Return the seconds of each way by round; whoever goes first changes from round to round."""
        ways = {"tar | zstd": self.peer, "image, read back": self.sleep}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(count):
            names = list(ways)
            for name in names[number % 2 :] + names[: number % 2]:
                self._scratch.mkdir(parents=True)
                os.sync()
                started = time.perf_counter()
                ways[name]()
                seconds[name].append(time.perf_counter() - started)
                shutil.rmtree(self._scratch)
        return seconds

    def peer(self) -> None:
        """Write the tree as people would do it by hand."""
        target = self._scratch / "tree.tar.zst"
        command = ["bash", "-euo", "pipefail", "-c", PEER, "bash", str(self._tree), str(target)]
        subprocess.run(command, check=True)

    def sleep(self) -> None:
        """Write the tree as a sleep does, and read it back."""
        asyncio.run(self._sleep())

    async def _sleep(self) -> None:
        capture = DirectoryCapture(Layout(self._scratch / "images"))
        result = await capture.capture(CaptureTask("op", self._tree, REPOSITORY, "op"))
        await capture.verify(REPOSITORY, result.digest)
