"""A job's log, read onward from where one was."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from torpor import wire

if TYPE_CHECKING:
    from torpor.connection import Connection


class LogReader:
    """Reads what is new in the log of one rank. ``tail_bytes`` begins that many bytes before the end instead of at the start.

    It stays with the attempt that it began with; ``begin`` goes on to another.
    """

    def __init__(self, connection: Connection, job_id: str, *, rank: int = 0, tail_bytes: int | None = None) -> None:
        self._connection = connection
        self._job_id = job_id
        self._rank = rank
        self._tail_bytes = tail_bytes
        self.begin(0)

    def begin(self, attempt: int) -> None:
        """Go to the start of ``attempt``; 0 is the newest."""
        self.attempt = attempt
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> str:
        """Return what is new; nothing when there is nothing. A character that has not arrived completely waits for its rest."""
        request = wire.one("jobs", self._job_id, "log").with_params(
            rank=self._rank,
            attempt=self.attempt or None,
            offset=None if self._tail_bytes else self._offset,
            tail=self._tail_bytes,
        )
        answer = self._connection.send(request)
        self._tail_bytes = None
        self.attempt = self.attempt or int(answer.headers.get(wire.ATTEMPT_HEADER) or 0)
        self._offset = int(answer.headers.get(wire.NEXT_OFFSET_HEADER) or self._offset + len(answer.content))
        return self._decoder.decode(answer.content)
