"""What an importer and its child say to each other: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

WAITING, RUNNING, OK, FAILED = "waiting", "running", "ok", "failed"


@dataclass
class Step:
    """One step of a stage, as people see it."""

    name: str
    state: str = WAITING
    message: str = ""
    ms: int | None = None


@dataclass(frozen=True)
class Progress:
    """The child is in this stage, and its steps stand like this."""

    stage: str
    stages: tuple[Step, ...]


@dataclass(frozen=True)
class Piece:
    """A file lies in the child's folder, to be uploaded under its own name; the child waits until it was."""

    name: str


@dataclass(frozen=True)
class Result:
    """The task is done."""

    schema: dict[str, Any] | None = None
    sample: dict[str, Any] | None = None
    stats: dict[str, Any] | None = None


@dataclass(frozen=True)
class Failure:
    """The task failed; ``code`` is of the closed set."""

    code: str
    message: str
    next_step: str


Message = Progress | Piece | Result | Failure
KINDS = {"progress": Progress, "piece": Piece, "result": Result, "failure": Failure}


def encode(message: Message) -> bytes:
    """Return a message as a line."""
    return json.dumps({"type": type(message).__name__.lower(), **asdict(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the message of a line.

    Raises:
        ValueError: when it is none.
    """
    content = json.loads(line)
    kind = content.pop("type", None) if isinstance(content, dict) else None
    if kind == "progress":
        return Progress(content["stage"], tuple(Step(**step) for step in content["stages"]))
    if kind not in KINDS:
        raise ValueError(f"no message: {line[:80]!r}")
    made: Message = KINDS[kind](**content)
    return made
