"""Sources, datasets, imports and reads: their phases, what a filter may say, and the sentences that explain them."""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import StrEnum
from pathlib import PurePosixPath

KINDS = ("files",)
FORMATS = ("parquet",)
# The largest whole number that JavaScript, like every double, holds exactly.
LARGEST_EXACT = 2**53 - 1


# What a remembered root begins with when it lies below the platform's own data folder.
OWN_DATA = "data:"


class DatasetPhase(StrEnum):
    """Where a dataset is. ``STALE`` still serves what an earlier import stored, because the last one failed."""

    IMPORTING = "IMPORTING"
    READY = "READY"
    FAILED = "FAILED"
    STALE = "STALE"


class ImportPhase(StrEnum):
    """Where an import is."""

    QUEUED = "QUEUED"
    TESTING = "TESTING"
    SAMPLING = "SAMPLING"
    DESCRIBING = "DESCRIBING"
    READY = "READY"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class ReadPhase(StrEnum):
    """Where a read is."""

    QUEUED = "QUEUED"
    READING = "READING"
    READY = "READY"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Stage(StrEnum):
    """What an importer does with a task; each has a deadline of its own."""

    TESTING = "testing"
    SAMPLING = "sampling"
    DESCRIBING = "describing"
    READING = "reading"


class FailureCode(StrEnum):
    """Why a task failed: a closed set, the same for every connector."""

    NOT_FOUND = "NOT_FOUND"
    FORBIDDEN = "FORBIDDEN"
    AUTH = "AUTH"
    UNREACHABLE = "UNREACHABLE"
    TIMEOUT = "TIMEOUT"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED = "UNSUPPORTED"
    THROTTLED = "THROTTLED"


QUEUED = "QUEUED"
ENDED = frozenset({"READY", "FAILED", "CANCELLED"})
ONLY_ONE = frozenset({"==", "!=", "<", "<=", ">", ">="})
MANY = frozenset({"in", "not_in"})
NONE = frozenset({"is_null", "is_valid"})
MOST_VALUES = 10_000
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not_in", "is_null", "is_valid")


class InvalidFilter(ValueError):
    """A filter says something that no filter may say; ``pointer`` is the place inside of the filter (RFC 6901)."""

    def __init__(self, message: str, pointer: str) -> None:
        super().__init__(message)
        self.pointer = pointer


@dataclass(frozen=True)
class Condition:
    """One condition of a filter; ``value`` is a JSON scalar, a list of them (``in``, ``not_in``), or None."""

    column: str
    operator: str
    value: object = None


def conditions(raw: object) -> tuple[Condition, ...]:
    """Return the conditions of a filter as it comes over the wire: ``[[column, operator, value], …]``, all of which hold.

    Raises:
        InvalidFilter: with a sentence that names the condition.
    """
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise InvalidFilter("A filter is a list of [column, operator, value].", "")
    return tuple(_condition(entry, index) for index, entry in enumerate(raw))


def _condition(entry: object, index: int) -> Condition:
    here = f"/{index}"
    if not isinstance(entry, list) or not 2 <= len(entry) <= 3 or not all(isinstance(part, str) for part in entry[:2]):
        raise InvalidFilter(f"Condition {index + 1} of the filter is not [column, operator, value].", here)
    column, operator, value = entry[0], entry[1], entry[2] if len(entry) == 3 else None
    if operator not in OPERATORS:
        known = " ".join(OPERATORS)
        raise InvalidFilter(f"The filter has no operator '{operator}'. Operators: {known}.", f"{here}/1")
    if operator in NONE:
        return Condition(column, operator)
    _check_value(column, operator, value, f"{here}/2")
    return Condition(column, operator, value)


def _check_value(column: str, operator: str, value: object, pointer: str) -> None:
    if operator in MANY and (not isinstance(value, list) or not value):
        raise InvalidFilter(f"'{operator}' on column '{column}' needs a list with at least one value.", pointer)
    values = value if operator in MANY and isinstance(value, list) else [value]
    if len(values) > MOST_VALUES:
        raise InvalidFilter(f"'{operator}' on column '{column}' names more than {MOST_VALUES:,} values.", pointer)
    if any(item is None for item in values):
        raise InvalidFilter(
            f"'{operator}' on column '{column}' compares with null; use is_null or is_valid instead.", pointer
        )
    if not all(isinstance(item, str | int | float | bool) for item in values):
        raise InvalidFilter(
            f"'{operator}' on column '{column}' compares with texts, numbers or true and false.", pointer
        )


def columns_problem(asked: Sequence[str] | None, known: Sequence[str]) -> str:
    """Return why these columns cannot be read, or nothing where they can; None asks for all."""
    if asked is None:
        return ""
    if not asked:
        return "Name at least one column, or none at all for every column."
    for name in asked:
        if name not in known:
            return unknown_column(name, known)
    return "" if len(set(asked)) == len(asked) else "A column is named twice."


