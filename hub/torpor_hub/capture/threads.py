"""Captures run in threads: stopped by whoever waits for them, and heard of in the event loop."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from torpor_hub.capture.base import CaptureTask, Progress
from torpor_hub.errors import CaptureFailed

REPORT_EVERY_S = 0.1

T = TypeVar("T")


class Stopped(Exception):
    """Ends a thread whose caller was cancelled."""


class Stop:
    """Says to a thread that its caller was cancelled."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Have the thread end at its next check."""
        self._event.set()

    def check(self) -> None:
        """Return, unless the caller was cancelled.

        Raises:
            Stopped: it was.
        """
        if self._event.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds``; raises as :meth:`check` does, and then at once."""
        self._event.wait(seconds)
        self.check()


class Watch:
    """Progress of one copy: stops it on request, and reports bytes done of ``total`` in all."""

    def __init__(self, stop: Stop, report: Progress, total: int) -> None:
        self._stop = stop
        self._report = report
        self._total = total
        self._next = 0.0

    def __call__(self, done: int) -> None:
        """Note that ``done`` bytes of content were read."""
        self._stop.check()
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_EVERY_S
            self.report(done)

    def report(self, done: int) -> None:
        """Report ``done`` bytes at once."""
        self._report(done, max(done, self._total))


def in_loop(progress: Progress | None) -> Progress:
    """Return a progress for threads, which calls ``progress`` in the present event loop."""
    if progress is None:
        return lambda _done, _total: None
    loop = asyncio.get_running_loop()

    def report(done: int, total: int) -> None:
        loop.call_soon_threadsafe(progress, done, total)

    return report


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Return what ``work`` returns in a thread; a cancelled caller waits until the thread has stopped and tidied up."""
    stop = Stop()
    running = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([running])
        running.exception()
        raise


@contextmanager
def saving(task: CaptureTask) -> Iterator[None]:
    """Name what is being saved in whatever the system refuses."""
    try:
        yield
    except OSError as error:
        raise CaptureFailed(f"{task.source} could not be saved: {error.strerror}") from error


def write_back(source: Path) -> None:
    """Write back the file system of ``source``, after which a store through a memory map moves the file's times again.

    Raises:
        CaptureFailed: the system could not.
    """
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise CaptureFailed(f"{source} could not be written back: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)
