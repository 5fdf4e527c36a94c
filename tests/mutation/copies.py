"""A copy of the project in which one line is changed, so that a test can be seen to notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("hub", "sdk", "extensions/torpor_lab", "helm", "tests")
IMPORTED = ("hub", "sdk", "extensions")
# What is not the project's own, for tests that run a real hub with its proxy.
LINKED = Path("hub/node/node_modules")
WITHIN_S = 240
PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class Mutation:
    """A claim, the one text in a file that keeps it, what to put there instead, and the test that must fail."""

    claim: str
    file: str
    kept_by: str
    instead: str
    test: str


class Tree:
    """A copy of the project, whose packages win over the installed ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        leave = shutil.ignore_patterns("__pycache__", "node_modules", "labextension")
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=leave)
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / LINKED).symlink_to(ROOT / LINKED)

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Change the one place while the block runs."""
        file = self.folder / mutation.file
        whole = file.read_text()
        assert whole.count(mutation.kept_by) == 1, f"{mutation.file} has changed; the mutation has to follow"
        file.write_text(whole.replace(mutation.kept_by, mutation.instead))
        try:
            yield
        finally:
            file.write_text(whole)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a module of this interpreter in the copy."""
        path = os.pathsep.join(str(self.folder / name) for name in IMPORTED)
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            # No byte code: two versions of a file within one second and of one size would be taken for the same.
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )

    def test(self, *tests: str) -> subprocess.CompletedProcess[str]:
        """Run tests in the copy, those with a database on SQLite alone."""
        return self.run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not postgresql", *tests)

    def failed(self, mutation: Mutation) -> list[str]:
        """Break the claim, run its test, and return what has failed in it by an assertion or an error of its own."""
        with self.mutated(mutation):
            ended = self.test(mutation.test)
        assert ended.returncode in (PASSED, FAILED), ended.stdout[-3000:]
        lines = (line.split() for line in ended.stdout.splitlines())
        return [words[1].partition("[")[0] for words in lines if len(words) > 1 and words[0] == "FAILED"]

    def not_passed(self, *mutations: Mutation) -> str:
        """Run the tests of unbroken claims; return what they say where one does not pass, or is skipped."""
        ended = self.test(*dict.fromkeys(mutation.test for mutation in mutations))
        return "" if ended.returncode == PASSED and "skipped" not in ended.stdout else ended.stdout[-3000:]
