"""From the task to its delivered outcome: fetch, start, watch, end, tell."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torpor.run import child, descendants, memory
from torpor.run.attempt import LOST, Attempt, Outcome
from torpor.run.link import Link, RefusedError, UndeliveredError
from torpor.run.logs import LogSender
from torpor.units import size

HEARTBEAT_S = 2.0
TICK_S = 0.1
DELIVERY_S = 3600.0
LAST_WORDS_S = 3.0
LEFT_BYTES = 64 * 1024
FETCHES = 3
WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
NOT_FOUND = 127


class Wish(threading.Thread):
    """Heartbeats, and what their answers say that the owner wishes."""

    def __init__(self, link: Link) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._link = link
        self._finished = threading.Event()
        self.ending = ""

    def run(self) -> None:
        """Beat until told to stop, or until the answer ends the attempt."""
        try:
            while not self._finished.is_set():
                if self._link.heartbeat() == "cancelled":
                    self.ending = "cancelled"
                    return
                self._finished.wait(HEARTBEAT_S)
        except RefusedError:
            self.ending = LOST
        except UndeliveredError:
            return

    def finish(self) -> None:
        """Stop beating."""
        self._finished.set()


def main() -> int:
    """Run the attempt that the environment variables name and deliver how it ended; return 0 once delivered."""
    attempt = Attempt.from_environ(os.environ)
    attempt.scratch.mkdir(parents=True, exist_ok=True)
    descendants.become_subreaper()
    # As the first process of a container it would ignore a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    attempt.write("attempt.json", descendants.own_identity())
    link = Link(attempt)
    outcome, log = _outcome_of(attempt, link)
    attempt.write_end(outcome, delivered=False)
    delivered = _deliver(attempt, link, log, outcome)
    attempt.write_end(outcome, delivered=delivered)
    return 0 if delivered else 1


def _outcome_of(attempt: Attempt, link: Link) -> tuple[Outcome, LogSender | None]:
    try:
        task = link.task()
        if task["desired"] == "cancelled":
            return Outcome(None, "cancelled", "The job was cancelled before its code started."), None
        if task.get("bundle"):
            attempt.bundle.write_bytes(_fetch_bundle(link, task["bundle"]["sha256"]))
    except RefusedError as error:
        return Outcome(None, LOST, f"The platform did not hand out the task: {error}"), None
    except ValueError as error:
        return Outcome(None, LOST, str(error)), None
    attempt.write("task.json", task)
    attempt.log.touch()
    log = LogSender(attempt.log, link)
    return _run(attempt, task, link, log), log


def _fetch_bundle(link: Link, sha256: str) -> bytes:
    for _ in range(FETCHES):
        bundle = link.bundle()
        if hashlib.sha256(bundle).hexdigest() == sha256:
            return bundle
    raise ValueError(f"The submitted code did not arrive whole in {FETCHES} tries: its sha256 is not {sha256}.")


def _run(attempt: Attempt, task: Mapping[str, Any], link: Link, log: LogSender) -> Outcome:
    argv, kills = _argv(attempt, task), memory.kills()
    with _blocked(WATCHED):
        # What the code did is to be delivered, also by an attempt that is being ended: for a moment longer.
        signal.signal(signal.SIGTERM, lambda *_: link.give_up_in(LAST_WORDS_S))
        try:
            process = _start(attempt, argv, _environment(attempt, task))
        except OSError as error:
            return Outcome(NOT_FOUND, "", f"'{argv[0]}' cannot be started: {error.strerror}.")
        wish = Wish(link)
        wish.start()
        log.start()
        limit_s = task.get("timeout_s") or math.inf
        exit_code, ending = _watch(process.pid, wish, time.monotonic() + limit_s, attempt.grace_s)
        process.returncode = exit_code
        wish.finish()
        whole = descendants.kill_all()
    if ending == LOST:
        link.give_up_in(LAST_WORDS_S)
    outcome = _judge(attempt, task, exit_code, ending if whole else LOST)
    return _out_of_memory(outcome, task) if memory.kills() > kills else outcome


def _argv(attempt: Attempt, task: Mapping[str, Any]) -> list[str]:
    if task["code"]["type"] == "command":
        return [str(part) for part in task["code"]["argv"]]
    return [str(attempt.python), "-P", str(Path(child.__file__).resolve()), str(attempt.folder)]


def _environment(attempt: Attempt, task: Mapping[str, Any]) -> dict[str, str]:
    threads = str(max(1, task["amount"]["cpu_milli"] // 1000))
    temporary = attempt.scratch / "tmp"
    temporary.mkdir(exist_ok=True)
    local = {
        "HOME": str(attempt.home),
        "PATH": f"{attempt.python.parent}:{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(attempt.python.parent.parent),
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": threads,
        "PYSPARK_PYTHON": str(attempt.python),
        "PYSPARK_DRIVER_PYTHON": str(attempt.python),
        "SPARK_LOCAL_DIRS": str(attempt.scratch / "spark-local"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    return {**os.environ, **local}


def _start(attempt: Attempt, argv: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    if not shutil.which(argv[0], path=environment["PATH"]):
        raise FileNotFoundError(2, "no such program in the job's environment", argv[0])
    parent = os.getpid()

    def _between() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        descendants.die_with(parent)

    with attempt.log.open("ab") as log:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=attempt.scratch,
            env=environment,
            process_group=0,
            preexec_fn=_between,  # noqa: PLW1509 - no other thread runs yet
        )


@contextmanager
def _blocked(signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(pid: int, wish: Wish, deadline: float, grace_s: float) -> tuple[int, str]:
    """Return the code's exit code, and why it was ended when it did not end by itself."""
    ending, kill_at = "", math.inf
    while True:
        ended = descendants.collect()
        if pid in ended:
            return ended[pid], ending
        now = time.monotonic()
        if now >= kill_at:
            descendants.send(signal.SIGKILL)
        arrived = signal.sigtimedwait(WATCHED, TICK_S)
        stopped = arrived is not None and arrived.si_signo != signal.SIGCHLD
        if not ending:
            ending = LOST if stopped else wish.ending or ("timeout" if now > deadline else "")
            if ending:
                descendants.send(signal.SIGTERM)
                kill_at = now + grace_s


