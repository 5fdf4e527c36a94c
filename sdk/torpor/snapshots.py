"""How jobs, datasets and workspaces look where no widget runs: plain text, and HTML that suits light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from torpor import units

if TYPE_CHECKING:
    from torpor.job_handle import Job

TONES = {
    "SUCCEEDED": "success",
    "READY": "success",
    "RUNNING": "info",
    "STARTING": "info",
    "ADMITTED": "info",
    "WAKING": "info",
    "FAILED": "error",
    "UNREACHABLE": "error",
    "CANCELLING": "warn",
    "PREEMPTED": "warn",
    "STALE": "warn",
}
COLOURS = {"success": "#2e7d32", "info": "#1976d2", "error": "#d32f2f", "warn": "#b26a00", "idle": "#757575"}
FONT = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:var(--jp-ui-font-size1,13px)"
SOFT = "color:var(--jp-ui-font-color2,inherit);opacity:.85"


def tone(phase: str) -> str:
    """Return which of the colours stands for ``phase``: success, info, error, warn or idle."""
    return TONES.get(phase, "idle")


def job_text(job: Job) -> str:
    """Return a job in a few lines of plain text."""
    status = job.last_status
    return "\n".join([f"Job {job.name} ({job.id}): {status.phase}{_timing(job)}", *_sentences(job)])


def job_html(job: Job) -> str:
    """Return a job as a small static card."""
    status = job.last_status
    colour = f"var(--jp-{tone(status.phase)}-color1,{COLOURS[tone(status.phase)]})"
    dot = f'<span style="display:inline-block;width:9px;height:9px;border-radius:50%;background:{colour}"></span>'
    rows = "".join(f'<div style="margin-top:4px">{escape(sentence)}</div>' for sentence in _sentences(job))
    head = f"{dot} <b>{escape(job.name)}</b> {escape(status.phase.capitalize())}{escape(_timing(job))}"
    return (
        f'<div style="{FONT};border:1px solid var(--jp-border-color2,#bdbdbd);border-radius:4px;padding:8px 12px;max-width:720px">'
        f'{head}<div style="{SOFT};margin-top:2px">{escape(job.id)}</div>{rows}</div>'
    )


def table_text(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in plain text, its columns aligned."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def table_html(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML; everything in it is escaped."""
    head = "".join(f'<th style="text-align:left">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    foot = f'<div style="{FONT};{SOFT}">{escape(caption)}</div>' if caption else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{foot}"


def _sentences(job: Job) -> list[str]:
    status = job.last_status
    place = [f"Number {status.position} in the queue."] if status.position else []
    said = [text for text in (status.message, status.next_step, status.notice) if text]
    return [*place, *said, *(f"• {part}" for part in status.parts)]


def _timing(job: Job) -> str:
    elapsed_s = job.elapsed_s()
    return f", {units.duration(elapsed_s)}" if elapsed_s is not None else ""
