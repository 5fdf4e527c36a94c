"""Rows from an Arrow IPC stream, or an error: never fewer rows than were sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torpor.errors import IncompleteStream

if TYPE_CHECKING:
    import pyarrow as pa

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def parse(payload: Any, what: str) -> pa.Table:
    """Return the table in ``payload``. Raises IncompleteStream, naming ``what``, unless it is a whole stream with its end mark.

    Arrow itself takes the end of the input for the end of the stream. So the mark is required here, and what is before it must be
    complete messages: the mark's bytes may also occur inside of a column, where a stream may break off.
    """
    import pyarrow as pa

    view = memoryview(payload)
    if bytes(view[-len(END_OF_STREAM) :]) != END_OF_STREAM:
        raise _broken(what)
    try:
        with pa.ipc.open_stream(pa.py_buffer(view[: -len(END_OF_STREAM)])) as reader:
            return reader.read_all()
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise _broken(what) from error


def _broken(what: str) -> IncompleteStream:
    return IncompleteStream(
        f"The rows of {what} broke off in the middle.",
        next_step="Ask again; if it happens again, ask for fewer rows or columns.",
    )