def _judge(attempt: Attempt, task: Mapping[str, Any], exit_code: int, ending: str) -> Outcome:
    shown = 128 - exit_code if exit_code < 0 else exit_code
    if ending:
        return Outcome(shown, ending, _sentence(ending, task))
    if exit_code < 0:
        name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else str(-exit_code)
        return Outcome(shown, "killed", f"The job's process was ended by signal {name}.")
    exception = (attempt.read("outcome.json") or {}).get("exception")
    if exception:
        return Outcome(shown, "exception", f"{exception['type']}: {exception['message']}", exception)
    return Outcome(shown, "", f"The job's process ended with exit code {shown}." if shown else "")


def _out_of_memory(outcome: Outcome, task: Mapping[str, Any]) -> Outcome:
    """Return what the outcome is where the kernel ended a process meanwhile: in a container of its own, one of the job's."""
    limit = task["amount"]["memory_bytes"]
    own = memory.limit_bytes() == limit
    if outcome.reason != "killed" and not (own and outcome.exit_code and outcome.reason in ("", "exception")):
        return outcome
    there = f"its limit of {size(limit)} of memory" if own else "the memory that the machine had"
    return replace(outcome, reason="out_of_memory", message=f"The job used more than {there}, and the kernel ended it.")


def _sentence(ending: str, task: Mapping[str, Any]) -> str:
    if ending == "timeout":
        return f"The job ran longer than its limit of {task['timeout_s']:g} s and was ended."
    return "The job was cancelled." if ending == "cancelled" else "The attempt was ended from outside."


def _deliver(attempt: Attempt, link: Link, log: LogSender | None, outcome: Outcome) -> bool:
    """Send what is left; the exit comes last, so that whoever sees a job ended finds its log and result complete."""
    link.give_up_at = min(link.give_up_at, time.monotonic() + DELIVERY_S)
    try:
        complete = log is None or log.finish()
        if log is not None and not complete:
            _leave_log(attempt, log.sent)
        if outcome.reason == LOST:
            return False
        if attempt.result.exists():
            link.result(attempt.result.read_bytes())
        link.exit(outcome)
    except RefusedError as error:
        sys.stderr.write(f"The platform refused the outcome of {attempt.name}: {error}\n")
        return False
    except UndeliveredError as error:
        sys.stderr.write(f"The outcome of {attempt.name} was not delivered: {json.dumps(str(error))}\n")
        return False
    return complete


def _leave_log(attempt: Attempt, sent: int) -> None:
    """Write what the api has not of the log, its end at least, where the runner may find it."""
    with attempt.log.open("rb") as file:
        file.seek(max(sent, attempt.log.stat().st_size - LEFT_BYTES))
        sys.stderr.write(file.read().decode(errors="replace"))