def unknown_column(asked: str, known: Sequence[str]) -> str:
    """Return the sentence for a column that a dataset does not have."""
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"There is no column '{asked}'. Columns: {shown}."


def path_problem(path: str) -> str:
    """Return why ``path`` may not be a dataset's path below its source's root, or nothing where it may."""
    if not path or path.startswith("/") or "\x00" in path:
        return "The path is relative to the source's root, and not empty."
    if any(part in ("", "..") for part in path.rstrip("/").split("/")):
        return "The path may not hold '..' or empty parts."
    return ""


def dataset_phase(last: str, *, has_sample: bool) -> DatasetPhase:
    """Return a dataset's phase from the phase of its last import and whether an earlier one stored anything."""
    if last not in ENDED:
        return DatasetPhase.IMPORTING
    if last == ImportPhase.READY:
        return DatasetPhase.READY
    return DatasetPhase.STALE if has_sample else DatasetPhase.FAILED


def variable(name: str) -> str:
    """Return a good Python variable for a dataset's name: ``flights-2013`` is ``flights_2013``."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "dataset"
    text = f"dataset_{text}" if text[0].isdigit() else text
    taken = keyword.iskeyword(text) or keyword.issoftkeyword(text) or hasattr(builtins, text) or text == "torpor"
    return f"{text}_" if taken else text


def code(tenant: str, name: str) -> str:
    """Return the cell that opens a dataset. It holds names only: no path, no credential."""
    target = variable(name)
    return f'import torpor\n\n{target} = torpor.dataset("{tenant}/{name}").to_pandas(limit=1000)\n{target}.head()'


@dataclass(frozen=True)
class Waiting:
    """What a queued task waits for; times in seconds since the epoch, ``asked_at`` None when no importer ever asked."""

    now: float
    asked_at: float | None
    asked_text: str
    source: str
    busy: int
    most: int
    silent_after_s: float


def kept_root(root: str, data_dir: str) -> str:
    """Return a root as it is remembered: below the platform's own data folder relative to it, so that the folder can move."""
    path = PurePosixPath(root)
    return OWN_DATA + str(path.relative_to(data_dir)) if path.is_relative_to(data_dir) else root


def root_of(kept: str, data_dir: str) -> str:
    """Return where a remembered root lies now."""
    own = kept.removeprefix(OWN_DATA)
    return kept if own == kept else str(PurePosixPath(data_dir) / own)


def explain_queued(waiting: Waiting, noun: str) -> tuple[str, str]:
    """Return message and next step of a task (``noun``: import, read) that no importer has taken yet."""
    if waiting.asked_at is None or waiting.now - waiting.asked_at > waiting.silent_after_s:
        since = f"since {waiting.asked_text}" if waiting.asked_at is not None else "yet"
        return (
            f"No importer has asked for work {since}; the {noun} waits for one.",
            "It begins by itself when an importer runs again. If that lasts, tell an admin.",
        )
    if waiting.busy >= waiting.most:
        return f"The {noun} waits until one of the {waiting.busy} tasks at the source '{waiting.source}' ends.", ""
    return f"The {noun} waits for the importer to take it.", ""


def explain_taken(noun: str) -> tuple[str, str]:
    """Return message and next step of a task that an importer has taken and said nothing of since."""
    return (
        f"An importer has taken the {noun} and has not begun; the {noun} waits for its first word.",
        "If the importer stays silent, another gets it by itself. If that lasts, tell an admin.",
    )


def explain_running(stage: str, noun: str) -> str:
    """Return what an importer does now."""
    return {
        Stage.TESTING.value: "The importer tests the source.",
        Stage.SAMPLING.value: "The importer takes a sample.",
        Stage.DESCRIBING.value: "The importer describes the columns and counts the rows.",
        Stage.READING.value: "The importer reads the rows.",
    }.get(stage, f"The importer has taken the {noun}.")


def explain_ready(statistics: Mapping[str, object]) -> str:
    """Return what a finished import found."""
    rows, files = statistics.get("rows"), statistics.get("files")
    if not isinstance(rows, int) or not isinstance(files, int):
        return "The import is finished."
    return f"{rows:,} {'row' if rows == 1 else 'rows'} in {files:,} {'file' if files == 1 else 'files'}."


def json_cell(value: object) -> object:
    """Return a value of a sample as JSON: moments as ISO 8601, bytes as hexadecimal, what JSON's numbers cannot hold as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= LARGEST_EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, date | datetime | time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(key): json_cell(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_cell(item) for item in value]
    return str(value)
