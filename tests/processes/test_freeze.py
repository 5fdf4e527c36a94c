from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.processes.workspace_runs import bash, end, new_run, python, started, states, until
from torpor_hub.errors import PlaceError
from torpor_hub.processes import freeze, identity, launch, layering, trees
from torpor_hub.processes.freezer import ProcessFreezer

FORKS = """
import os, pathlib, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
while True:
    os.write(out, b".")
    if os.fork() == 0:
        os.write(out, b"x")
        os._exit(0)
    os.waitpid(-1, os.WNOHANG)
"""
CHAIN = """
import os, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
if os.fork():
    import time
    time.sleep(100)
while True:
    os.write(out, b".")
    if os.fork():
        os._exit(0)
"""
SPAWNS = """
import subprocess, sys, threading
def spawn():
    while True:
        with open(sys.argv[1], "ab") as out:
            out.write(b".")
        subprocess.run(["/bin/true"])
threads = [threading.Thread(target=spawn) for _ in range(3)]
[thread.start() for thread in threads]
"""
COUNTS = "while true; do echo >> {file}; sleep 0.01; done"


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def grows(file: Path, within_s: float = 5.0) -> bool:
    before = size(file)
    return until(lambda: size(file) > before, within_s)


def stands_still(file: Path) -> bool:
    """Watch a file for a moment in which its writer would have written dozens of times."""
    before = size(file)
    return not until(lambda: size(file) != before, 0.3)


@pytest.mark.parametrize("storm", [FORKS, CHAIN, SPAWNS], ids=["forks", "chain of forks", "threads that spawn"])
def test_a_storm_of_forks_stands_still_and_goes_on(tmp_path: Path, storm: str) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    root = Path(run.root_dir)
    with started(run, *python(storm), str(beats)) as reaper:
        assert grows(beats)
        freeze.freeze(root, reaper.handle(), 60)
        assert stands_still(beats)
        assert freeze.is_frozen(root, reaper.handle())
        freeze.freeze(root, reaper.handle(), 60)
        assert stands_still(beats), "a repeated freeze woke something"
        freeze.thaw(root, reaper.handle())
        assert grows(beats)
        assert not freeze.is_frozen(root, reaper.handle())


def test_a_frozen_storm_is_ended_without_moving_again(tmp_path: Path) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    with started(run, *python(CHAIN), str(beats)) as reaper:
        assert grows(beats)
        freeze.freeze(Path(run.root_dir), reaper.handle(), 60)
        before = size(beats)
        trees.end_tree(reaper, mark=(launch.GRANT_MARK, run.grant_id), grace_s=0)
        assert not identity.alive(reaper)
        assert trees.marked(launch.GRANT_MARK, run.grant_id) == []
        assert size(beats) == before


def test_the_reaper_thaws_by_itself_at_the_deadline(tmp_path: Path) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    root = Path(run.root_dir)
    with started(run, *bash(COUNTS.format(file=beats))) as reaper:
        assert grows(beats)
        before = time.monotonic()
        freeze.freeze(root, reaper.handle(), 1.0)
        assert stands_still(beats)
        assert grows(beats)
        assert time.monotonic() - before >= 1.0
        assert until(lambda: freeze.read_lease(root) is None)
        assert "T" not in states(reaper.pid)


def test_the_reaper_thaws_when_the_lease_is_lost_or_torn(tmp_path: Path) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    root = Path(run.root_dir)
    with started(run, *bash(COUNTS.format(file=beats))) as reaper:
        assert grows(beats)
        for torn in (False, True):
            freeze.freeze(root, reaper.handle(), 60)
            assert stands_still(beats)
            if torn:
                (root / freeze.LEASE_FILE).write_text("{")
            else:
                (root / freeze.LEASE_FILE).unlink()
            assert grows(beats)
            assert until(lambda: freeze.read_lease(root) is None)


