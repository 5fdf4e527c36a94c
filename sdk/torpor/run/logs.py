"""Sends the log while it grows. The file on disk is the log; nothing is kept in memory but how far the api has it."""

from __future__ import annotations

import threading
from pathlib import Path

from torpor.run.link import Link, RefusedError, UndeliveredError

EVERY_S = 0.4
SEGMENT_BYTES = 256 * 1024


class LogSender(threading.Thread):
    """Follows one file and stores it piece by piece; a piece is repeated until it is acknowledged, then never again."""

    def __init__(self, file: Path, link: Link) -> None:
        super().__init__(name="log", daemon=True)
        self._file = file
        self._link = link
        self._finished = threading.Event()
        self.sent = 0
        self.refused = False

    def run(self) -> None:
        """Send until told that the file is complete, then the rest."""
        try:
            while not self._finished.wait(EVERY_S):
                self._send_new()
            self._send_new()
        except RefusedError:
            self.refused = True
        except UndeliveredError:
            return

    def finish(self) -> bool:
        """Return whether the api has the whole file, which must not grow any more."""
        self._finished.set()
        if self.ident is not None:
            self.join()
        return self.sent == self._file.stat().st_size

    def _send_new(self) -> None:
        with self._file.open("rb") as file:
            file.seek(self.sent)
            while segment := file.read(SEGMENT_BYTES):
                self._link.log(self.sent, segment)
                self.sent += len(segment)
