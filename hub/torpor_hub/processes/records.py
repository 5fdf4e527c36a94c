"""The records that a reaper is started with and that it keeps: who runs, since when, how it ended.

Standard library only: the reaper runs without any installed package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torpor_hub.errors import PlaceError
from torpor_hub.processes import files

START_FILE = "start.json"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Start:
    """What a reaper has to start. It holds tokens: its file is removed as soon as it is read."""

    workspace_id: str
    grant_id: str
    root: str
    command: list[str]
    environment: Mapping[str, str]
    cwd: str
    port: int


@dataclass(frozen=True)
class RunRecord:
    """One run of a workspace: ``handle`` names its reaper, ``server`` its server, times are seconds since the epoch."""

    workspace_id: str
    grant_id: str
    handle: str
    port: int
    started_at: float
    server: str = ""
    exit_code: int | None = None
    ended_at: float | None = None

    def with_server(self, handle: str) -> RunRecord:
        """Return the record of a run whose server has started."""
        return replace(self, server=handle)

    def with_end(self, exit_code: int, ended_at: float) -> RunRecord:
        """Return the record of a run that has ended; a negative ``exit_code`` is the number of a signal."""
        return replace(self, exit_code=exit_code, ended_at=ended_at)


def write(root: Path, record: RunRecord) -> None:
    """Write the record into the workspace's folder, at once and whole."""
    files.write_atomically(root / RUN_FILE, json.dumps(asdict(record)).encode())


def read(root: Path) -> RunRecord | None:
    """Return the record of the workspace's latest run; None where it never ran.

    Raises:
        PlaceError: when the record cannot be read. Nobody knows then whether the workspace runs.
    """
    file = root / RUN_FILE
    try:
        return RunRecord(**json.loads(file.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise PlaceError(f"The record of a run {file} cannot be read: {error}.") from error


def write_start(root: Path, start: Start) -> Path:
    """Write what the reaper reads, for its owner's eyes only, and return the file."""
    file = root / START_FILE
    files.write_atomically(file, json.dumps(asdict(start)).encode())
    return file


def take_start(file: Path) -> Start:
    """Return what ``write_start`` wrote, and remove the file."""
    start = Start(**json.loads(file.read_bytes()))
    file.unlink()
    return start
