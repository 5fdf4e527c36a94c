"""A card that follows one job. It holds the job's id; a thread of the SDK asks, and the kernel stays free."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from torpor import snapshots
from torpor.errors import TorporError
from torpor.job_handle import Job
from torpor.polling import LONGEST_S
from torpor.widgets.card_state import outcome_of, state_of

LOG_BYTES = 32 * 1024
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = LONGEST_S


class JobCard(anywidget.AnyWidget):
    """A card for a job, given as a ``Job``, an id or a name: state, queue, log, result, and a button that cancels it."""

    _esm = Path(__file__).with_name("job_card.js")
    _css = Path(__file__).with_name("job_card.css")
    state = traitlets.Dict().tag(sync=True)
    log = traitlets.Unicode("").tag(sync=True)
    outcome = traitlets.Dict().tag(sync=True)
    notice = traitlets.Unicode("").tag(sync=True)

    def __init__(self, job: Job | str, *, follow: bool = True) -> None:
        super().__init__()
        if isinstance(job, str):
            import torpor

            job = torpor.job(job)
        self.job = job
        self._reader = job.log_reader(LOG_BYTES)
        self._wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.state = state_of(job)
        self.on_msg(self._receive)
        self._thread = threading.Thread(target=self._follow, name=f"torpor-card-{job.id}", daemon=True)
        if follow:
            self._thread.start()

    def look(self) -> bool:
        """Ask once and show it. Returns whether the job has ended and everything of it is shown."""
        try:
            status = self.job.status
            new = self._reader.read()
            if not new and 0 < self._reader.attempt < status.attempt:
                self._reader.begin(status.attempt)
                new = f"\n--- attempt {status.attempt} ---\n" + self._reader.read()
            self.outcome = outcome_of(self.job) if status.finished else {}
        except TorporError as error:
            self.notice = str(error)
            return False
        self.log = (self.log + new)[-LOG_BYTES:]
        self.state = state_of(self.job)
        self.notice = ""
        return status.finished and not new

    def cancel(self) -> None:
        """Wish the job to end; what stands against it is shown."""
        try:
            self.job.cancel()
        except TorporError as error:
            self.notice = str(error)
        else:
            self.state = state_of(self.job)

    def close(self) -> None:
        """Stop following and take the card away. The job goes on."""
        self._wishes.put("close")
        super().close()

    def _receive(self, _: object, content: Any, __: object) -> None:
        if isinstance(content, dict) and content.get("type") == "cancel":
            self._wishes.put("cancel")
            if not self._thread.is_alive():
                self.cancel()

    def _follow(self) -> None:
        pause_s, before = FIRST_PAUSE_S, ""
        while not self.look():
            phase = str(self.state.get("phase"))
            pause_s = FIRST_PAUSE_S if phase != before else min(pause_s * 1.5, LONGEST_PAUSE_S)
            before = phase
            try:
                wish = self._wishes.get(timeout=pause_s)
            except queue.Empty:
                continue
            if wish == "close":
                return
            self.cancel()

    def __repr__(self) -> str:
        return snapshots.job_text(self.job)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Return the live card, and for pages without widgets a snapshot in plain text and HTML."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        fallback = {"text/plain": snapshots.job_text(self.job), "text/html": snapshots.job_html(self.job)}
        return {**data, **fallback}, metadata
