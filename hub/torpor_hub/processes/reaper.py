"""The parent of a workspace's processes: run as ``python -I -S reaper.py <start file>``.

It leaves no process behind: as child subreaper it becomes the parent of every orphan below it, and when the server ends it
kills all of them. It writes the run's record before it starts the server, forwards signals to the server, and thaws a frozen
workspace whose lease is past its deadline or gone. Standard library only: it has to outlive any change of packages.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # -I and -S leave only the standard library there

from torpor_hub.processes import freeze, identity, records, trees

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WAITED_FOR = {*FORWARDED, signal.SIGCHLD}
TICK_S = 0.25
KILL_POLL_S = 0.02
EXIT_NOT_STARTED = 127


class Reaper:
    """One run of one workspace's server."""

    def __init__(self, start: records.Start) -> None:
        self.start = start
        self.root = Path(start.root)
        self.itself = identity.own()
        self.server = 0
        self.status: int | None = None
        self.lease: freeze.Lease | None = None
        self.record = records.RunRecord(
            workspace_id=start.workspace_id,
            grant_id=start.grant_id,
            handle=self.itself.handle(),
            port=start.port,
            started_at=time.time(),
        )

    def announce(self) -> None:
        """Write the record of a run whose server has not started; what an earlier run left is void."""
        (self.root / freeze.LEASE_FILE).unlink(missing_ok=True)
        records.write(self.root, self.record)

    def run(self) -> int:
        """Run the server until it ends, then everything below until nothing is left; return the server's exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
        self.server = self._fork()
        server = identity.of(self.server)
        self.record = self.record.with_server(server.handle() if server else "")
        records.write(self.root, self.record)
        while self.status is None:
            received = signal.sigtimedwait(WAITED_FOR, TICK_S)
            self._reap()
            self.lease = freeze.thaw_when_due(self.root, self.itself, self.lease)
            if received is not None and received.si_signo in FORWARDED:
                self._forward(signal.Signals(received.si_signo))
        self._end_descendants()
        (self.root / freeze.LEASE_FILE).unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(self.status)
        records.write(self.root, self.record.with_end(code, time.time()))
        return code

    def _fork(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setpgid(0, 0)  # apart from the reaper, so that a signal to the server's group spares it
            _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != self.itself.pid:
                os._exit(EXIT_NOT_STARTED)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.chdir(self.start.cwd)
            os.execvpe(self.start.command[0], self.start.command, self.start.environment)  # noqa: S606
        except OSError as error:
            os.write(2, f"The server '{self.start.command[0]}' cannot be started: {error}\n".encode())
            os._exit(EXIT_NOT_STARTED)

    def _reap(self) -> bool:
        """Collect every child that has ended and return whether any is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.server:
                self.status = status

    def _forward(self, number: signal.Signals) -> None:
        freeze.thaw(self.root, self.itself.handle())  # a stopped server would not hear it
        if self.status is None:
            os.kill(self.server, number)

    def _end_descendants(self) -> None:
        while self._reap():
            among = trees.Census()
            trees.signal_all(trees.descendants(self.itself.pid, among), among, signal.SIGKILL)
            time.sleep(KILL_POLL_S)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(start_file: Path) -> int:
    """Go on as a process of its own session; the calling process returns 0 once the record of the run stands."""
    start = records.take_start(start_file)
    ready, announce = os.pipe()
    if os.fork():
        os.close(announce)
        return 0 if os.read(ready, 1) else 1
    os.close(ready)
    os.setsid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    reaper = Reaper(start)
    reaper.announce()
    os.write(announce, b"1")
    os.close(announce)
    reaper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
