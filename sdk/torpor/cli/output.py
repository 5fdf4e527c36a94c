"""Data on stdout: a table for people, the API's own documents for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torpor import snapshots
from torpor.cli.context import OutputFormat
from torpor.models import Resource

COLOURS = {"success": "green", "info": "blue", "error": "red", "warn": "yellow", "idle": "bright_black"}
PIPE_WIDTH = 240


@dataclass(frozen=True)
class View:
    """How one kind of thing looks: headings, a row of a table, further lines, and the name that other commands take."""

    headings: Sequence[str]
    row: Callable[[Resource], Sequence[str]]
    name: Callable[[Resource], str]
    details: Callable[[Resource], Sequence[tuple[str, str]]]


def chosen(output: OutputFormat | None) -> OutputFormat:
    """Return how to write: as asked, or a table on a terminal and JSON elsewhere."""
    return output or (OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.JSON)


def write_list(resources: Sequence[Resource], view: View, output: OutputFormat | None) -> None:
    """Write several things."""
    match chosen(output):
        case OutputFormat.TABLE:
            write_table(view.headings, [view.row(resource) for resource in resources])
        case OutputFormat.NAME:
            sys.stdout.write("".join(f"{view.name(resource)}\n" for resource in resources))
        case form:
            write_document([resource.document for resource in resources], form)


def write_one(resource: Resource, view: View, output: OutputFormat | None) -> None:
    """Write one thing, with everything that a person may want to know."""
    match chosen(output):
        case OutputFormat.TABLE:
            lines = zip(view.headings, view.row(resource), strict=True)
            _write_pairs([*lines, ("id", resource.id), *view.details(resource)])
        case OutputFormat.NAME:
            sys.stdout.write(f"{view.name(resource)}\n")
        case form:
            write_document(resource.document, form)


def write_document(document: Any, output: OutputFormat) -> None:
    """Write ``document`` as YAML, or as JSON."""
    if output is OutputFormat.YAML:
        import yaml

        plain = json.loads(json.dumps(document))
        yaml.safe_dump(plain, sys.stdout, sort_keys=False, allow_unicode=True)
    else:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows below headings; phases have their colour on a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading.upper(), overflow="fold")
    for row in rows:
        table.add_row(*[Text(cell, style=_style(cell)) for cell in row])
    _console().print(table)


def sentences(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the platform's own words about a state: message, next step, losses, notices, parts and notes."""
    pairs = [
        ("message", status.get("message")),
        ("next step", status.get("next_step")),
        ("lost", status.get("lost")),
        ("notice", status.get("notice")),
    ]
    parts = [("waits for", part) for part in status.get("parts") or ()]
    notes = [("note", note) for note in status.get("notes") or ()]
    return [(key, str(value)) for key, value in [*pairs, *parts, *notes] if value]


@contextmanager
def told() -> Iterator[Callable[[str], None]]:
    """Return a function that tells on stderr how far something is: one changing line on a terminal, else a line per change."""
    from rich.console import Console

    console, last = Console(stderr=True), [""]
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
        return

    def say(text: str) -> None:
        if text != last[0]:
            last[0] = text
            sys.stderr.write(f"{text}\n")

    yield say


def _write_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    for key, value in pairs:
        if value:
            grid.add_row(Text(key, style="bold"), Text(value, style=_style(value)))
    _console().print(grid)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def _style(cell: str) -> str:
    return COLOURS[snapshots.tone(cell)] if cell.isupper() and cell in snapshots.TONES else ""
