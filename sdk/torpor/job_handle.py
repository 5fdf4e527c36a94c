"""A job as its submitter sees it: state, log, result, cancel. It holds an id; everything else lives on the platform."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from torpor import snapshots, units, wire
from torpor.errors import IncompleteStream, JobCancelled, JobFailed, TorporError, WaitTimeout
from torpor.job_log import LogReader
from torpor.models import JobStatus, Resource
from torpor.polling import Pace

if TYPE_CHECKING:
    from torpor.connection import Connection
    from torpor.widgets import JobCard

LINE_BYTES = 400
LEAST_TAIL_BYTES = 64 * 1024


class RemoteTraceback(Exception):
    """The traceback of an exception in a job, as text: the cause of what ``result()`` raises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class Job:
    """A submitted job. It goes on without the notebook; ``torpor.job(id)`` finds it again."""

    def __init__(self, connection: Connection, resource: Resource) -> None:
        self._connection = connection
        self._resource = resource

    @property
    def id(self) -> str:
        """Return the id, which stays the same for ever."""
        return self._resource.id

    @property
    def name(self) -> str:
        """Return the name that was given at submit; several jobs may have one."""
        return self._resource.name

    @property
    def resource(self) -> Resource:
        """Return the job as last heard of, with its spec."""
        return self._resource

    @property
    def last_status(self) -> JobStatus:
        """Return the state as last heard of, without asking."""
        return JobStatus.parse(self._resource.status)

    @property
    def status(self) -> JobStatus:
        """Return the state now. A finished job is not asked again."""
        return self.last_status if self.last_status.finished else self.refresh()

    def refresh(self) -> JobStatus:
        """Return the state now, asked of the platform."""
        answer = self._connection.send(wire.one("jobs", self.id).unless_version(self._resource.version))
        if answer.status_code != 304:
            self._resource = Resource.parse(answer.json())
        return self.last_status

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Return the state once the job has ended, however that was.

        ``timeout`` is in seconds. Raises WaitTimeout after it; the job goes on.
        """
        pace = Pace(timeout)
        while not (status := self.refresh()).finished:
            if not pace.rest():
                raise WaitTimeout(
                    f"Job {self.name} has not ended after {units.duration(timeout or 0)}; it is {status}",
                    next_step=f"It goes on: torpor.job('{self.id}') finds it again.",
                )
        return status

    def result(self, timeout: float | None = None) -> Any:
        """Return the value of the function, waiting for it up to ``timeout`` seconds.

        Raises what the function raised, with the remote traceback as its cause; JobFailed where there is no exception to raise
        (killed, timed out, a command with another exit code than 0); JobCancelled; WaitTimeout.
        """
        status = self.wait(timeout)
        if status.result:
            return self._value()
        if status.phase == "SUCCEEDED":
            return None
        kind = JobCancelled if status.phase == "CANCELLED" else JobFailed
        message = status.message or f"Job {self.name} ended as {status.phase}."
        error = kind(message, next_step=status.next_step, job_id=self.id)
        remote = str(status.exception.get("traceback") or "")
        raise error from (RemoteTraceback(remote) if remote else None)

    def log(self, tail: int | None = None, *, rank: int = 0) -> str:
        """Return the log of the newest attempt so far, or its last ``tail`` lines."""
        tail_bytes = None if tail is None else max(LEAST_TAIL_BYTES, tail * LINE_BYTES)
        request = wire.one("jobs", self.id, "log").with_params(rank=rank, tail=tail_bytes)
        text = self._connection.send(request).content.decode("utf-8", "replace")
        return (
            text if tail is None else "".join(text.splitlines(keepends=True)[max(0, len(text.splitlines()) - tail) :])
        )

    def logs(self, *, follow: bool = False, rank: int = 0) -> Iterator[str]:
        """Return the log piece by piece; with ``follow``, until the job has ended. A new attempt begins with a line that says so."""
        reader, pace = LogReader(self._connection, self.id, rank=rank), Pace(None)
        while True:
            ended = not follow or self.status.finished
            if piece := reader.read():
                pace = Pace(None)
                yield piece
            elif 0 < reader.attempt < self.last_status.attempt:
                reader.begin(self.last_status.attempt)
                yield f"\n--- attempt {reader.attempt} ---\n"
            elif ended:
                return
            else:
                pace.rest()

    def log_reader(self, tail_bytes: int) -> LogReader:
        """Return a reader of the newest attempt's log that begins ``tail_bytes`` before its end."""
        return LogReader(self._connection, self.id, tail_bytes=tail_bytes)

    def cancel(self) -> JobStatus:
        """Return the state after the wish to end the job was recorded. Harmless for a job that has ended."""
        answer = self._connection.json(wire.wish("jobs", self.id, desired="cancelled"))
        self._resource = Resource.parse(answer)
        return self.last_status

    def widget(self) -> JobCard:
        """Return a card that shows this job and follows it. Needs the extra ``widgets``."""
        from torpor.widgets import JobCard

        return JobCard(self)

    def elapsed_s(self) -> float | None:
        """Return for how long the job ran, or runs, in seconds; None before it started."""
        status = self.last_status
        if status.started_at is None:
            return None
        return ((status.ended_at or datetime.now(UTC)) - status.started_at).total_seconds()

    def outcome(self) -> dict[str, Any]:
        """Return what a finished function left, without raising it: ``{"value"}`` or ``{"exception", "traceback"}``."""
        return load_outcome(self._download(), self.id)

    def _value(self) -> Any:
        outcome = self.outcome()
        if "exception" not in outcome:
            return outcome["value"]
        exception = outcome["exception"]
        if not isinstance(exception, BaseException):
            exception = JobFailed(str(exception), next_step="Its own type is not known here.", job_id=self.id)
        raise exception from RemoteTraceback(str(outcome.get("traceback", "")))

    def _download(self) -> bytes:
        answer = self._connection.send(wire.one("jobs", self.id, "result"))
        expected = answer.headers.get(wire.SHA256_HEADER, "")
        if expected and hashlib.sha256(answer.content).hexdigest() != expected:
            raise IncompleteStream(f"The result of job {self.name} arrived damaged.", next_step="Ask for it again.")
        return answer.content

    def __repr__(self) -> str:
        return f"<torpor.Job {self.id} {self.name!r} {self.last_status.phase}>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        with contextlib.suppress(TorporError):  # then what was last heard of is shown: a display does not raise
            self.refresh()
        return {"text/plain": snapshots.job_text(self), "text/html": snapshots.job_html(self)}


def load_outcome(payload: bytes, job_id: str) -> dict[str, Any]:
    """Return ``{"value"}`` or ``{"exception", "traceback"}``. Raises JobFailed where this interpreter cannot read it."""
    import pickle

    try:
        outcome = pickle.loads(payload)  # noqa: S301 - the result of one's own job, checked against its hash
    except (pickle.UnpicklingError, ImportError, AttributeError, TypeError, EOFError, ValueError) as error:
        raise JobFailed(
            f"The result arrived, but this kernel cannot read it ({error}).",
            next_step="Return plain values or data frames, or install here what the job used.",
            job_id=job_id,
        ) from error
    if not isinstance(outcome, dict) or not {"value", "exception"} & outcome.keys():
        raise JobFailed("The result is not one that a Torpor job writes.", job_id=job_id)
    return outcome