def test_a_frozen_workspace_that_is_asked_to_end_thaws_and_ends_politely(tmp_path: Path) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    root = Path(run.root_dir)
    with started(run, *bash("trap 'exit 7' TERM; " + COUNTS.format(file=beats))) as reaper:
        assert grows(beats)
        freeze.freeze(root, reaper.handle(), 60)
        identity.send(reaper, signal.SIGTERM)
        assert until(lambda: not identity.alive(reaper))
        record = launch.read_run(root)
        assert record is not None
        assert record.exit_code == 7
        assert freeze.read_lease(root) is None


def test_what_its_user_had_stopped_stays_stopped_after_a_thaw(tmp_path: Path) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    root = Path(run.root_dir)
    script = f"sleep 100 & echo $! > {tmp_path}/pid.part; kill -STOP $!; mv {tmp_path}/pid.part {tmp_path}/pid; "
    with started(run, *bash(script + COUNTS.format(file=beats))) as reaper:
        assert grows(beats)
        stopped = int((tmp_path / "pid").read_text())
        for _ in range(2):
            freeze.freeze(root, reaper.handle(), 60)
        freeze.thaw(root, reaper.handle())
        assert grows(beats)
        stat = identity.read_stat(stopped)
        assert stat is not None
        assert stat.state == "T"


def test_a_shells_job_stays_in_the_foreground(tmp_path: Path) -> None:
    """An interactive shell that sees its job stop would put it into the background, and the job would be lost to its user."""
    run = new_run(tmp_path)
    root = Path(run.root_dir)
    controller, terminal = pty.openpty()
    script = (
        "import fcntl, os, sys, termios\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.setsid()\n"
        "    line = os.open(sys.argv[1], os.O_RDWR)\n"
        "    fcntl.ioctl(line, termios.TIOCSCTTY, 0)\n"
        "    [os.dup2(line, number) for number in (0, 1, 2)]\n"
        "    os.execv('/bin/bash', ['bash', '--norc', '-i'])\n"
        "os.waitpid(pid, 0)\n"
    )
    try:
        with started(run, *python(script), os.ttyname(terminal)) as reaper:
            os.write(controller, b"cat; echo ended\n")
            assert until(lambda: len(trees.descendants(reaper.pid)) == 3)
            job = trees.descendants(reaper.pid)[-1]
            for _ in range(5):
                freeze.freeze(root, reaper.handle(), 60)
                assert states(reaper.pid) == {"T"}
                freeze.thaw(root, reaper.handle())
            assert until(lambda: "T" not in states(reaper.pid))
            assert os.tcgetpgrp(controller) == job.group, "the shell took the terminal back"
            os.write(controller, b"hello\n")
            shown = b""
            deadline = time.monotonic() + 5
            while shown.count(b"hello") < 2 and time.monotonic() < deadline:
                shown += os.read(controller, 4096)
            assert shown.count(b"hello") == 2, shown
            assert b"Stopped" not in shown
    finally:
        os.close(controller)
        os.close(terminal)


def test_a_parent_that_waits_for_the_exec_of_its_child_counts_as_stopped(tmp_path: Path) -> None:
    """A child that is stopped between vfork and exec keeps its parent in a wait that no signal but SIGKILL ends."""
    run = new_run(tmp_path)
    source = tmp_path / "hang.py"
    # The child hangs before its exec: it waits for the other end of a named pipe that is its working folder's standard input.
    os.mkfifo(tmp_path / "pipe")
    source.write_text(
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "class Actions(ctypes.Structure):\n"
        "    _fields_ = [('room', ctypes.c_char * 256)]\n"
        "actions, pid = Actions(), ctypes.c_int()\n"
        "libc.posix_spawn_file_actions_init(ctypes.byref(actions))\n"
        "libc.posix_spawn_file_actions_addopen(ctypes.byref(actions), 0, sys.argv[1].encode(), os.O_RDONLY, 0)\n"
        "words = (ctypes.c_char_p * 2)(b'true', None)\n"
        "libc.posix_spawn(ctypes.byref(pid), b'/bin/true', ctypes.byref(actions), None, words, None)\n"
        "open(sys.argv[2], 'w').close()\n"
    )
    root, done = Path(run.root_dir), tmp_path / "done"
    with started(run, *python(source.read_text()), str(tmp_path / "pipe"), str(done)) as reaper:
        assert until(lambda: "D" in states(reaper.pid))
        freeze.freeze(root, reaper.handle(), 60)
        assert states(reaper.pid) == {"D", "T"}
        freeze.thaw(root, reaper.handle())
        with (tmp_path / "pipe").open("wb"):
            assert until(done.exists)


