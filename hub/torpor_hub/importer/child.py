"""One task of the importer, in a process of its own: ``python -m torpor_hub.importer.child PARENT``, the task on standard input.

It holds no credentials of the platform and opens no connection to it: it writes files into its folder and tells its parent,
which uploads them. The parent may kill it at any moment.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from torpor_hub import failpoints
from torpor_hub.domain.datasets import FailureCode, InvalidFilter, Stage, conditions
from torpor_hub.errors import SourceFailed
from torpor_hub.importer.messages import FAILED, OK, RUNNING, Failure, Message, Piece, Progress, Result, Step, encode
from torpor_hub.sources.base import Connector, Limits, Request
from torpor_hub.sources.registry import connector

PR_SET_PDEATHSIG = 1
MEMORY_BYTES = 2 * 1024**3
SAMPLE = "sample.parquet"

T = TypeVar("T")


class _WithoutPandas(MetaPathFinder):
    """Hides pandas, which Arrow's datasets load where it is installed: that takes longer than most tasks, and serves none."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Return None for every other module.

        Raises:
            ModuleNotFoundError: for pandas.
        """
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not for connectors", name=fullname)


class Parent:
    """The way to the parent: messages out, one line back for each piece."""

    def __init__(self, out: BinaryIO, back: BinaryIO) -> None:
        self._out, self._back = out, back

    def tell(self, message: Message) -> None:
        """Send a message."""
        self._out.write(encode(message))
        self._out.flush()

    def give(self, name: str, content: bytes) -> None:
        """Hand over a file, and return once it was uploaded."""
        Path(name).write_bytes(content)
        self.tell(Piece(name))
        if not self._back.readline():
            raise SystemExit(1)


class Run:
    """The stages of one task, told to the parent as they pass."""

    def __init__(self, parent: Parent, *names: str) -> None:
        self._parent = parent
        self._stage = ""
        self._steps = [Step(name) for name in names]

    def enter(self, stage: Stage) -> None:
        """Begin a stage."""
        self._stage = stage.value
        self._tell()
        failpoints.hit("importer.child_stage")

    def step(self, name: str, work: Callable[[], T], say: Callable[[T], str]) -> T:
        """Return what the work of a step gives; ``say`` makes its sentence."""
        step = next(step for step in self._steps if step.name == name)
        step.state, started = RUNNING, time.monotonic()
        self._tell()
        try:
            made = work()
        except SourceFailed as error:
            step.state, step.message = FAILED, error.message
            raise
        else:
            step.state, step.message = OK, say(made)
            return made
        finally:
            step.ms = round(1000 * (time.monotonic() - started))
            self._tell()

    def _tell(self) -> None:
        self._parent.tell(Progress(self._stage, tuple(self._steps)))


def main() -> None:
    """Run the task that standard input names; whatever libraries print goes to standard error."""
    _die_with_parent(int(sys.argv[1]))
    _bound_memory()
    sys.meta_path.insert(0, _WithoutPandas())
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    task = json.loads(sys.stdin.buffer.readline())
    parent = Parent(out, sys.stdin.buffer)
    try:
        parent.tell(_do(task, parent))
    except SourceFailed as error:
        parent.tell(Failure(error.code, error.message, error.next_step))


def _do(task: dict[str, Any], parent: Parent) -> Result:
    source, dataset = task["source"], task["dataset"]
    request = Request(source, dataset, tuple(Path(root) for root in task["roots"]))
    made = connector(source["kind"], request)
    if task["kind"] == "read":
        return _read(made, task["read"], parent)
    return _import(made, Limits(**task["limits"]), parent)


def _import(source: Connector, limits: Limits, parent: Parent) -> Result:
    checks = source.checks()
    run = Run(parent, *(check.name for check in checks), "sample", "describe")
    run.enter(Stage.TESTING)
    for check in checks:
        run.step(check.name, check.run, str)
    run.enter(Stage.SAMPLING)
    sample = run.step("sample", lambda: source.sample(limits), lambda made: f"{made.rows:,} rows sampled.")
    parent.give(SAMPLE, sample.content)
    run.enter(Stage.DESCRIBING)
    found = run.step(
        "describe",
        lambda: source.describe(limits),
        lambda made: f"{len(made.columns):,} columns, {made.stats.get('rows', 0):,} rows.",
    )
    return Result(found.schema(), {"name": SAMPLE, "rows": sample.rows}, dict(found.stats))


def _read(source: Connector, asked: dict[str, Any], parent: Parent) -> Result:
    run = Run(parent, "read")
    run.enter(Stage.READING)
    try:
        filter_ = conditions(asked.get("filter"))
    except InvalidFilter as error:
        raise SourceFailed(FailureCode.UNSUPPORTED, str(error), "Check the filter.") from error

    def send() -> int:
        count = 0
        for piece in source.read(asked.get("columns"), filter_, asked.get("limit")):
            parent.give(str(count), piece)
            count += 1
        return count

    run.step("read", send, lambda made: f"{made:,} pieces sent.")
    return Result()


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent ended between the fork and the call: then nothing would ever end this process.
        raise SystemExit(1)


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
