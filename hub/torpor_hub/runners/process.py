"""Attempts of jobs as local processes, each under a wrapper in a session of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from torpor_hub import failpoints
from torpor_hub.errors import PlaceError, RunnerError
from torpor_hub.oci.layout import Layout
from torpor_hub.processes import files, identity, layering, trees
from torpor_hub.processes.identity import Identity
from torpor_hub.processes.layering import Platform
from torpor_hub.runners.base import LOST, MARK, JobFact, JobRun, Salvage
from torpor_hub.runners.environments import Environments

HANDLE_FILE = "handle"
ATTEMPT_FILE = "attempt.json"
EXIT_FILE = "exit.json"
NOBODY = Identity(0, 0, boot="")
STARTERS = 4
SALVAGED_BYTES = 32 * 1024**2
# What a job gets of the server's own environment: nothing that could hold a secret.
INHERITED = (
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "PATH", "LD_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_INDEX_URL", "PIP_CONFIG_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)


class ProcessRunner:
    """Runs attempts as processes of the platform's own user, below ``<state>/jobs/<job>-a<n>``.

    A wrapper outlives the server. It is found again by the handle that was written here, by what it wrote itself
    (``attempt.json``), or by its mark in the process table, so a crash at any step neither loses an attempt nor starts it twice.
    """

    def __init__(self, state_dir: Path, layout: Layout, platform: Platform, *, java_home: str = "") -> None:
        self._jobs = state_dir / "jobs"
        self._homes = state_dir / "homes"
        self._platform = platform
        self._java_home = java_home
        self._environments = Environments(state_dir / "environments", layout, platform)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._starting: set[str] = set()
        # A start whose caller was cancelled goes on in its thread: who ends it waits for that.
        self._locks: dict[str, Lock] = {}
        # Unpacking takes long: in threads of its own, it cannot keep the rest of the server waiting.
        self._starters = ThreadPoolExecutor(STARTERS, "job-start")

    async def start(self, run: JobRun) -> str:
        """Start the attempt and return its handle; one of the same name that was started already is returned instead.

        Raises:
            RunnerError: when it cannot be started.
        """
        self._starting.add(run.name)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._starters, self._start, run)
        except OSError as error:
            raise RunnerError(f"{run.name} cannot be started: {error}.") from error
        finally:
            self._starting.discard(run.name)

    async def facts(self) -> Mapping[str, JobFact]:
        """Return every attempt that was started, by name, ended ones too until they are forgotten.

        Raises:
            RunnerError: when the folder of jobs cannot be listed.
        """
        return await asyncio.to_thread(self._facts)

    async def end(self, name: str, handle: str, *, grace_s: float) -> None:
        """End every process of exactly this attempt: the wrapper politely first, then everything that is left.

        Raises:
            RunnerError: when something does not end.
        """
        await asyncio.to_thread(self._end, name, handle, grace_s)

    async def salvage(self, name: str, *, log_from: int) -> Salvage:
        """Return what an ended attempt left behind: at most 32 MiB of its log."""
        folder = self._folder(name)

        def read() -> Salvage:
            return Salvage(_read(folder / "log", log_from, SALVAGED_BYTES) or b"", _read(folder / "result"))

        return await asyncio.to_thread(read)

    async def forget(self, name: str) -> None:
        """Remove the attempt's folder; gone already is success.

        Raises:
            RunnerError: when the attempt still runs.
        """
        await asyncio.to_thread(self._forget, name)

    def _start(self, run: JobRun) -> str:
        with self._lock(run.name):
            return self._start_alone(run)

    def _start_alone(self, run: JobRun) -> str:
        folder = self._folder(run.name)
        running = self._identity(folder)
        if running is not None:
            return running.handle()
        python = self._environments.python_for(run.environment)
        failpoints.hit("runner.unpacked")
        home = self._homes / run.tenant / run.user
        for made in (self._jobs, folder, self._homes, home.parent, home):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "wrapper.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "torpor.run"],
                env=self._variables(run, folder, home, python),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        failpoints.hit("runner.started")
        self._children[run.name] = process
        started = identity.of(process.pid)
        if started is None:
            raise RunnerError(f"The wrapper of {run.name} ended at once: {_tail(folder / 'wrapper.log')}")
        files.write_atomically(folder / HANDLE_FILE, started.handle().encode())
        return started.handle()

    def _variables(self, run: JobRun, folder: Path, home: Path, python: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        java = {"JAVA_HOME": self._java_home} if self._java_home else {}
        search = layering.search_path(python.parent.parent, None, self._platform, kept.get("PATH", os.defpath))
        return {
            **kept,
            **java,
            **run.told,
            **run.secrets,
            "PATH": search,
            "TORPOR_RANK": "0",
            "TORPOR_PYTHON": str(python),
            "TORPOR_FOLDER": str(folder),
            "TORPOR_HOME": str(home),
        }

    def _facts(self) -> dict[str, JobFact]:
        # A copy: another thread may start an attempt meanwhile.
        for process in list(self._children.values()):
            process.poll()
        try:
            folders = [folder for folder in self._jobs.iterdir() if not folder.name.startswith(".")]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RunnerError(f"The jobs in {self._jobs} cannot be listed: {error.strerror}.") from error
        found = ((folder.name, self._fact(folder)) for folder in folders if folder.name not in self._starting)
        return {name: fact for name, fact in found if fact is not None}

    def _fact(self, folder: Path) -> JobFact | None:
        job_id, _, number = folder.name.rpartition("-a")
        try:
            wrapper = self._identity(folder)
            if wrapper is None:
                return None
            if identity.alive(wrapper):
                return JobFact(job_id, int(number), wrapper.handle(), True)
            left = _record(folder / EXIT_FILE)
        except (OSError, ValueError, KeyError):
            return JobFact(job_id, int(number), "", None)
        if left is None:
            message = "The attempt's processes were ended from outside."
            return JobFact(job_id, int(number), wrapper.handle(), False, reason=LOST, message=message)
        return JobFact(
            job_id,
            int(number),
            wrapper.handle(),
            False,
            exit_code=left["exit_code"],
            reason=left["reason"],
            message=left["message"],
            exception=left["exception"],
        )

    def _identity(self, folder: Path) -> Identity | None:
        """Return the wrapper that was started for the attempt, living or ended; None when none ever was."""
        with contextlib.suppress(FileNotFoundError):
            return identity.parse((folder / HANDLE_FILE).read_text())
        own = _record(folder / ATTEMPT_FILE)
        if own is not None:
            return Identity(int(own["pid"]), int(own["start_time"]), str(own["boot"]))
        if not folder.exists():
            return None
        # The server was ended between the fork and its first record: the process table knows.
        leaders = [stat for stat in trees.marked(MARK, folder.name) if os.getsid(stat.pid) == stat.pid]
        first = min(leaders, key=lambda stat: stat.started, default=None)
        return Identity(first.pid, first.started) if first else None

    def _end(self, name: str, handle: str, grace_s: float) -> None:
        with self._lock(name):
            self._end_alone(name, handle, grace_s)

    def _end_alone(self, name: str, handle: str, grace_s: float) -> None:
        folder = self._folder(name)
        try:
            root = identity.parse(handle) if handle else self._identity(folder)
            # Without a wrapper there may still be what it left: the mark alone is swept then.
            trees.end_tree(root or NOBODY, mark=(MARK, name), grace_s=grace_s)
        except (PlaceError, OSError, ValueError) as error:
            raise RunnerError(f"{name} could not be ended: {error}") from error
        process = self._children.get(name)
        if process is not None:
            process.poll()

    def _forget(self, name: str) -> None:
        folder = self._folder(name)
        wrapper = self._identity(folder)
        if wrapper is not None and identity.alive(wrapper):
            raise RunnerError(f"{name} still runs as {wrapper.handle()}: its folder stays.")
        files.remove_folder(folder)
        process = self._children.pop(name, None)
        if process is not None:
            process.wait()
        self._locks.pop(name, None)

    def _lock(self, name: str) -> Lock:
        return self._locks.setdefault(name, Lock())

    def _folder(self, name: str) -> Path:
        if not name or Path(name).name != name or name.startswith("."):
            raise RunnerError(f"'{name}' is not the name of an attempt.")
        return self._jobs / name


def _record(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    return content


def _read(file: Path, start: int = 0, most: int = -1) -> bytes | None:
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            return stream.read(most)
    except FileNotFoundError:
        return None


def _tail(file: Path) -> str:
    return file.read_bytes()[-2000:].decode(errors="replace").strip()
