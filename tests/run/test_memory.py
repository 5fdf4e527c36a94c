"""What the wrapper says of memory, by what the kernel counts; the files are those of both versions of control groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torpor.run import memory
from torpor.run.attempt import Outcome
from torpor.run.wrapper import _out_of_memory

GIB = 1024**3
TASK: dict[str, Any] = {"amount": {"memory_bytes": GIB}}
VERSIONS = {
    "two": ("memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n", "memory.max"),
    "one": (
        "memory/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory/memory.limit_in_bytes",
    ),
}


@pytest.fixture(params=VERSIONS)
def group(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The limit's file of a container's own control group in which two processes were ended."""
    events, content, limit = VERSIONS[request.param]
    (tmp_path / "memory").mkdir()
    (tmp_path / events).write_text(content)
    (tmp_path / limit).write_text(f"{GIB}\n")
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    return tmp_path / limit


def test_the_kernel_is_asked_what_it_ended_and_what_the_limit_is(group: Path) -> None:
    assert (memory.kills(), memory.limit_bytes()) == (2, GIB)
    group.write_text("max\n")
    assert memory.limit_bytes() is None


def test_a_machine_that_does_not_say_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    assert (memory.kills(), memory.limit_bytes()) == (0, None)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("found", [Outcome(137, "killed", "by SIGKILL"), Outcome(1, "exception", "Py4J"), Outcome(1)])
def test_a_failure_in_a_container_out_of_memory_names_the_limit(found: Outcome) -> None:
    outcome = _out_of_memory(found, TASK)
    assert (outcome.reason, outcome.exit_code) == ("out_of_memory", found.exit_code)
    assert outcome.message == "The job used more than its limit of 1 GiB of memory, and the kernel ended it."


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    "found", [Outcome(0), Outcome(143, "cancelled"), Outcome(143, "timeout"), Outcome(143, "lost")]
)
def test_what_ended_otherwise_keeps_its_reason(found: Outcome) -> None:
    assert _out_of_memory(found, TASK) == found


def test_without_a_limit_of_its_own_only_a_kill_counts(group: Path) -> None:
    group.write_text("max\n")
    assert _out_of_memory(Outcome(1, "exception"), TASK).reason == "exception"
    killed = _out_of_memory(Outcome(137, "killed"), TASK)
    assert killed.reason == "out_of_memory"
    assert "the memory that the machine had" in killed.message