def test_a_start_that_is_gone_cannot_be_frozen_and_need_not_be_thawed(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    root = Path(run.root_dir)
    with started(run, *bash("sleep 100")) as reaper:
        end(reaper.pid)
        assert until(lambda: not identity.alive(reaper))
        freezer = ProcessFreezer()
        with pytest.raises(PlaceError, match="gone"):
            asyncio.run(freezer.freeze(root, reaper.handle(), 60))
        with pytest.raises(PlaceError, match="not the handle"):
            asyncio.run(freezer.freeze(root, "nonsense", 60))
        asyncio.run(freezer.thaw(root, reaper.handle()))
        assert freeze.read_lease(root) is None


def test_a_thaw_during_a_freeze_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    root = Path(run.root_dir)
    stop_in_order = freeze._stop_in_order
    thaws: list[threading.Thread] = []

    def stop_then_thaw(reaper: identity.Identity) -> None:
        stop_in_order(reaper)
        lease = freeze.read_lease(root)
        thaws.append(threading.Thread(target=freeze.thaw, args=(root, reaper.handle())))
        thaws[-1].start()
        assert until(lambda: freeze.read_lease(root) != lease)

    monkeypatch.setattr(freeze, "_stop_in_order", stop_then_thaw)
    with started(run, *bash(COUNTS.format(file=beats))) as reaper:
        assert grows(beats)
        with pytest.raises(PlaceError, match="thawed"):
            freeze.freeze(root, reaper.handle(), 60)
        thaws[0].join()
        assert grows(beats)
        assert freeze.read_lease(root) is None


def test_a_late_thaw_does_not_meet_the_next_freeze(tmp_path: Path) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    root = Path(run.root_dir)
    with started(run, *bash(COUNTS.format(file=beats))) as reaper:
        assert grows(beats)
        over = freeze.Lease(reaper.handle(), 0.0)
        late = threading.Thread(target=freeze.thaw_when_due, args=(root, reaper, over))
        with freeze._locked(root):
            freeze._stop_in_order(reaper)
            late.start()
            assert stands_still(beats), "it did not wait for who freezes"
            freeze._write(root, freeze.Lease(reaper.handle(), freeze.boot_time() + 60))
        late.join()
        assert stands_still(beats), "it ended a lease that had begun meanwhile"
        freeze.thaw(root, reaper.handle())
        assert grows(beats)


def test_the_reaper_needs_no_installed_package() -> None:
    program = "import sys; sys.argv=['x']; exec(open(sys.argv[0]).read()) if False else None; "
    program += f"import runpy; runpy.run_path({str(launch.REAPER)!r}, run_name='reaper'); "
    program += (
        "print(sorted(n for n in sys.modules if 'site-packages' in (getattr(sys.modules[n], '__file__', '') or '')))"
    )
    found = subprocess.run(
        [str(layering.here().interpreter), "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_a_chain_of_forks_that_runs_is_ended(tmp_path: Path) -> None:
    run, beats = new_run(tmp_path), tmp_path / "beats"
    with started(run, *python(CHAIN), str(beats)) as reaper:
        assert grows(beats)
        end(reaper.pid)
        assert until(lambda: not identity.alive(reaper))
        trees.end_tree(reaper, mark=(launch.GRANT_MARK, run.grant_id))
        assert stands_still(beats)
