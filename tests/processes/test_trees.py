"""What a census of the machine's processes shows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from torpor_hub.processes import trees

ATTEMPTS = 200


def test_a_census_shows_processes_and_never_a_thread_that_was_started_last() -> None:
    over = threading.Event()
    threads = []
    try:
        for _ in range(ATTEMPTS):
            threads.append(threading.Thread(target=over.wait, daemon=True))
            threads[-1].start()
            # Another process of the machine may come between: then the next thread is the last one started.
            assert threads[-1].native_id not in trees.Census()
    finally:
        over.set()


def test_a_process_that_was_started_last_is_in_the_census() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process.pid in trees.Census()
        assert process.pid in [stat.pid for stat in trees.descendants(os.getpid())]
        process.kill()
