"""A line on stderr for waits that take longer than a person likes to wait in silence."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from torpor import units

SILENT_S = 2.0
EVERY_S = 1.0


@contextmanager
def shown(
    say: Callable[[], str], *, stream: TextIO | None = None, silent_s: float = SILENT_S, every_s: float = EVERY_S
) -> Iterator[None]:
    """Show ``say()`` and the time passed, from ``silent_s`` on and every ``every_s``, while the with block runs."""
    target = stream or sys.stderr
    ended = threading.Event()
    began = time.monotonic()

    def _speak() -> None:
        pause_s, width = silent_s, 0
        while not ended.wait(pause_s):
            line = f"{say()} ({units.duration(time.monotonic() - began)})"
            target.write("\r" + line.ljust(width))
            target.flush()
            pause_s, width = every_s, len(line)
        if width:
            target.write("\n")
            target.flush()

    thread = threading.Thread(target=_speak, name="torpor-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
