"""What a card shows, as plain values made from a job. The words are the platform's."""

from __future__ import annotations

import reprlib
from typing import Any

from torpor import snapshots, units
from torpor.errors import TorporError
from torpor.job_handle import Job

PREVIEW_LIMIT_BYTES = 4 * 1024 * 1024
PREVIEW_CHARACTERS = 4000
SHOWN_ITEMS = 60


def state_of(job: Job) -> dict[str, Any]:
    """Return the head of a card: names, phase and the colour that stands for it, sentences, and seconds passed."""
    status = job.last_status
    return {
        "id": job.id,
        "name": job.name,
        "kind": str(job.resource.spec.get("kind", "")),
        "amount": units.amount(job.resource.spec.get("amount") or {}),
        "phase": status.phase,
        "tone": snapshots.tone(status.phase),
        "finished": status.finished,
        "message": status.message,
        "next_step": status.next_step,
        "parts": list(status.parts),
        "notice": status.notice,
        "position": status.position,
        "attempt": status.attempt,
        "elapsed_s": job.elapsed_s(),
        "running": status.started_at is not None and status.ended_at is None,
    }


def outcome_of(job: Job) -> dict[str, str]:
    """Return how a finished job ended, to be shown: ``kind`` is value, exception, note, or empty; ``text`` is cut."""
    status = job.last_status
    if status.exception:
        head = ": ".join(str(status.exception[key]) for key in ("type", "message") if status.exception.get(key))
        return {"kind": "exception", "title": head, "text": str(status.exception.get("traceback") or "")}
    size_bytes = int(status.result.get("size_bytes") or 0)
    if not status.result:
        return {"kind": "", "title": "", "text": ""}
    if size_bytes > PREVIEW_LIMIT_BYTES:
        return _note(f"The result has {units.size(size_bytes)}: torpor.job('{job.id}').result() returns it.")
    try:
        outcome = job.outcome()
    except TorporError as error:
        return _note(str(error))
    if "exception" in outcome:
        return {"kind": "exception", "title": _shown(outcome["exception"]), "text": str(outcome.get("traceback", ""))}
    return {"kind": "value", "title": type(outcome["value"]).__name__, "text": _shown(outcome["value"])}


def _note(text: str) -> dict[str, str]:
    return {"kind": "note", "title": "", "text": text}


def _shown(value: object) -> str:
    """Return the ``repr``, cut in length and depth; a ``repr`` that raises costs nothing (``reprlib`` answers for it)."""
    cutter = reprlib.Repr()
    cutter.maxother = cutter.maxstring = cutter.maxlong = PREVIEW_CHARACTERS
    cutter.maxlist = cutter.maxtuple = cutter.maxdict = cutter.maxset = cutter.maxarray = SHOWN_ITEMS
    return cutter.repr(value)
